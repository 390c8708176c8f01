/* From session to vote to the next pair. The page shows what `panel` is told; the rater's draft belongs to the flow. */

const UNDO_MS = 30000;

class Flow {
  /* `panel` shows; `tell(name, data)` sends an event to Gradio; `show(assignment, draft)` puts a pair on the stage. */
  constructor({ panel, tell, show, study, version }) {
    Object.assign(this, { panel, tell, show, study, version, assignment: null, draft: null, last: null });
    this.patience = new Patience((seconds) => this.waiting(seconds));
  }

  waiting(seconds) {
    const soon = `will retry in ${Math.ceil(seconds)} s`;
    const isVote = this.outbox?.votes().length > 0;
    this.panel.banner(isVote
      ? `Your answer is kept in this browser, but the server has not stored it yet: ${soon}.`
      : `The server does not answer: ${soon}.`, "retry");
  }

  async start() {
    this.panel.state("loading");
    const { status, body } = await this.patience.send("session");
    if (status !== 200) return this.panel.message("The page cannot start", reasonOf({ status, body }), "Try again");
    const studies = body.studies ?? [];
    this.study ||= studies.find((study) => study.is_open)?.slug;
    const hasAgreed = studies.find((study) => study.slug === this.study)?.consented ?? body.consented;
    if (!hasAgreed) return this.needConsent();
    if (!this.study) return this.panel.message("Nothing to judge", "No study is open at the moment.", "Try again");
    this.store = new Store(`rlhf-video.duel.${body.rater ?? "rater"}.`);
    this.outbox = new Outbox(this.store, this.patience, (vote, answer) => this.answered(vote, answer));
    if (this.outbox.votes().length > 0) await this.outbox.deliver(); // it goes on to the next pair
    else await this.next();
  }

  needConsent() {
    this.tell("consent_needed");
    this.panel.message("Before you start", "Please read and accept the study information first.", "I have done so");
  }

  async next() {
    this.assignment = this.draft = null;
    this.panel.state("loading");
    const answer = await this.patience.send("assignments", { study: this.study });
    this.panel.banner(null);
    if (answer.status === 204) return this.finished();
    if (answer.body.error?.code === "not_consented") return this.needConsent();
    if (answer.status >= 300) return this.panel.message("There is no pair to show", reasonOf(answer), "Try again");
    this.begin(answer.body);
  }

  begin(assignment) {
    this.assignment = assignment;
    this.draft = new Draft(this.store, assignment);
    this.panel.progress(assignment.progress);
    this.offerUndo(this.store.read("last", null));
    this.show(assignment, this.draft);
  }

  async finished() {
    this.offerUndo(this.store.read("last", null));
    this.tell("finished");
    const { body } = await this.patience.send("session"); // says only now where a panel's raters go
    const link = (body.studies ?? []).find((study) => study.slug === this.study)?.completion_url ?? null;
    const where = link ? " Please go back to your panel, so that it knows that you are done." : "";
    const text = `There is no pair left for you in this study. Thank you!${where}`;
    this.panel.message("All done", text, "Look again", true, link);
  }

  submit() {
    this.panel.state("saving");
    this.store.write("last", { assignment: this.assignment, data: this.draft.data });
    this.outbox.put(this.draft.vote(this.assignment, this.version));
  }

  /* The server's final answer on a vote, this one's or one that lay in the outbox at a reload. */
  answered(vote, answer) {
    this.panel.banner(null);
    if (answer.status === 200 || answer.status === 201) {
      return vote.withdrawn ? this.reopen(vote) : this.stored(vote, answer.body);
    }
    const { code } = answer.body.error ?? {};
    if (answer.status === 409) {
      this.panel.banner("An answer to this pair was stored before, perhaps from another tab. That one counts.");
    } else {
      this.panel.banner(`The answer was not stored. ${reasonOf(answer)}`);
      if (["watched_too_little", "invalid"].includes(code) && this.assignment?.assignment === vote.assignment) {
        return this.panel.state("duel");
      }
    }
    this.offerUndo(null);
    return this.nextKeepingBanner();
  }

  async nextKeepingBanner() {
    const said = this.panel.bannerText;
    await this.next();
    if (said) this.panel.banner(said);
  }

  stored(vote, body) {
    const last = this.store.read("last", null);
    if (last?.assignment.assignment === vote.assignment) {
      const allowed = body.undo_until ? Date.parse(body.undo_until) - Date.parse(body.stored_at) : 0;
      const undo = { ...last, until: Date.now() + Math.min(UNDO_MS, allowed || 0) };
      this.store.write("last", undo);
      this.offerUndo(undo);
    }
    this.store.write("draft", null);
    this.panel.progress(body.progress);
    this.tell("voted", { assignment: vote.assignment });
    if (body.feedback) this.feedback(body.feedback);
    else this.next();
  }

  feedback({ is_right: isRight, message }) {
    this.panel.message(isRight ? "Right" : "Look again", message, "Next pair", isRight);
  }

  offerUndo(last) {
    this.last = last;
    this.panel.offerUndo(last?.until ?? 0);
  }

  /* Withdraw the last answer; the pair comes back with all that was said of it. */
  undo() {
    const isBusy = !["duel", "message"].includes(this.panel.root.dataset.state);
    if (isBusy || !(this.last?.until > Date.now())) return;
    const { assignment, data } = this.last;
    const nothing = { left: 0, right: 0 };
    this.panel.state("saving");
    this.outbox.put({
      vote_id: uuid(), assignment: assignment.assignment, token: assignment.token, revision: data.revision + 1,
      withdrawn: true, answers: {}, both_unacceptable: false, watched_ms: nothing, decision_ms: 0, plays: 0, steps: 0,
      moments: [], comment: "",
      client_time: new Date().toISOString(), app_version: this.version,
    });
  }

  reopen(vote) {
    const { assignment, data } = this.store.read("last", {});
    this.offerUndo(null);
    this.store.write("last", null);
    if (assignment?.assignment !== vote.assignment) return this.next();
    return this.begin({ ...assignment, taken_back: { ...data, revision: vote.revision + 1 } });
  }

  /* Close the assignment without a vote: kind is "skip" or "report". */
  async leave(kind, fields) {
    const { assignment: id, token } = this.assignment;
    this.panel.state("saving");
    const answer = await this.patience.send(`assignments/${encodeURIComponent(id)}/${kind}`, { token, ...fields });
    const what = kind === "skip" ? "Skipping" : "The report";
    if (answer.status >= 400) this.panel.banner(`${what} failed. ${reasonOf(answer)}`);
    else this.panel.say(kind === "skip" ? "Skipped." : "Reported. Thank you.");
    this.offerUndo(null);
    await this.nextKeepingBanner();
  }
}
