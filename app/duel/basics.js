/* Small helpers of the duel. All files of this folder run inside one function: nothing here is global in the page. */

const SIDES = ["left", "right"];
const SIDE_NAMES = { left: "Left", right: "Right" };

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const wait = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;
const isMotionReduced = () => window.matchMedia("(prefers-reduced-motion: reduce)").matches;

/* An element with attributes; children that are strings become text, never markup. */
function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

/* A random UUID (version 4); crypto.randomUUID is missing where a lab serves plain http in its own network. */
function uuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

/* Wait for one event of a target, but not for ever. */
function once(target, name, milliseconds) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    target.addEventListener(name, () => { clearTimeout(timer); resolve(); }, { once: true });
  });
}

/* JSON in localStorage under one prefix; where the browser forbids storage, a map keeps the page working. */
class Store {
  constructor(prefix) {
    this.prefix = prefix;
    this.memory = new Map();
  }

  read(name, otherwise) {
    if (this.memory.has(name)) return this.memory.get(name) ?? otherwise; // newer than what the browser kept
    try {
      return JSON.parse(localStorage.getItem(this.prefix + name)) ?? otherwise;
    } catch {
      return otherwise;
    }
  }

  write(name, value) {
    try {
      if (value === null) localStorage.removeItem(this.prefix + name);
      else localStorage.setItem(this.prefix + name, JSON.stringify(value));
      this.memory.delete(name);
    } catch {
      this.memory.set(name, value);
    }
  }
}
