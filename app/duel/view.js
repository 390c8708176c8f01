/* What both screens share: zoom, pan, and the wipe that lays one clip over the other. */

const LARGEST_ZOOM = 8;
const TAP_PIXELS = 6;

class View {
  constructor(stage, divider, onTap, onChange) {
    Object.assign(this, { stage, divider, onTap, onChange: () => {}, pointers: new Map() });
    this.reset();
    this.onChange = onChange; // from here on: the owner is still being built
    stage.addEventListener("wheel", (event) => this.wheelTurned(event), { passive: false });
    stage.addEventListener("pointerdown", (event) => this.pressed(event));
    stage.addEventListener("pointermove", (event) => this.moved(event));
    for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, (event) => this.released(event));
    divider.addEventListener("keydown", (event) => this.dividerKey(event));
  }

  reset() {
    Object.assign(this, { zoom: 1, panX: 0, panY: 0, wipe: 0.5 });
    this.apply();
  }

  /* Zoom by a factor about a point of the screen, in 0..1 of its width and height. */
  zoomBy(factor, x = 0.5, y = 0.5) {
    const zoom = clamp(this.zoom * factor, 1, LARGEST_ZOOM);
    this.panX = x - ((x - this.panX) * zoom) / this.zoom;
    this.panY = y - ((y - this.panY) * zoom) / this.zoom;
    this.zoom = zoom;
    this.apply();
  }

  panBy(x, y) {
    this.panX += x;
    this.panY += y;
    this.apply();
  }

  apply() {
    this.panX = clamp(this.panX, 1 - this.zoom, 0);
    this.panY = clamp(this.panY, 1 - this.zoom, 0);
    const style = this.stage.style;
    style.setProperty("--zoom", this.zoom);
    style.setProperty("--pan-x", `${this.panX * 100}%`);
    style.setProperty("--pan-y", `${this.panY * 100}%`);
    style.setProperty("--wipe", `${this.wipe * 100}%`);
    this.stage.toggleAttribute("data-zoomed", this.zoom > 1);
    this.divider.setAttribute("aria-valuenow", Math.round(this.wipe * 100));
    this.onChange();
  }

  toggleWipe() {
    const isWipe = this.stage.toggleAttribute("data-wipe");
    this.divider.hidden = !isWipe;
    this.onChange();
    return isWipe;
  }

  get isWipe() {
    return this.stage.hasAttribute("data-wipe");
  }

  wheelTurned(event) {
    const screen = event.target.closest(".screen");
    if (!screen || event.ctrlKey || (event.deltaY > 0 && this.zoom === 1)) return; // let the page scroll or zoom
    event.preventDefault();
    const box = screen.getBoundingClientRect();
    const factor = Math.exp(-clamp(event.deltaY, -100, 100) / 300);
    this.zoomBy(factor, (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  }

  pressed(event) {
    const grip = event.target.closest(".divider") ?? event.target.closest(".screen");
    if (!grip || event.button > 0 || event.target.closest("button")) return;
    grip.setPointerCapture(event.pointerId);
    const { clientX: x, clientY: y } = event;
    this.pointers.set(event.pointerId, { x, y, startX: x, startY: y, grip, isTap: this.pointers.size === 0 });
  }

  moved(event) {
    const pointer = this.pointers.get(event.pointerId);
    if (!pointer) return;
    const before = this.spread();
    const [dx, dy] = [event.clientX - pointer.x, event.clientY - pointer.y];
    Object.assign(pointer, { x: event.clientX, y: event.clientY });
    const travelled = Math.hypot(pointer.x - pointer.startX, pointer.y - pointer.startY);
    if (travelled > TAP_PIXELS) pointer.isTap = false;
    if (pointer.grip === this.divider) return this.dragDivider(pointer.x);
    const box = pointer.grip.getBoundingClientRect();
    if (before) {
      const [a, b] = [...this.pointers.values()];
      const [x, y] = [(a.x + b.x) / 2 - box.left, (a.y + b.y) / 2 - box.top];
      this.zoomBy(this.spread() / before, x / box.width, y / box.height);
    } else if (this.zoom > 1) {
      this.panBy(dx / box.width, dy / box.height);
    }
  }

  released(event) {
    const pointer = this.pointers.get(event.pointerId);
    this.pointers.delete(event.pointerId);
    if (event.type === "pointerup" && pointer?.isTap && pointer.grip !== this.divider) this.onTap();
  }

  /* The distance of two fingers, or null with fewer. */
  spread() {
    if (this.pointers.size !== 2) return null;
    const [a, b] = [...this.pointers.values()];
    a.isTap = b.isTap = false;
    return Math.max(1, Math.hypot(a.x - b.x, a.y - b.y));
  }

  dragDivider(x) {
    const box = this.divider.parentElement.getBoundingClientRect();
    this.wipe = clamp((x - box.left) / box.width, 0, 1);
    this.apply();
  }

  dividerKey(event) {
    const change = { ArrowLeft: -0.02, ArrowRight: 0.02, Home: -1, End: 1 }[event.key];
    if (!change) return;
    event.preventDefault();
    event.stopPropagation();
    this.wipe = clamp(this.wipe + change, 0, 1);
    this.apply();
  }
}
