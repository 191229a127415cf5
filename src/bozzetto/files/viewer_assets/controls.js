// Orbit, zoom and pan with mouse, touch and keys. Angles in radians; the camera glides towards where the user put it.

class Orbit {
  // frame: rows are the world's right, up and front as the viewer shall see them.
  constructor(canvas, scene, onMove, onTouch) {
    this.canvas = canvas;
    this.frame = scene.frame;
    this.radius = scene.radius;
    this.room = scene.film ? 1.4 : 1.2; // a time line takes some of the window
    this.halfFov = (scene.fov * Math.PI) / 360;
    this.onMove = onMove;
    this.home = { azimuth: 0, elevation: (12 * Math.PI) / 180, target: scene.centre };
    this.reset(true);
    this.listen(onTouch);
  }

  // The whole object fits, in a wide window and in a tall one.
  homeDistance() {
    const aspect = this.canvas.clientWidth / Math.max(1, this.canvas.clientHeight);
    const half = Math.atan(Math.tan(this.halfFov) * Math.min(1, aspect));
    return (this.room * this.radius) / Math.sin(half);
  }

  reset(jump) {
    this.goal = { ...this.home, target: [...this.home.target], distance: this.homeDistance() };
    if (jump) this.now = { ...this.goal, target: [...this.goal.target] };
    else this.goal.azimuth += 2 * Math.PI * Math.round((this.now.azimuth - this.goal.azimuth) / (2 * Math.PI));
    this.onMove();
  }

  turn(azimuth, elevation) {
    this.goal.azimuth += azimuth;
    this.goal.elevation = Math.max(-1.55, Math.min(1.55, this.goal.elevation + elevation));
    this.onMove();
  }

  zoom(factor) {
    this.goal.distance = Math.max(0.05 * this.radius, Math.min(30 * this.radius, this.goal.distance * factor));
    this.onMove();
  }

  // dx, dy in CSS pixels.
  pan(dx, dy) {
    const step = (2 * Math.tan(this.halfFov) * this.goal.distance) / Math.max(1, this.canvas.clientHeight);
    const [right, up] = this.axes(this.now);
    for (let i = 0; i < 3; i++) this.goal.target[i] += step * (dy * up[i] - dx * right[i]);
    this.onMove();
  }

  // One step of the glide; true while there is still way to go.
  advance(seconds) {
    const share = 1 - Math.exp(-16 * seconds);
    let rest = 0;
    const ease = (from, to, unit) => {
      rest = Math.max(rest, Math.abs(to - from) / unit);
      return from + (to - from) * share;
    };
    this.now.azimuth = ease(this.now.azimuth, this.goal.azimuth, 1);
    this.now.elevation = ease(this.now.elevation, this.goal.elevation, 1);
    this.now.distance = ease(this.now.distance, this.goal.distance, this.now.distance);
    this.now.target = this.now.target.map((t, i) => ease(t, this.goal.target[i], this.now.distance));
    if (rest < 1e-4) this.now = { ...this.goal, target: [...this.goal.target] };
    return rest >= 1e-4;
  }

  // Right, up and backward axes of the camera in the world.
  axes({ azimuth, elevation }) {
    const [sa, ca, se, ce] = [Math.sin(azimuth), Math.cos(azimuth), Math.sin(elevation), Math.cos(elevation)];
    const world = (v) => [0, 1, 2].map((i) => v[0] * this.frame[0][i] + v[1] * this.frame[1][i] + v[2] * this.frame[2][i]);
    return [world([ca, 0, -sa]), world([-sa * se, ce, -ca * se]), world([sa * ce, se, ca * ce])];
  }

  camera(width, height) {
    const [right, up, back] = this.axes(this.now);
    const eye = this.now.target.map((t, i) => t + this.now.distance * back[i]);
    const fy = 0.5 / Math.tan(this.halfFov);
    return makeCamera(right, up, back, eye, [(fy * height) / width, fy, 0.5, 0.5], this.radius);
  }

  listen(onTouch) {
    const canvas = this.canvas, held = new Map();
    let gap = 0, middle = [0, 0];
    const measure = () => {
      const [a, b] = [...held.values()];
      gap = b ? Math.hypot(a.x - b.x, a.y - b.y) : 0;
      middle = b ? [(a.x + b.x) / 2, (a.y + b.y) / 2] : [0, 0];
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      held.set(event.pointerId, { x: event.clientX, y: event.clientY, pan: event.button > 0 || event.shiftKey });
      measure();
      canvas.classList.add("held");
      onTouch();
    });
    canvas.addEventListener("pointermove", (event) => {
      const last = held.get(event.pointerId);
      if (!last) return;
      const dx = event.clientX - last.x, dy = event.clientY - last.y;
      last.x = event.clientX;
      last.y = event.clientY;
      if (held.size >= 2) { // two fingers: pinch to zoom, move together to pan
        const before = gap, from = middle;
        measure();
        if (before > 0 && gap > 0) this.zoom(before / gap);
        this.pan(middle[0] - from[0], middle[1] - from[1]);
      } else if (last.pan) this.pan(dx, dy);
      else this.turn((-dx * Math.PI) / canvas.clientHeight, (dy * Math.PI) / canvas.clientHeight);
    });
    const release = (event) => {
      held.delete(event.pointerId);
      measure();
      if (!held.size) canvas.classList.remove("held");
    };
    canvas.addEventListener("pointerup", release);
    canvas.addEventListener("pointercancel", release);
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const lines = event.deltaMode === 1 ? 16 : event.deltaMode === 2 ? 400 : 1;
      this.zoom(Math.exp(Math.max(-240, Math.min(240, event.deltaY * lines)) * (event.ctrlKey ? 0.01 : 0.0015)));
      onTouch();
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const step = 0.12;
      const keys = {
        ArrowLeft: () => this.turn(-step, 0), ArrowRight: () => this.turn(step, 0),
        ArrowUp: () => this.turn(0, step), ArrowDown: () => this.turn(0, -step),
        "+": () => this.zoom(0.9), "=": () => this.zoom(0.9), "-": () => this.zoom(1 / 0.9),
      };
      if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      keys[event.key]();
      onTouch();
    });
  }
}

// What the layers draw with: rotation rows and translation from world to camera (x right, y down, z forward).
function makeCamera(right, up, back, eye, intrinsics, radius) {
  const rotation = [...right, ...up.map((x) => -x), ...back.map((x) => -x)];
  const translation = [0, 1, 2].map((r) => -(rotation[3 * r] * eye[0] + rotation[3 * r + 1] * eye[1] + rotation[3 * r + 2] * eye[2]));
  return { rotation, translation, eye, intrinsics, near: 0.01 * radius, far: 100 * radius };
}
