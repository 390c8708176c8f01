/* What the page says: prompt, progress, saved or not, the gate before Submit, errors. Text only, never markup. */

const KIND_TITLES = { vote: "Prompt", practice: "Practice pair · prompt" };

class Panel {
  constructor(root) {
    this.root = root;
    this.parts = Object.fromEntries([...root.querySelectorAll("[data-el]")].map((part) => [part.dataset.el, part]));
    this.undoTimer = null;
  }

  state(name) {
    this.root.dataset.state = name;
    this.parts.vote.inert = name !== "duel";
    this.parts["submit-text"].textContent = name === "saving" ? "Saving" : "Submit";
  }

  /* Tell screen readers what changed. */
  say(text) {
    this.parts.status.textContent = text;
  }

  /* A line above the clips; `kind` "retry" offers to try at once; null takes it away. */
  banner(text, kind = "closable") {
    const { banner, retry, dismiss } = this.parts;
    banner.hidden = text === null;
    banner.dataset.kind = kind;
    this.parts["banner-text"].textContent = text ?? "";
    retry.hidden = kind !== "retry";
    dismiss.hidden = kind === "retry";
  }

  get bannerText() {
    return this.parts.banner.hidden ? null : this.parts["banner-text"].textContent;
  }

  /* `link` leads away, to https alone. */
  message(title, text, button, isGood = false, link = null) {
    const isSafe = /^https:\/\//.test(link ?? "");
    this.parts["message-link"].hidden = !isSafe;
    if (isSafe) this.parts["message-link"].href = link;
    else this.parts["message-link"].removeAttribute("href");
    this.state("message");
    this.parts.message.toggleAttribute("data-good", isGood);
    this.parts["message-title"].textContent = title;
    this.parts["message-text"].textContent = text;
    this.parts["message-button"].textContent = button;
    this.parts.message.focus({ preventScroll: true });
    this.say(`${title}. ${text}`);
  }

  prompt(text, kind) {
    const { prompt, unfold } = this.parts;
    this.parts.kind.textContent = KIND_TITLES[kind] ?? KIND_TITLES.vote;
    prompt.textContent = text;
    prompt.removeAttribute("data-open");
    unfold.hidden = prompt.scrollHeight <= prompt.clientHeight + 1;
    this.fold(false);
  }

  fold(isOpen) {
    this.parts.prompt.toggleAttribute("data-open", isOpen);
    this.parts.unfold.setAttribute("aria-expanded", String(isOpen));
    this.parts.unfold.textContent = isOpen ? "Less" : "More";
  }

  progress(progress) {
    const { voted, wanted } = progress ?? {};
    this.parts["progress-box"].hidden = voted === undefined;
    this.parts["progress-text"].textContent = wanted ? `${voted} of ${wanted}` : plural(voted ?? 0, "pair");
    this.parts.progress.hidden = !wanted;
    this.parts.progress.max = wanted || 1;
    this.parts.progress.value = Math.min(voted ?? 0, wanted || 1);
  }

  /* "Saved", with a countdown as long as undo is possible; `until` in milliseconds of Date.now(). */
  offerUndo(until) {
    clearInterval(this.undoTimer);
    const tick = () => {
      const seconds = Math.ceil((until - Date.now()) / 1000);
      this.parts.saved.hidden = seconds <= 0;
      this.parts["saved-text"].textContent = `Saved · ${Math.max(0, seconds)} s to`;
      if (seconds <= 0) clearInterval(this.undoTimer);
    };
    tick();
    if (until > Date.now()) this.undoTimer = setInterval(tick, 500);
  }

  /* Why Submit is closed, or that it is open. `missing` in milliseconds of playing. */
  gate({ missing, minWatchSeconds, numOpen, numQuestions }) {
    const isOpen = missing === 0 && numOpen === 0;
    const watched = minWatchSeconds > 0 ? 1 - missing / (minWatchSeconds * 1000) : 1;
    const share = (clamp(watched, 0, 1) + (numQuestions - numOpen)) / (1 + numQuestions); // watching counts as one task
    const wanted = [
      ...(missing > 0 ? [`watch ${Math.ceil(missing / 1000)} s more`] : []),
      ...(numOpen > 0 ? [`answer ${plural(numOpen, "question")}`] : []),
    ].join(" and ");
    this.parts.ring.style.setProperty("--share", share);
    this.parts.ring.toggleAttribute("data-full", isOpen);
    this.root.toggleAttribute("data-watched", missing === 0);
    this.parts.gate.textContent = isOpen ? "Ready to submit" : `To submit, ${wanted}`;
    this.parts.submit.setAttribute("aria-disabled", String(!isOpen));
    return isOpen;
  }

  playback(timeline, view) {
    const { play, frame, scrubber, loop, zoom, wipe, speed } = this.parts;
    const last = Math.max(1, (timeline.numFrames ?? 1) - 1);
    this.root.toggleAttribute("data-playing", Boolean(timeline.isPlaying));
    play.setAttribute("aria-label", timeline.isPlaying ? "Pause" : "Play");
    scrubber.max = last;
    scrubber.value = timeline.frame;
    scrubber.style.setProperty("--played", timeline.frame / last);
    frame.textContent = `${timeline.frame + 1} / ${timeline.numFrames ?? 0}`;
    loop.setAttribute("aria-pressed", String(timeline.isLooping));
    speed.value = String(timeline.speed);
    zoom.textContent = `${Math.round(view.zoom * 100)}%`;
    wipe.setAttribute("aria-pressed", String(view.isWipe));
    for (const side of SIDES) {
      const isHeld = Boolean(timeline.clips) && timeline.failures.size === 0 && timeline.isHeld(side);
      this.root.querySelector(`.clip[data-side=${side}] .badge`).hidden = !isHeld;
    }
  }

  /* The marked moments: chips under the timeline, and ticks on it. */
  marks(moments, timeline) {
    const at = (moment) => moment.frame / timeline.clips[moment.side].fps / timeline.duration(timeline.leader);
    this.parts.ticks.replaceChildren(...moments.map((moment) => {
      const tick = make("i", { "data-side": moment.side });
      tick.style.left = `${clamp(at(moment), 0, 1) * 100}%`;
      return tick;
    }));
    this.parts.marks.replaceChildren(...moments.map(({ side, frame, tag }, index) => make(
      "li", {},
      make("button", { type: "button", class: "chip", "data-act": "go", "data-index": index, title: "Show this frame" },
        `${SIDE_NAMES[side]} · frame ${frame + 1} · ${tag.replaceAll("_", " ")}`),
      make("button", {
        type: "button", class: "chip-x", "data-act": "unmark", "data-index": index, "aria-label": "Remove this mark",
      }, "×"),
    )));
  }

  clipError(side, hasFailed) {
    const box = this.root.querySelector(`.clip[data-side=${side}] .clip-error`);
    box.hidden = !hasFailed;
    if (!hasFailed) return box.replaceChildren();
    return box.replaceChildren(
      make("strong", {}, `The ${side} clip does not play`),
      make("p", {}, "Your browser could not load or decode it. Try again, or report it and go on to the next pair."),
      make("div", { class: "row" },
        make("button", { type: "button", class: "primary", "data-act": "report-clip" }, "Report and go on"),
        make("button", { type: "button", class: "plain", "data-act": "reload" }, "Try again")),
    );
  }
}
