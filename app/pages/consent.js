/* Asks for consent where the session has none; a panel's ids in the address go along, so that it can pay its raters. */
const section = element.querySelector(".consent");
let version = "1";

async function look() {
  const session = await (await fetch("/api/v1/session")).json();
  version = session.studies[0]?.consent_version ?? version;
  section.hidden = session.consented;
  document.getElementById("duel")?.toggleAttribute("hidden", !session.consented);
}

async function agree() {
  const address = new URLSearchParams(window.location.search);
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
