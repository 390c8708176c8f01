"""The page's one stylesheet and its few lines of script."""

STYLE = """
:root { --paper:#fbfaf7; --card:#ffffff; --ink:#1d2026; --soft:#5d6470; --line:#e3e1da; --grid:#eceae3;
  --base:#8a8f99; --adapter:#0f766e; --good:#0f766e; --good-wash:#e3f3ef; --bad:#b3261e; --bad-wash:#fbe9e7;
  --calm:#5d6470; --calm-wash:#efeee9; --c1:#0f766e; --c2:#b45309; --c3:#5b4bc4; --c4:#be2d6a; --c5:#3a7d1f;
  --on-bar:#ffffff; }
@media (prefers-color-scheme: dark) { :root { --paper:#14161a; --card:#1c1f25; --ink:#e9e7e1; --soft:#9fa6b2;
  --line:#2f343d; --grid:#272b33; --base:#8d94a1; --adapter:#4cc3b4; --good:#4cc3b4; --good-wash:#17322f;
  --bad:#ff8a80; --bad-wash:#3a1f1d; --calm:#9fa6b2; --calm-wash:#262a31; --c1:#4cc3b4; --c2:#f0a35c; --c3:#a99bff;
  --c4:#f58bb5; --c5:#9ccc65; --on-bar:#14161a; } }
* { box-sizing:border-box; }
body { margin:0; background:var(--paper); color:var(--ink); font:16px/1.55 system-ui, -apple-system, "Segoe UI",
  "Helvetica Neue", Arial, sans-serif; -webkit-text-size-adjust:100%; }
main { max-width:1080px; margin:0 auto; padding:40px 24px 72px; }
h1 { font-size:15px; font-weight:600; letter-spacing:.02em; color:var(--soft); margin:0 0 14px; }
h2 { font-size:21px; line-height:1.25; margin:0 0 4px; letter-spacing:-.01em; }
h3 { font-size:15px; margin:0 0 2px; }
p { margin:0 0 12px; } section { margin-top:48px; }
.lead { color:var(--soft); margin:0 0 18px; max-width:70ch; }
.card { background:var(--card); border:1px solid var(--line); border-radius:12px; }
.verdict { padding:26px 28px; border-left:6px solid var(--calm); }
.verdict.good { border-left-color:var(--good); } .verdict.bad { border-left-color:var(--bad); }
.verdict p { font-size:clamp(20px, 3.1vw, 29px); line-height:1.3; letter-spacing:-.015em; font-weight:600; margin:0;
  max-width:36ch; max-width:min(100%, 46ch); text-wrap:pretty; }
.verdict p.because { font-size:16px; line-height:1.5; letter-spacing:0; font-weight:400; color:var(--soft);
  margin-top:12px; max-width:75ch; }
.facts { display:flex; flex-wrap:wrap; gap:10px 32px; margin:20px 0 0; }
.facts dt { font-size:12.5px; color:var(--soft); } .facts dd { margin:0; font-weight:600; overflow-wrap:anywhere; }
.scroll { overflow-x:auto; } table { border-collapse:collapse; width:100%; font-variant-numeric:tabular-nums; }
th { text-align:left; font-size:12.5px; font-weight:600; color:var(--soft); padding:12px 14px 8px;
  white-space:nowrap; }
td { padding:11px 14px; border-top:1px solid var(--line); vertical-align:middle; white-space:nowrap; }
td.name { min-width:150px; white-space:normal; line-height:1.35; }
td.num, th.num { text-align:right; } td .sub { display:block; font-size:12.5px; color:var(--soft); }
tr.pick td { background:var(--good-wash); }
tr.group td { padding:14px 14px 6px; font-size:12.5px; font-weight:600; color:var(--soft);
  background:var(--calm-wash); }
.good-ink { color:var(--good); font-weight:600; } .bad-ink { color:var(--bad); font-weight:600; }
.charts { display:grid; grid-template-columns:repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap:18px; }
figure { margin:0; } .chart { padding:16px 16px 10px; } .charts .wide { grid-column:1 / -1; }
  .chart figcaption { font-weight:600; font-size:15px; }
.chart .unit { color:var(--soft); font-size:12.5px; font-weight:400; display:block; min-height:1.5em; }
svg { display:block; width:100%; height:auto; } svg text { fill:var(--soft); font-size:12.5px; font-family:inherit; }
svg .grid { stroke:var(--grid); } svg .zero { stroke:var(--soft); stroke-dasharray:3 3; } svg .axis {
  stroke:var(--line); }
svg .curve { fill:none; stroke-width:2.2; stroke-linejoin:round; stroke-linecap:round; }
svg .band { opacity:.16; stroke:none; } svg .dot { stroke:var(--card); stroke-width:1.5; }
.legend { display:flex; flex-wrap:wrap; gap:2px 16px; font-size:12.5px; color:var(--soft); margin-top:2px; }
.legend i { display:inline-block; width:14px; height:3px; border-radius:2px; margin-right:6px;
  vertical-align:middle; }
.bars { display:grid; grid-template-columns:minmax(96px, max-content) 1fr; gap:9px 14px; align-items:center;
  margin:12px 0 8px; font-size:13.5px; font-variant-numeric:tabular-nums; } .rowlabel { line-height:1.25; }
.rowlabel .sub { font-size:12px; color:var(--soft); margin-left:6px; white-space:nowrap; }
.whole { display:flex; height:22px; border-radius:5px; overflow:hidden; background:var(--calm-wash); }
.whole i { color:var(--on-bar); font-weight:600; font-style:normal; font-size:11.5px; line-height:22px;
  text-align:center; overflow:hidden; }
.whole i.calm { color:var(--soft); } .bars .group { display:grid; gap:4px; } .bars .value { display:grid;
  grid-template-columns:1fr 44px; gap:8px;
  align-items:center; } .bars .value.none { display:block; color:var(--soft); font-size:12.5px; line-height:1.4; }
.bars .track { position:relative; height:14px; background:var(--calm-wash); border-radius:4px; overflow:hidden; }
.bars .track i { position:absolute; inset:0 auto 0 0; border-radius:4px 0 0 4px; opacity:.8; }
.bars .track b { position:absolute; top:5px; height:4px; background:var(--ink); border-radius:2px; }
.bars .value em { font-style:normal; text-align:right; }
.guards { display:grid; grid-template-columns:repeat(auto-fit, minmax(min(100%, 230px), 1fr)); gap:14px; }
.guard { padding:16px 18px; } .guard .state { font-size:12.5px; font-weight:600; padding:2px 9px; border-radius:99px;
  float:right; background:var(--calm-wash); color:var(--calm); }
.guard.ok .state { background:var(--good-wash); color:var(--good); }
.guard.wide { grid-column:1 / -1; } .guard.wide p { max-width:80ch; }
.guard .advice { margin-top:8px; } .guard.tripped { border-color:var(--bad); } .guard.tripped .state {
  background:var(--bad-wash); color:var(--bad); }
.guard .value { font-size:24px; font-weight:600; letter-spacing:-.01em; margin:4px 0 0;
  font-variant-numeric:tabular-nums; }
.guard p { font-size:13.5px; color:var(--soft); margin:2px 0 0; line-height:1.45; } .guard.tripped .advice {
  color:var(--ink); }
.pairs { display:grid; grid-template-columns:repeat(auto-fill, minmax(min(100%, 310px), 1fr)); gap:18px; }
.pair { padding:14px; display:flex; flex-direction:column; } .pair .prompt { font-weight:600; font-size:14.5px;
  line-height:1.35;
  margin:0 0 10px; overflow-wrap:anywhere; }
.pair .two { display:grid; grid-template-columns:1fr 1fr; gap:10px; margin-top:auto; }
.pair video { display:block; width:100%; background:#000; border-radius:6px; image-rendering:pixelated; }
.pair .who { font-size:12.5px; font-weight:600; margin:6px 0 0; } .pair .who.base { color:var(--base); }
.pair .who.adapter { color:var(--adapter); } .pair .scores { margin-top:8px; font-size:12.5px;
  line-height:1.4; color:var(--soft); }
.pair .scores td { padding:3px 0 3px 10px; text-align:right; } .pair .scores tr:first-child td { border-top:0; }
.pair .scores td:first-child { padding-left:0; text-align:left; white-space:normal; width:100%; }
.pair .scores td:last-child { color:var(--ink); font-weight:600; }
.bar { display:flex; flex-wrap:wrap; gap:8px; margin:0 0 14px; }
button { font:inherit; font-size:13.5px; color:var(--ink); background:var(--card); border:1px solid var(--line);
  border-radius:8px;
  padding:6px 14px; cursor:pointer; } button:hover { border-color:var(--soft); }
button:focus-visible, summary:focus-visible { outline:2px solid var(--adapter); outline-offset:2px; }
details { padding:14px 18px; } details + details { margin-top:10px; } summary { cursor:pointer; font-weight:600; }
pre { overflow-x:auto; font:13px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; margin:12px 0 2px; }
footer { margin-top:48px; font-size:12.5px; color:var(--soft); }
@media (max-width:560px) { main { padding:24px 14px 48px; } .verdict { padding:20px; } section { margin-top:36px; }
  td, th { padding-left:10px; padding-right:10px; } .stack td { white-space:normal; } }
@media print { .bar { display:none; } .card { break-inside:avoid; } }
"""

SCRIPT = """
(() => {
  const clips = [...document.querySelectorAll("video")];
  const start = () => clips.forEach((clip) => { clip.currentTime = 0; clip.play().catch(() => {}); });
  const button = document.querySelector("[data-act=toggle]");
  const stop = () => clips.forEach((clip) => clip.pause());
  document.querySelector("[data-act=restart]")?.addEventListener("click", () => { start(); button.textContent =
  "Pause"; });
  button?.addEventListener("click", () => {
    const playing = clips.some((clip) => !clip.paused);
    button.textContent = playing ? "Play" : "Pause";
    if (playing) { stop(); } else { clips.forEach((clip) => clip.play().catch(() => {})); }
  });
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) { stop(); if (button) { button.textContent = "Play"; } }
})();
"""
