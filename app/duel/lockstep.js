/* What the eye sees. Two video elements change their pictures one refresh of the screen apart now and then, and two
   seeks never end together. So each clip is painted on a canvas over its video, both in one task, and only when both
   videos hold the same moment; until then both keep the last picture. Browsers without VideoFrame show the videos. */

const MOST_REFUSALS = 60; // refreshes of the screen

class Lockstep {
  constructor(timeline, canvases) {
    Object.assign(this, { timeline, canvases, isNew: false, refusals: 0, distrusted: null });
    if (!window.VideoFrame) return;
    for (const side of SIDES) {
      const video = timeline.videos[side];
      const note = () => { this.isNew = true; };
      onEveryFrame(video, note);
      for (const name of ["loadeddata", "seeked"]) video.addEventListener(name, note);
      video.addEventListener("emptied", () => { canvases[side].hidden = true; });
    }
    this.loop();
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
    if (this.areTogether(frames) || this.distrusted === this.timeline.clips) {
      SIDES.forEach((side, index) => this.paint(this.canvases[side], frames[index]));
      this.isNew = false;
      this.refusals = 0;
    } else {
      this.refuse();
    }
    for (const frame of frames) frame.close();
  }

  /* Clips whose clocks agree while the times of their frames never do are not timed as the server said: they must not
     freeze, so that this pair is shown as it comes. */
  refuse() {
    const { videos, clips, fps } = this.timeline;
    this.refusals += 1;
    const drift = Math.abs(videos.left.currentTime - videos.right.currentTime);
    if (this.refusals > MOST_REFUSALS && drift < 0.25 / fps) this.distrusted = clips;
  }

  /* Whether the times at which both frames are due overlap; the last frame of a clip stays. */
  areTogether(frames) {
    const [left, right] = SIDES.map((side, index) => {
      const { fps, num_frames: count } = this.timeline.clips[side];
      const number = Math.round((frames[index].timestamp / 1e6) * fps);
      const isLast = number >= count - 1 || this.timeline.videos[side].ended;
      return { start: number / fps, end: isLast ? Infinity : (number + 1) / fps };
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
