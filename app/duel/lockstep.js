/* What the eye sees. Two video elements change their pictures one refresh of the screen apart now and then, and two
   seeks never end together. So each clip is painted on a canvas over its video, both in one task, and only when both
   videos hold the same moment; until then both keep the last picture. Browsers without VideoFrame show the videos. */

const LONGEST_HOLD_MS = 500; // clips whose frame times are not what the server said must not freeze

class Lockstep {
  constructor(timeline, canvases) {
    Object.assign(this, { timeline, canvases, isNew: false, newSince: 0 });
    if (!window.VideoFrame) return;
    for (const side of SIDES) {
      const video = timeline.videos[side];
      const note = () => this.pictureChanged();
      onEveryFrame(video, note);
      for (const name of ["loadeddata", "seeked"]) video.addEventListener(name, note);
      video.addEventListener("emptied", () => { canvases[side].hidden = true; });
    }
    this.loop();
  }

  pictureChanged() {
    if (!this.isNew) this.newSince = performance.now();
    this.isNew = true;
  }

  loop() {
    requestAnimationFrame(() => {
      if (!this.canvases.left.isConnected) return;
      if (this.isNew && this.timeline.clips) this.paintIfTogether();
      this.loop();
    });
  }

  paintIfTogether() {
    if (SIDES.some((side) => this.timeline.videos[side].readyState < 2)) return;
    const frames = SIDES.map((side) => new VideoFrame(this.timeline.videos[side]));
    const isLate = !this.timeline.seeking && performance.now() - this.newSince > LONGEST_HOLD_MS;
    if (this.areTogether(frames) || isLate) {
      SIDES.forEach((side, index) => this.paint(this.canvases[side], frames[index]));
      this.isNew = false;
    }
    for (const frame of frames) frame.close();
  }

  /* Whether the times at which both frames are due overlap; the last frame of a clip stays. */
  areTogether(frames) {
    const [left, right] = SIDES.map((side, index) => {
      const { fps, num_frames: count } = this.timeline.clips[side];
      const number = Math.round((frames[index].timestamp / 1e6) * fps);
      return { start: number / fps, end: number >= count - 1 ? Infinity : (number + 1) / fps };
    });
    const slack = 1e-3; // seconds
    return left.start < right.end - slack && right.start < left.end - slack;
  }

  paint(canvas, frame) {
    const { displayWidth: width, displayHeight: height } = frame;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    canvas.getContext("2d", { alpha: false }).drawImage(frame, 0, 0, width, height);
    canvas.hidden = false;
  }
}
