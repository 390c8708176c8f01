/* The protocol of the arena, and the outbox: a vote lies in localStorage before it is sent, and leaves it only when the
   server has answered. A lost answer costs a second request with the same vote_id, never a vote. */

const REQUEST_LIMIT_MS = 15000;
const LONGEST_PAUSE_S = 30;

/* Send one request. Returns {status, body, retryAfter}; status 0 when no answer came. */
async function request(path, body) {
  const options = { credentials: "same-origin", cache: "no-store", signal: AbortSignal.timeout(REQUEST_LIMIT_MS) };
  const person = new URLSearchParams(window.location.search).get("PROLIFIC_PID"); // the cookie may be of somebody before
  if (person) options.headers = { "X-Panel-Person": encodeURIComponent(person) };
  if (body !== undefined) {
    Object.assign(options, {
      method: "POST", headers: { ...options.headers, "Content-Type": "application/json" }, body: JSON.stringify(body),
    });
  }
  try {
    const response = await fetch(`/api/v1/${path}`, options);
    const text = await response.text();
    const retryAfter = Number(response.headers.get("Retry-After")) || 0;
    return { status: response.status, body: parsed(text), retryAfter };
  } catch {
    return { status: 0, body: {}, retryAfter: 0 };
  }
}

function parsed(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
}

/* No answer, a busy server, or a server in trouble: the same request may succeed later. */
const isTransient = (answer) => answer.status === 0 || answer.status === 429 || answer.status >= 500;

/* What a person is told about a refusal. */
const reasonOf = (answer) => answer.body.error?.message || `The server answered ${answer.status || "nothing"}.`;

/* Repeat a request until it has a final answer, telling `onWait(seconds)` before each pause. */
class Patience {
  constructor(onWait) {
    this.onWait = onWait;
    this.wake = () => {};
    window.addEventListener("online", () => this.wake());
  }

  async send(path, body) {
    for (let tries = 0; ; tries += 1) {
      const answer = await request(path, body);
      if (!isTransient(answer)) return answer;
      const backOff = Math.min(LONGEST_PAUSE_S, 2 ** tries) * (0.75 + Math.random() / 2);
      const seconds = Math.max(answer.retryAfter, backOff);
      this.onWait(seconds, answer);
      await Promise.race([wait(seconds * 1000), new Promise((resolve) => { this.wake = resolve; })]);
    }
  }
}

class Outbox {
  constructor(store, patience, onAnswer) {
    this.store = store;
    this.patience = patience;
    this.onAnswer = onAnswer;
    this.isDelivering = false;
  }

  votes() {
    return this.store.read("outbox", []);
  }

  put(vote) {
    this.store.write("outbox", [...this.votes(), vote]);
    return this.deliver();
  }

  async deliver() {
    if (this.isDelivering) return;
    this.isDelivering = true;
    try {
      for (let vote = this.votes()[0]; vote; vote = this.votes()[0]) {
        const answer = await this.patience.send("votes", vote);
        this.store.write("outbox", this.votes().filter((other) => other.vote_id !== vote.vote_id));
        this.onAnswer(vote, answer);
      }
    } finally {
      this.isDelivering = false;
    }
  }
}
