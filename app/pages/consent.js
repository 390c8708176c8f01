/* Asks for consent to the study that the duel shows; a panel's ids in the address go along, so that it can pay its raters. */
const section = element.querySelector(".consent");
const address = new URLSearchParams(window.location.search);
let version = "1";

/* The study that the duel takes: that of the address, or else the first that is open. */
function studyOf({ studies }) {
  const slug = address.get("study");
  return studies.find((study) => (slug ? study.slug === slug : study.is_open));
}

/* The panel's id of who sits here now: the browser's cookie may be that of somebody before them. */
function panelHeaders() {
  const person = address.get("PROLIFIC_PID");
  return person ? { "X-Panel-Person": encodeURIComponent(person) } : {};
}

async function look() {
  const session = await (await fetch("/api/v1/session", { headers: panelHeaders() })).json();
  const study = studyOf(session);
  const hasAgreed = study?.consented ?? session.consented;
  version = (study ?? session.studies[0])?.consent_version ?? version;
  section.hidden = hasAgreed;
  document.getElementById("duel")?.toggleAttribute("hidden", !hasAgreed);
}

async function agree() {
  const panel = {};
  for (const name of ["PROLIFIC_PID", "STUDY_ID", "SESSION_ID"]) if (address.get(name)) panel[name] = address.get(name);
  const reply = await fetch("/api/v1/consent", {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ version, panel }),
  });
  if (reply.ok) window.location.reload();
  else element.querySelector(".problem").textContent = (await reply.json()).error.message;
}

element.querySelector(".agree").addEventListener("click", agree);
look();
