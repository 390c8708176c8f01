/* The duel: wires the parts together. Runs as `js_on_load` of one gr.HTML; `element`, `props`, `trigger` and `watch`
   come from Gradio. The page never sees which system made which clip. */

const SPEEDS = [0.25, 0.5, 0.75, 1, 1.5, 2];

class Duel {
  constructor(root, study, version, tell) {
    this.root = root;
    this.panel = new Panel(root);
    const { parts } = this.panel;
    const find = (tag, side) => root.querySelector(`${tag}[data-side=${side}]`);
    const bySide = (tag) => Object.fromEntries(SIDES.map((side) => [side, find(tag, side)]));
    this.timeline = new Timeline(bySide("video"), {
      changed: () => this.render(),
      restarted: () => this.change((data) => { data.plays += 1; }),
      failed: (side) => this.clipFailed(side),
      blocked: () => this.panel.say("Press Space to play."),
    });
    this.lockstep = new Lockstep(this.timeline, bySide("canvas"));
    this.view = new View(parts.stage, parts.divider, () => this.act("play"), () => this.render());
    this.questions = new Questions(parts.questions, (said) => this.answersChanged(said));
    this.dialogs = new Dialogs(root);
    this.flow = new Flow({ panel: this.panel, tell, study, version, show: (assignment) => this.show(assignment) });
    this.listen();
  }

  listen() {
    const { root, panel: { parts }, timeline } = this;
    const isVisible = () => root.isConnected && root.checkVisibility() && !document.hidden;
    root.addEventListener("mousedown", (event) => {
      // A button pressed with the mouse takes no focus: Space stays "play".
      if (event.target.closest("button") && !event.target.closest("dialog")) event.preventDefault();
    });
    root.addEventListener("click", (event) => {
      const button = event.target.closest("[data-act]");
      if (button && button.dataset.act !== "close") this.act(button.dataset.act, Number(button.dataset.index));
    });
    parts.scrubber.addEventListener("input", () => timeline.stopAt(Number(parts.scrubber.value)));
    parts.speed.addEventListener("change", () => this.setSpeed(Number(parts.speed.value)));
    parts.comment.addEventListener("input", () => this.change((data) => { data.comment = parts.comment.value; }));
    listenToKeys(root, () => isVisible() && !this.dialogs.isOpen, (name, detail) => this.act(name, detail));
    const pauseIfHidden = () => { if (document.hidden && timeline.isPlaying) timeline.pause(); };
    document.addEventListener("visibilitychange", pauseIfHidden);
    const isAtWork = () => isVisible() && root.dataset.state === "duel";
    countTime(isAtWork, timeline, () => this.flow.draft, () => this.ticked());
    const fitBar = () => root.style.setProperty("--votebar", `${parts.votebar.offsetHeight}px`);
    new ResizeObserver(fitBar).observe(parts.votebar);
  }

  /* Put a pair on the stage. */
  async show(assignment) {
    const { panel, timeline, flow: { draft: { data } } } = this;
    this.root.dataset.assignment = assignment.assignment;
    this.root.setAttribute("data-waiting", "");
    panel.state("duel");
    panel.prompt(assignment.prompt, assignment.kind);
    for (const side of SIDES) panel.clipError(side, false);
    panel.parts.comment.value = data.comment;
    panel.parts["comment-box"].open = data.comment !== "";
    panel.parts.both.setAttribute("aria-pressed", String(data.both_unacceptable));
    this.questions.show(assignment.questions, data.answers);
    this.view.reset();
    const loaded = timeline.load({ left: assignment.left, right: assignment.right });
    panel.marks(data.moments, timeline);
    this.checkGate();
    const canPlay = await loaded;
    if (this.flow.assignment !== assignment) return;
    this.root.removeAttribute("data-waiting");
    this.fitStage();
    if (!canPlay) return;
    panel.say(`New pair. Prompt: ${assignment.prompt}`);
    if (isMotionReduced()) await timeline.seek(0);
    else await timeline.play();
  }

  /* Give both screens the shape of the clips; very small clips are drawn with sharp pixels. */
  fitStage() {
    const { videoWidth: width, videoHeight: height } = this.timeline.videos.left;
    if (!width || !height) return;
    this.panel.parts.stage.style.setProperty("--aspect", width / height);
    this.panel.parts.stage.toggleAttribute("data-tiny", width <= 160);
  }

  act(name, detail) {
    const { timeline, view, questions, flow, panel } = this;
    const isDuel = this.root.dataset.state === "duel";
    const always = {
      help: () => this.dialogs.ask("help"), undo: () => flow.undo(), retry: () => flow.patience.wake(),
      dismiss: () => panel.banner(null), message: () => this.leaveMessage(),
      unfold: () => panel.fold(!panel.parts.prompt.hasAttribute("data-open")),
      submit: () => (this.root.dataset.state === "message" ? this.leaveMessage() : null),
    };
    const duel = {
      play: () => timeline.toggle(), restart: () => timeline.restart(),
      back: () => this.step(-1), forward: () => this.step(1), loop: () => this.toggleLoop(),
      slower: () => this.changeSpeed(-1), faster: () => this.changeSpeed(1),
      "zoom-in": () => view.zoomBy(1.25), "zoom-out": () => view.zoomBy(0.8),
      "zoom-reset": () => view.zoomBy(1 / view.zoom),
      pan: () => view.panBy(...detail), wipe: () => panel.say(view.toggleWipe() ? "Wipe on" : "Wipe off"),
      "answer-1": () => questions.answerByNumber(1), "answer-2": () => questions.answerByNumber(2),
      "answer-3": () => questions.answerByNumber(3),
      "question-up": () => questions.move(-1), "question-down": () => questions.move(1),
      both: () => this.toggleBoth(), submit: () => this.submit(),
      mark: () => this.mark(), "mark-left": () => this.mark("left"), "mark-right": () => this.mark("right"),
      go: () => this.goToMark(detail), unmark: () => this.unmark(detail),
      skip: () => this.leave("skip"), report: () => this.leave("report"),
      "report-clip": () => flow.leave("report", { reason: "does_not_play", note: "" }), reload: () => flow.next(),
    };
    (isDuel ? duel[name] ?? always[name] : always[name])?.();
    this.render();
  }

  leaveMessage() {
    if (this.flow.store) this.flow.next();
    else this.flow.start();
  }

  render() {
    this.panel.playback(this.timeline, this.view);
  }

  /* Change what is kept of the rater's work. */
  change(edit) {
    if (!this.flow.draft) return;
    edit(this.flow.draft.data);
    this.flow.draft.save();
  }

  ticked() {
    this.flow.draft.save();
    this.checkGate();
  }

  checkGate() {
    const { draft, assignment } = this.flow;
    const { names } = this.questions;
    const numOpen = draft.data.both_unacceptable ? 0 : this.questions.numOpen; // then the other answers are optional
    const minWatchSeconds = assignment.min_watch_s ?? 0;
    const missing = draft.missing(minWatchSeconds);
    return this.panel.gate({ missing, minWatchSeconds, numOpen, numQuestions: names.length });
  }

  answersChanged(said) {
    this.change((data) => { data.answers = { ...this.questions.answers }; });
    if (said) this.panel.say(said);
    this.checkGate();
  }

  toggleBoth() {
    this.change((data) => { data.both_unacceptable = !data.both_unacceptable; });
    this.panel.parts.both.setAttribute("aria-pressed", String(this.flow.draft.data.both_unacceptable));
    this.checkGate();
  }

  submit() {
    if (!this.checkGate()) return this.panel.say(this.panel.parts.gate.textContent);
    if (this.timeline.isPlaying) this.timeline.stop();
    return this.flow.submit();
  }

  toggleLoop() {
    this.timeline.isLooping = !this.timeline.isLooping;
    this.panel.say(this.timeline.isLooping ? "Loop on" : "Loop off");
  }

  step(frames) {
    this.change((data) => { data.steps += 1; });
    this.timeline.stopAt(this.timeline.frame + frames);
  }

  changeSpeed(places) {
    const place = clamp(SPEEDS.indexOf(this.timeline.speed) + places, 0, SPEEDS.length - 1);
    this.setSpeed(SPEEDS[place]);
  }

  setSpeed(speed) {
    this.timeline.setSpeed(speed);
    this.panel.say(`Speed ${speed}`);
    this.render();
  }

  clipFailed(side) {
    this.panel.clipError(side, true);
    this.root.removeAttribute("data-waiting");
  }

  /* Hold the clips still and ask which one is bad here, and how. */
  async mark(side) {
    const { timeline } = this;
    const { frame } = timeline;
    if (timeline.isPlaying) timeline.pause(); // not awaited: the next key must find the dialog open
    this.panel.parts["mark-frame"].textContent = `frame ${frame + 1}`;
    const fields = await this.dialogs.ask("mark", side ? { side } : {});
    if (!fields?.side) return;
    const moment = { side: fields.side, frame: timeline.frameOf(fields.side, frame), tag: fields.tag };
    this.change((data) => { data.moments.push(moment); });
    this.showMarks();
  }

  goToMark(index) {
    const { side, frame } = this.flow.draft.data.moments[index];
    const { timeline } = this;
    timeline.stopAt(Math.floor(((frame + 0.5) / timeline.clips[side].fps) * timeline.fps));
  }

  unmark(index) {
    this.change((data) => { data.moments.splice(index, 1); });
    this.showMarks();
  }

  showMarks() {
    this.panel.marks(this.flow.draft.data.moments, this.timeline);
  }

  async leave(kind) {
    if (this.timeline.isPlaying) this.timeline.pause();
    const fields = await this.dialogs.ask(kind);
    if (fields?.reason && this.flow.assignment) this.flow.leave(kind, fields);
  }
}

const duel = new Duel(
  element.querySelector(".duel"),
  props.study || new URLSearchParams(location.search).get("study") || "",
  props.app_version,
  (name, data) => trigger(name, data),
);
watch("study", () => {
  duel.flow.study = props.study;
  duel.flow.start();
});
duel.flow.start();
