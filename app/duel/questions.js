/* The questions: one radio group each, with a current one that 1, 2 and 3 answer. */

const ANSWERS = [
  { value: "left", text: "Left" },
  { value: "same", text: "Same" },
  { value: "right", text: "Right" },
];

class Questions {
  constructor(list, onChange) {
    this.list = list;
    this.onChange = onChange;
    this.names = [];
    this.answers = {};
    list.addEventListener("click", (event) => this.clicked(event));
    list.addEventListener("keydown", (event) => this.keyPressed(event));
    list.addEventListener("focusin", (event) => this.focused(event));
  }

  /* Show the questions {name, title, hint}, with answers given before. */
  show(questions, answers) {
    this.names = questions.map(({ name }) => name);
    this.titles = Object.fromEntries(questions.map(({ name, title }) => [name, title]));
    this.answers = {};
    for (const name of this.names) if (answers?.[name]) this.answers[name] = answers[name];
    this.list.replaceChildren(...questions.map((question, index) => this.row(question, index, questions.length)));
    this.current = this.firstOpen() ?? this.names[0];
    this.render();
  }

  row({ name, title, hint }, index, count) {
    const titleId = `duel-question-${name}`;
    const options = ANSWERS.map(({ value, text }, place) => make(
      "button",
      { type: "button", role: "radio", class: "option", "data-value": value, "aria-keyshortcuts": String(place + 1) },
      text, make("kbd", { "aria-hidden": "true" }, String(place + 1)),
    ));
    const heading = make("div", { class: "question-head" },
      make("div", { class: "question-title", id: titleId }, title),
      make("div", { class: "question-hint", id: `${titleId}-hint` }, hint || ""));
    const steps = make("div", { class: "steps", "aria-hidden": "true" },
      make("button", { type: "button", class: "arrow", "data-move": "-1", tabindex: "-1" }, "‹"),
      make("span", {}, `${index + 1} / ${count}`),
      make("button", { type: "button", class: "arrow", "data-move": "1", tabindex: "-1" }, "›"));
    const group = make(
      "div",
      { class: "options", role: "radiogroup", "aria-labelledby": titleId, "aria-describedby": `${titleId}-hint` },
      ...options,
    );
    return make("div", { class: "question", "data-question": name }, heading, steps, group);
  }

  clicked(event) {
    const name = event.target.closest("[data-question]")?.dataset.question;
    const move = event.target.closest("[data-move]")?.dataset.move;
    const value = event.target.closest("[data-value]")?.dataset.value;
    if (name) this.current = name;
    if (move) this.move(Number(move));
    else if (value) this.answer(value);
    else this.render();
  }

  focused(event) {
    this.current = event.target.closest("[data-question]")?.dataset.question ?? this.current;
    this.render();
  }

  /* Left and right choose inside a group, as in every radio group; up and down go to the other questions. */
  keyPressed(event) {
    const turn = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!turn || event.altKey || event.ctrlKey || event.metaKey || !event.target.matches("[data-value]")) return;
    event.preventDefault();
    event.stopPropagation();
    const place = ANSWERS.findIndex(({ value }) => value === event.target.dataset.value);
    const { value } = ANSWERS[clamp(place + turn, 0, ANSWERS.length - 1)];
    this.answers[this.current] = value;
    this.render();
    this.option(this.current, value).focus();
    this.onChange();
  }

  /* Answer the current question and go on to the next open one. */
  answer(value) {
    const hadFocus = this.list.contains(document.activeElement);
    const said = `${this.titles[this.current]}: ${value}`;
    this.answers[this.current] = value;
    this.current = this.firstOpen(this.names.indexOf(this.current)) ?? this.current;
    this.render();
    if (hadFocus) this.focusCurrent();
    this.onChange(said);
  }

  answerByNumber(number) {
    this.answer(ANSWERS[number - 1].value);
  }

  move(places) {
    const hadFocus = this.list.contains(document.activeElement);
    const count = this.names.length;
    this.current = this.names[(this.names.indexOf(this.current) + places + count) % count];
    this.render();
    if (hadFocus) this.focusCurrent();
  }

  focusCurrent() {
    this.list.querySelector(`[data-question="${CSS.escape(this.current)}"] [tabindex="0"]`)?.focus();
  }

  /* The first question without an answer, looking from one place on and around. */
  firstOpen(from = 0) {
    const order = [...this.names.slice(from), ...this.names.slice(0, from)];
    return order.find((name) => !this.answers[name]);
  }

  get numOpen() {
    return this.names.filter((name) => !this.answers[name]).length;
  }

  option(name, value) {
    return this.list.querySelector(`[data-question="${CSS.escape(name)}"] [data-value="${value}"]`);
  }

  render() {
    for (const row of this.list.children) {
      const { question } = row.dataset;
      const chosen = this.answers[question];
      row.toggleAttribute("data-current", question === this.current);
      row.toggleAttribute("data-done", Boolean(chosen));
      for (const option of row.querySelectorAll("[data-value]")) {
        const isChosen = option.dataset.value === chosen;
        option.setAttribute("aria-checked", String(isChosen));
        option.tabIndex = isChosen || (!chosen && option.dataset.value === "left") ? 0 : -1;
      }
    }
  }
}
