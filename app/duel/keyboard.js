/* Everything by keyboard. Keys typed into a field, or with Ctrl, Alt or Meta, are never taken. */

const KEYS = {
  " ": "play", ",": "back", ".": "forward", "[": "slower", "]": "faster", l: "loop", r: "restart", w: "wipe", h: "help",
  "?": "help", "+": "zoom-in", "=": "zoom-in", "-": "zoom-out", 0: "zoom-reset", b: "both", m: "mark", s: "skip",
  p: "report", z: "undo", Enter: "submit", ArrowUp: "question-up", ArrowDown: "question-down",
  1: "answer-1", 2: "answer-2", 3: "answer-3",
};
const PANS = { ArrowLeft: [0.1, 0], ArrowRight: [-0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] };
const TYPING = "input:not([type=range]), textarea, select, [contenteditable]";
const ACTIVATED_BY_KEY = "button:not([role=radio]), a, summary, [role=tab]";

/* Which action a key press means, or null. */
function actionOf(event) {
  const { target, key } = event;
  if (event.ctrlKey || event.altKey || event.metaKey || event.defaultPrevented) return null;
  if (target.closest?.(TYPING)) return null;
  if ((key === " " || key === "Enter") && target.closest?.(ACTIVATED_BY_KEY)) return null;
  if (target.matches?.("input[type=range]") && key.startsWith("Arrow")) return null;
  if (event.shiftKey && PANS[key]) return { name: "pan", by: PANS[key] };
  const name = KEYS[key.length === 1 ? key.toLowerCase() : key];
  return name ? { name } : null;
}

/* Listen while the element is in the page: it may be mounted again, and must then not act twice. */
function listenToKeys(element, isActive, act) {
  const listener = (event) => {
    if (!element.isConnected) return document.removeEventListener("keydown", listener);
    const action = isActive() ? actionOf(event) : null;
    if (!action || (event.repeat && !["back", "forward", "pan"].includes(action.name))) return;
    event.preventDefault();
    act(action.name, action.by);
  };
  document.addEventListener("keydown", listener);
}
