// Splats that change over time: frames unpacked when they are shown, and the bar that plays them.

// 17 bytes a splat and frame: centre 3 x uint16 over a box, rotation 4 x int8, logarithms of the scales 3 x uint8, colour
// 3 x uint8, opacity uint8; each frame's arrays one after the other, every frame at a multiple of 4 bytes.
class Film {
  constructor(meta, bytes) {
    this.meta = meta;
    this.bytes = bytes;
    this.frames = meta.counts.length;
    this.most = Math.max(1, ...meta.counts);
    this.shown = 0;
    // Reused by every frame: what frame() returns holds until the next call.
    this.centres = new Float32Array(3 * this.most);
    this.texels = new Float32Array(16 * this.most);
    this.sizes = Float32Array.from({ length: 256 }, (_, i) => Math.exp(meta.logScale[0] + ((meta.logScale[1] - meta.logScale[0]) * i) / 255));
    this.tints = Float32Array.from({ length: 256 }, (_, i) => (meta.colour * i) / 255);
  }

  frame(index) {
    const { meta, bytes, centres, texels, sizes, tints } = this;
    const n = meta.counts[index];
    let at = bytes.byteOffset + meta.offsets[index];
    const take = (Type, length) => {
      const array = new Type(bytes.buffer, at, length);
      at += array.byteLength;
      return array;
    };
    const places = take(Uint16Array, 3 * n), quats = take(Int8Array, 4 * n);
    const scales = take(Uint8Array, 3 * n), colours = take(Uint8Array, 3 * n), opacities = take(Uint8Array, n);
    const tint = [0, 0, 0];
    for (let i = 0; i < n; i++) {
      for (let k = 0; k < 3; k++) {
        centres[3 * i + k] = meta.low[k] + meta.step * places[3 * i + k];
        tint[k] = tints[colours[3 * i + k]];
      }
      const a = sizes[scales[3 * i]], b = sizes[scales[3 * i + 1]], c = sizes[scales[3 * i + 2]];
      putTexels(texels, i, centres, quats, a, b, c, opacities[i] / 255, tint);
    }
    this.shown = index;
    return { count: n, degree: 0, terms: 0, shScale: [1, 1, 1], centres, texels };
  }
}

class Timeline {
  constructor(meta, wake) {
    this.count = meta.counts.length;
    this.fps = meta.fps;
    this.wake = wake;
    this.at = 0; // in frames, 0 <= at < count
    this.drawn = 0;
    this.speed = 1;
    this.playing = false;
    element("timeline").hidden = false;
    const scrub = element("scrub");
    scrub.max = String(this.count - 1);
    scrub.addEventListener("input", () => {
      this.setPlaying(false);
      this.setFrame(Number(scrub.value));
    });
    element("speed").addEventListener("change", (event) => this.setSpeed(Number(event.target.value)));
    this.show();
  }

  frame() {
    return Math.min(this.count - 1, Math.floor(this.at));
  }

  // Moves on by some seconds of real time; true if another frame is due.
  advance(seconds) {
    if (this.playing) this.at = (this.at + Math.min(1, seconds) * this.fps * this.speed) % this.count;
    const due = this.frame() !== this.drawn;
    this.drawn = this.frame();
    if (due) this.show();
    return due;
  }

  setFrame(index) {
    this.at = ((Math.round(index) % this.count) + this.count) % this.count;
    this.show();
    this.wake();
  }

  setPlaying(on) {
    this.playing = on && this.count > 1;
    element("play").setAttribute("aria-pressed", String(this.playing));
    element("play").textContent = this.playing ? "Pause" : "Play";
    this.wake();
  }

  setSpeed(speed) {
    this.speed = speed;
    const choice = element("speed");
    if ([...choice.options].some((option) => Number(option.value) === speed)) choice.value = String(speed);
    this.wake();
  }

  faster(steps) {
    const choice = element("speed");
    choice.selectedIndex = Math.max(0, Math.min(choice.options.length - 1, choice.selectedIndex + steps));
    this.setSpeed(Number(choice.value));
  }

  step(frames) {
    this.setPlaying(false);
    this.setFrame(this.frame() + frames);
  }

  show() {
    const seconds = this.frame() / this.fps;
    element("scrub").value = String(this.frame());
    element("scrub").setAttribute("aria-valuetext", `${seconds.toFixed(2)} seconds`);
    element("time").textContent = `${seconds.toFixed(2)} / ${(this.count / this.fps).toFixed(2)} s`;
  }

  // Buttons and keys, as the page lists them.
  actions() {
    return {
      play: [" ", () => this.setPlaying(!this.playing)],
      earlier: [",", () => this.step(-1)],
      later: [".", () => this.step(1)],
      slower: ["[", () => this.faster(-1)],
      quicker: ["]", () => this.faster(1)],
    };
  }
}
