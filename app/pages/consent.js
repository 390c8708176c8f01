/* Asks for consent where the session has none; a panel's ids in the address go along, so that it can pay its raters. */
const post = (path, body) => fetch(`/api/v1/${path}`, {
  method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
});
const section = element.querySelector(".consent");
const forget = element.querySelector(".forget");
let version = "1";

async function look() {
  const reply = await fetch("/api/v1/session");
  const session = await reply.json();
  version = session.studies[0]?.consent_version ?? version;
  section.hidden = session.consented;
  forget.hidden = !session.consented;
}

async function agree() {
  const address = new URLSearchParams(window.location.search);
  const panel = {};
  for (const name of ["PROLIFIC_PID", "STUDY_ID", "SESSION_ID"]) if (address.get(name)) panel[name] = address.get(name);
  const reply = await post("consent", { version, panel });
  if (reply.ok) window.location.reload();
  else element.querySelector(".problem").textContent = (await reply.json()).error.message;
}

async function erase() {
  if (!window.confirm("Forget me? Your answers stay, but nobody can tell any more that they are yours.")) return;
  if ((await post("erase", {})).ok) window.location.reload();
}

element.querySelector(".agree").addEventListener("click", agree);
element.querySelector(".erase").addEventListener("click", erase);
look();
