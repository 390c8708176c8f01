/* Skip, report, mark and help: native dialogs, so that focus is kept inside and Escape closes. */

class Dialogs {
  constructor(root) {
    this.root = root;
    for (const dialog of root.querySelectorAll("dialog")) {
      dialog.addEventListener("keydown", (event) => this.digitPressed(dialog, event));
      dialog.addEventListener("click", (event) => {
        if (event.target === dialog || event.target.closest("[data-act=close]")) dialog.close("");
      });
    }
  }

  get isOpen() {
    return this.root.querySelector("dialog[open]") !== null;
  }

  /* Ask, with some fields chosen before; resolves to the form's fields, or to null when it was closed. */
  ask(name, chosen = {}) {
    const dialog = this.root.querySelector(`[data-dialog="${name}"]`);
    const form = dialog.querySelector("form");
    form.reset();
    for (const [field, value] of Object.entries(chosen)) form.elements[field].value = value;
    return new Promise((resolve) => {
      let fields = null;
      const sent = () => { fields = Object.fromEntries(new FormData(form)); };
      form.addEventListener("submit", sent);
      const closed = () => { form.removeEventListener("submit", sent); resolve(fields); };
      dialog.addEventListener("close", closed, { once: true });
      dialog.showModal();
      this.firstOpenChoice(form)?.focus();
    });
  }

  /* The first choice of the first group that has none yet. */
  firstOpenChoice(form) {
    const groups = [...form.querySelectorAll("fieldset")];
    return groups.find((group) => !group.querySelector(":checked"))?.querySelector("input");
  }

  /* 1, 2, 3 ... choose in the group in focus and go on to the next. */
  digitPressed(dialog, event) {
    if (event.target.matches("textarea") || !/^[1-9]$/.test(event.key)) return;
    const form = dialog.querySelector("form");
    const group = event.target.closest("fieldset") ?? form.querySelector("fieldset");
    const choice = group?.querySelectorAll("input")[Number(event.key) - 1];
    if (!choice) return;
    event.preventDefault();
    choice.checked = true;
    (this.firstOpenChoice(form) ?? form.querySelector("[type=submit]")).focus();
  }
}
