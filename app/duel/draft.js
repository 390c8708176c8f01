/* What a rater has done on one assignment so far: kept in localStorage, so that a reload loses nothing. */

const TICK_MS = 100;
const LONGEST_TICK_MS = 1000; // a sleeping computer did not watch

class Draft {
  constructor(store, assignment) {
    this.store = store;
    this.id = assignment.assignment;
    const kept = store.read("draft", null);
    const fresh = {
      assignment: this.id, revision: assignment.revision ?? 1, answers: assignment.previous ?? {},
      both_unacceptable: false, watched_ms: { left: 0, right: 0 }, decision_ms: 0, plays: 0, steps: 0,
      moments: [], comment: "",
    };
    this.data = assignment.taken_back ?? (kept?.assignment === this.id ? kept : fresh);
    this.save();
  }

  save() {
    this.store.write("draft", this.data);
  }

  /* Milliseconds that a clip must still play. */
  missing(minWatchSeconds) {
    const { left, right } = this.data.watched_ms;
    return Math.max(0, minWatchSeconds * 1000 - Math.min(left, right));
  }

  /* The vote, in the words of the protocol. */
  vote(assignment, version) {
    const { watched_ms: { left, right }, ...data } = structuredClone(this.data);
    return {
      ...data, vote_id: uuid(), token: assignment.token, withdrawn: false,
      watched_ms: { left: Math.round(left), right: Math.round(right) }, decision_ms: Math.round(data.decision_ms),
      comment: data.comment.trim(), client_time: new Date().toISOString(), app_version: version,
    };
  }
}

/* Count how long each clip really played and how long the pair was in view. Returns a function that stops counting. */
function countTime(isVisible, timeline, draftOf, onTick) {
  let before = performance.now();
  const timer = setInterval(() => {
    const now = performance.now();
    const passed = Math.min(LONGEST_TICK_MS, now - before);
    before = now;
    const draft = draftOf();
    if (!draft || !isVisible()) return;
    draft.data.decision_ms += passed;
    if (timeline.isPlaying && !timeline.isStalled) {
      for (const side of SIDES) if (!timeline.isHeld(side)) draft.data.watched_ms[side] += passed;
    }
    onTick();
  }, TICK_MS);
  return () => clearInterval(timer);
}
