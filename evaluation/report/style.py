"""What the evaluation page adds to the shared style and script: explorer, marks in tables."""

STYLE = """
.chip { display:inline-block; font-size:11.5px; font-weight:600; padding:1px 8px; border-radius:99px; 
  background:var(--calm-wash); color:var(--calm); } .chip.good { background:var(--good-wash); color:var(--good); }
.chip.bad { background:var(--bad-wash); color:var(--bad); } td .sub.warn { color:var(--bad); }
main { max-width:1180px; } .trust .guards { grid-template-columns:repeat(auto-fit, minmax(min(100%, 190px), 1fr)); }
.trust { margin-bottom:14px; } .trust .value { font-size:20px; } .trust h3 { margin:0; } .trust .guard .state {
  margin:-2px -4px 0 8px; }
.note { border-left:4px solid var(--bad); padding:14px 18px; margin:0 0 14px; } .note ul { margin:0;
  padding-left:18px; } .note li { margin:2px 0; max-width:100ch; }
.controls { align-items:end; gap:12px; margin-bottom:6px; } .controls label { display:grid; gap:3px; font-size:12.5px;
  color:var(--soft); min-width:0; } .controls .grow { flex:1 1 200px; } .controls select { max-width:230px; }
input, select { font:inherit; font-size:14px; color:var(--ink); background:var(--card); border:1px solid var(--line);
  border-radius:8px; padding:6px 10px; min-width:0; width:100%; } input:focus-visible, select:focus-visible {
  outline:2px solid var(--adapter); outline-offset:1px; }
.count { font-size:12.5px; color:var(--soft); margin:6px 0 12px; } .more { justify-content:center; margin:18px 0 0; }
.pair .prompt .sub { display:block; font-weight:400; font-size:12.5px; color:var(--soft); }
.pair .hole { color:var(--bad); margin-left:8px; } .pair[hidden] { display:none; }
.pair .absent { display:grid; place-items:center; background:var(--calm-wash); color:var(--soft); border-radius:6px;
  font-size:12.5px; } .pair .two { grid-template-columns:repeat(auto-fit, minmax(110px, 1fr)); }
.pair .face { display:flex; gap:10px; justify-content:space-between; margin:8px 0 0; font-size:13px;
  font-variant-numeric:tabular-nums; color:var(--soft); } .pair .face span { margin-right:auto; }
.pair .face b { color:var(--ink); } .pair .face b.won { color:var(--good); } .pair .face b.lost { color:var(--bad); }
.pair details { padding:6px 0 0; } .pair summary { font-weight:400; font-size:12.5px; color:var(--soft); }
.pair ul { margin:8px 0 0; padding-left:18px; font-size:12.5px; color:var(--soft); overflow-wrap:anywhere; }
.explorer .pair { content-visibility:auto; contain-intrinsic-size:auto 320px; }
.facts-table td:first-child { color:var(--soft); width:1%; } code { font:13px/1.5 ui-monospace, "SF Mono", Menlo,
  Consolas, monospace; overflow-wrap:anywhere; white-space:normal; }
.stack td { white-space:normal; overflow-wrap:break-word; }
.charts { grid-template-columns:repeat(auto-fill, minmax(min(100%, 420px), 1fr)); } h3 { margin:26px 0 10px; }
@media (max-width:560px) { .changes td { font-size:14px; padding:9px 7px; } .changes th { padding:10px 7px 6px; }
  .changes .mean .ends { display:none; } .changes td.name { min-width:104px; }
  .changes tr.group td { white-space:normal; }
  .bars { grid-template-columns:1fr; gap:3px; } .bars .whole, .bars .group { margin-bottom:7px; }
  .controls label { flex:1 1 130px; } .controls .grow { flex:1 1 100%; } .controls select { max-width:none; } }
"""

SCRIPT = """
(() => {
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const view = new IntersectionObserver((seen) => seen.forEach(({ target, isIntersecting }) => {
    if (isIntersecting && !calm.matches) { target.play().catch(() => {}); } else { target.pause(); }
  }));
  document.querySelectorAll("video[data-in-view]").forEach((clip) => {
    if (calm.matches) { clip.controls = true; }
    clip.addEventListener("error", () => clip.replaceWith(Object.assign(document.createElement("div"),
      { className: "absent", textContent: "clip cannot be read" })));
    view.observe(clip);
  });
  const box = document.querySelector(".explorer");
  if (!box) { return; }
  const ask = (name) => box.querySelector("[data-" + name + "]");
  const list = box.querySelector(".pairs");
  const cards = [...list.children].map((node, place) => ({ node, place, gaps: JSON.parse(node.dataset.gaps),
    holes: Number(node.dataset.holes), text: node.querySelector(".prompt").textContent.toLowerCase() }));
  let limit = 24;
  const draw = () => {
    const score = Number(ask("score").value), order = ask("order").value, kind = ask("kind").value;
    const words = ask("find").value.toLowerCase().split(/\\s+/);
    const gap = (card) => card.gaps[score];
    const kept = cards.filter((card) => words.every((word) => card.text.includes(word)) && (kind === "all"
      || (kind === "holes" && card.holes > 0) || (gap(card) !== null && ((kind === "won" && gap(card) > 0)
      || (kind === "lost" && gap(card) < 0)))));
    const last = order === "down" ? -Infinity : Infinity;
    const key = (card) => gap(card) === null ? last : gap(card);
    if (order !== "suite") { kept.sort((a, b) => (order === "up" ? 1 : -1) * (key(a) - key(b)) || a.place - b.place); }
    const shown = new Set(kept.slice(0, limit));
    cards.forEach((card) => { card.node.hidden = !shown.has(card); });
    list.append(...kept.map((card) => card.node));
    shown.forEach(({ node, gaps }) => {
      const cells = [...node.querySelectorAll(".scores tr")[score].cells].map((cell) => cell.textContent);
      node.querySelector(".face span").textContent = cells[0];
      node.querySelectorAll(".face b").forEach((cell, index, all) => {
        cell.textContent = cells[index + 1];
        const mark = index > 0 && index === all.length - 1 ? gaps[score] || 0 : 0;
        cell.className = mark > 0 ? "won" : mark < 0 ? "lost" : "";
      });
    });
    ask("count").textContent = shown.size + " of " + kept.length + (kept.length < cards.length ?
      " that fit, out of " + cards.length : "") + " shown.";
    ask("more").hidden = shown.size === kept.length;
  };
  ["find", "score", "order", "kind"].forEach((name) => ask(name).addEventListener("input", () => {
    limit = 24; draw(); }));
  ask("more").addEventListener("click", () => { limit += 48; draw(); });
  ask("replay").addEventListener("click", () => box.querySelectorAll(".pair:not([hidden]) video").forEach((clip) => {
    clip.currentTime = 0; }));
  draw();
})();
"""
