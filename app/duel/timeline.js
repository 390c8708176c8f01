/* Two clips on one timeline.

   The longer clip leads. On every frame it shows, the other's playback rate is nudged so that both clocks agree; the
   shorter clip holds its last frame, and both start again together. At rest both stand on the same frame: a seek aims
   at the middle of a frame, (k + 0.5) / fps, because the rounding of k / fps shows frame k - 1 now and then. */

const NUDGE_PER_S = 5; // rate correction per second of drift: 10 ms apart -> 5 % faster or slower
const LARGEST_NUDGE = 0.5;
const JUMP_FRAMES = 3; // farther apart than this, the follower seeks
const SEEK_LIMIT_MS = 4000;
const HAVE_FUTURE_DATA = 3;

/* Call back on every frame a clip shows; older browsers get the screen's rate instead. */
function onEveryFrame(video, callback) {
  const next = () => {
    callback();
    if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(next);
    else requestAnimationFrame(next);
  };
  if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(next);
  else requestAnimationFrame(next);
}

class Timeline {
  /* `videos` is {left, right}; `listener` has changed(), restarted(), failed(side) and blocked(). */
  constructor(videos, listener) {
    this.videos = videos;
    this.listener = listener;
    this.speed = 1;
    this.isLooping = true;
    this.clips = null;
    for (const side of SIDES) this.watchVideo(side);
  }

  watchVideo(side) {
    const video = this.videos[side];
    video.addEventListener("ended", () => this.endReached(side));
    video.addEventListener("waiting", () => this.bufferRanDry());
    video.addEventListener("canplay", () => this.dataArrived());
    video.addEventListener("error", (event) => this.clipFailed(side, event), true); // errors of <source> do not bubble
    onEveryFrame(video, () => this.frameShown(side));
  }

  /* Take two clips of {sources, fps, num_frames}; resolves when both can play, or one cannot. */
  async load(clips) {
    this.clips = clips;
    this.isPlaying = this.isStalled = false;
    this.failures = new Set();
    this.target = this.seeking = null;
    const longer = this.duration("right") > this.duration("left") ? "right" : "left";
    [this.leader, this.follower] = longer === "left" ? SIDES : ["right", "left"];
    this.numFrames = Math.max(1, Math.round(this.duration(this.leader) * this.fps));
    for (const side of SIDES) this.fill(this.videos[side], clips[side].sources);
    const loading = clips;
    while (!this.isReady() && this.failures.size === 0 && this.clips === loading) await wait(30);
    return this.failures.size === 0;
  }

  fill(video, sources) {
    video.pause();
    video.removeAttribute("src");
    video.replaceChildren(...sources.map(({ url, type }) => make("source", { src: url, type })));
    video.load();
  }

  get fps() {
    return this.clips[this.leader].fps;
  }

  duration(side) {
    return this.clips[side].num_frames / this.clips[side].fps;
  }

  isReady() {
    return SIDES.every((side) => this.videos[side].readyState >= HAVE_FUTURE_DATA);
  }

  /* The frame of the leader on display. */
  get frame() {
    if (!this.clips) return 0;
    if (this.seeking) return this.target;
    return clamp(Math.floor(this.videos[this.leader].currentTime * this.fps + 1e-3), 0, this.numFrames - 1);
  }

  /* The frame of one clip that belongs to a frame of the leader: the last one, when the clip is shorter. */
  frameOf(side, frame) {
    const clip = this.clips[side];
    return Math.min(Math.floor(((frame + 0.5) / this.fps) * clip.fps), clip.num_frames - 1);
  }

  /* Whether a clip holds its last frame while the other goes on. */
  isHeld(side) {
    return side === this.follower && this.videos[this.leader].currentTime >= this.duration(side);
  }

  toggle() {
    return this.isPlaying ? this.pause() : this.play();
  }

  async play() {
    if (!this.clips || this.failures.size > 0 || this.isPlaying) return;
    if (this.seeking) await this.seeking;
    this.isPlaying = true;
    if (this.frame >= this.numFrames - 1) return this.restart();
    if (this.frame === 0) this.listener.restarted();
    await this.run();
  }

  /* Start both clips in the same task. */
  async run() {
    this.listener.changed();
    const starts = SIDES.filter((side) => !this.isHeld(side)).map((side) => {
      this.videos[side].playbackRate = this.speed;
      return this.videos[side].play();
    });
    const refused = (await Promise.allSettled(starts)).some(({ reason }) => reason?.name === "NotAllowedError");
    if (refused) {
      this.stop();
      this.listener.blocked();
    }
  }

  stop() {
    this.isPlaying = this.isStalled = false;
    for (const side of SIDES) this.videos[side].pause();
    this.listener.changed();
  }

  /* Stop both on the same frame. */
  async pause() {
    const { frame } = this;
    this.stop();
    if (this.clips && this.failures.size === 0) await this.seek(frame);
  }

  /* Stand still on one frame. */
  stopAt(frame) {
    if (this.isPlaying) this.stop();
    return this.seek(frame);
  }

  /* Back to the first frame, together, and on. */
  async restart() {
    const goOn = this.isPlaying;
    for (const side of SIDES) this.videos[side].pause();
    await this.seek(0);
    if (!goOn || !this.isPlaying) return;
    this.listener.restarted();
    await this.run();
  }

  /* Show one frame on both sides; of several quick calls the last one wins. */
  seek(frame) {
    this.target = clamp(frame, 0, this.numFrames - 1);
    this.seeking ??= this.seekUntilDone().finally(() => {
      this.seeking = null;
      this.listener.changed();
    });
    return this.seeking;
  }

  async seekUntilDone() {
    for (let shown = null; shown !== this.target; ) {
      shown = this.target;
      this.listener.changed();
      await Promise.all(SIDES.map((side) => this.seekClip(side, shown)));
    }
  }

  async seekClip(side, frame) {
    const video = this.videos[side];
    const time = (this.frameOf(side, frame) + 0.5) / this.clips[side].fps;
    if (Math.abs(video.currentTime - time) < 1e-4 && !video.seeking) return;
    const done = once(video, "seeked", SEEK_LIMIT_MS);
    video.currentTime = time;
    await done;
  }

  setSpeed(speed) {
    this.speed = speed;
    for (const side of SIDES) this.videos[side].playbackRate = speed;
  }

  frameShown(side) {
    if (!this.clips || side !== this.leader || !this.isPlaying) return;
    this.listener.changed();
    if (!this.seeking && !this.isStalled) this.nudge();
  }

  nudge() {
    const [leader, follower] = [this.videos[this.leader], this.videos[this.follower]];
    if (this.isHeld(this.follower) || follower.ended || leader.ended) return;
    const drift = follower.currentTime - leader.currentTime; // seconds
    if (Math.abs(drift) * this.fps > JUMP_FRAMES) follower.currentTime = leader.currentTime;
    const nudge = clamp(-drift * NUDGE_PER_S, -LARGEST_NUDGE, LARGEST_NUDGE);
    follower.playbackRate = this.speed * (1 + nudge);
  }

  async endReached(side) {
    if (side !== this.leader || !this.isPlaying) return this.listener.changed();
    const other = this.videos[this.follower];
    if (!other.ended) await once(other, "ended", 1000 / this.fps / this.speed);
    if (!this.isPlaying) return;
    if (this.isLooping) await this.restart();
    else await this.pause();
  }

  bufferRanDry() {
    if (!this.isPlaying || this.seeking || this.isStalled) return;
    this.isStalled = true;
    for (const side of SIDES) this.videos[side].pause();
    this.listener.changed();
  }

  dataArrived() {
    if (!this.isStalled || !this.isReady()) return;
    this.isStalled = false;
    if (this.isPlaying) this.run();
  }

  /* A broken stream, or no source left that the browser can read. */
  clipFailed(side, event) {
    const video = this.videos[side];
    if (event.target !== video && event.target !== video.lastElementChild) return;
    this.failures.add(side);
    this.stop();
    this.listener.failed(side);
  }
}
