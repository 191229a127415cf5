// The page: canvas, buttons, the drawing loop, and window.bozzetto for scripts.

const element = (id) => document.getElementById(id);
const canvas = element("view");
const scene = JSON.parse(element("scene").textContent);
const BACKGROUNDS = [[1, 1, 1], [0.82, 0.84, 0.86], [0.13, 0.14, 0.16], [0, 0, 0]];

function fail(error) {
  element("message").textContent = "The object cannot be shown.\n" + (error && error.message ? error.message : error);
  element("message").hidden = false;
}

function start(picture) {
  // The splats are blended in half floats where possible: hundreds of faint layers would drown in 8-bit rounding.
  const gl = canvas.getContext("webgl2", { antialias: false, alpha: false, powerPreference: "high-performance" });
  if (!gl) throw new Error("It needs WebGL 2; use a current browser with hardware acceleration switched on.");
  const film = scene.film ? new Film(scene.film, bytesOf("splat-data")) : null;
  const splats = film ? film.frame(0) : unpackSplats(scene.splats, bytesOf("splat-data"));
  const meshBytes = scene.mesh ? bytesOf("mesh-data") : null;
  let splatLayer, meshLayer, target, blit;

  function build() {
    splatLayer = new SplatLayer(gl, film ? film.frame(film.shown) : splats, film ? film.most : splats.count);
    meshLayer = scene.mesh ? new MeshLayer(gl, scene.mesh, meshBytes, picture) : null;
    const half = gl.getExtension("EXT_color_buffer_float") || gl.getExtension("EXT_color_buffer_half_float");
    blit = buildProgram(gl, "void main() { gl_Position = vec4(gl_VertexID == 1 ? 3.0 : -1.0, gl_VertexID == 2 ? 3.0 : -1.0, 0.0, 1.0); }",
      "precision highp float; uniform sampler2D picture; out vec4 result; void main() { result = texelFetch(picture, ivec2(gl_FragCoord.xy), 0); }");
    target = { frame: gl.createFramebuffer(), width: 0, height: 0, half: Boolean(half), colour: null, depth: null };
  }

  function resizeTarget(width, height) {
    if (target.width === width && target.height === height) return;
    gl.deleteTexture(target.colour);
    gl.deleteRenderbuffer(target.depth);
    target.colour = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, target.colour);
    gl.texStorage2D(gl.TEXTURE_2D, 1, target.half ? gl.RGBA16F : gl.RGBA8, width, height);
    for (const filter of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, filter, gl.NEAREST);
    target.depth = gl.createRenderbuffer();
    gl.bindRenderbuffer(gl.RENDERBUFFER, target.depth);
    gl.renderbufferStorage(gl.RENDERBUFFER, gl.DEPTH_COMPONENT24, width, height);
    gl.bindFramebuffer(gl.FRAMEBUFFER, target.frame);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, target.colour, 0);
    gl.framebufferRenderbuffer(gl.FRAMEBUFFER, gl.DEPTH_ATTACHMENT, gl.RENDERBUFFER, target.depth);
    target.width = width;
    target.height = height;
  }

  function draw(camera, width, height, background, mesh) {
    canvas.width = width;
    canvas.height = height;
    resizeTarget(width, height);
    gl.bindFramebuffer(gl.FRAMEBUFFER, target.frame);
    gl.viewport(0, 0, width, height);
    gl.clearColor(...background, 1);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    if (meshLayer && (mesh || !splats.count)) meshLayer.draw(camera);
    else if (splatLayer.splats.count) splatLayer.draw(camera, width, height);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.useProgram(blit.program);
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D, target.colour);
    gl.uniform1i(blit.uniforms.picture, 0);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }

  build();
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const state = { background: 0, mesh: false, spin: !still && !film };
  // A slow machine draws fewer pixels while things move, and all of them once they stand still.
  let scheduled = 0, last = 0, detail = 1, slow = 0;

  function wake() {
    if (!scheduled) scheduled = requestAnimationFrame(frame);
  }

  function frame(time) {
    scheduled = 0;
    if (gl.isContextLost()) return;
    const seconds = last ? Math.min(0.1, (time - last) / 1000) : 0;
    if (state.spin) orbit.goal.azimuth = orbit.now.azimuth += 0.45 * seconds;
    if (timeline && timeline.advance(last ? (time - last) / 1000 : 0)) splatLayer.load(film.frame(timeline.frame()));
    const moving = orbit.advance(seconds || 1 / 60) || state.spin || Boolean(timeline && timeline.playing);
    if (last) slow = slow ? 0.6 * slow + 0.4 * (time - last) : time - last;
    if (moving && slow > 45) {
      detail = Math.max(0.3, detail * Math.max(0.6, Math.sqrt(36 / slow)));
      slow = 36; // the next frames tell whether that was enough
    }
    // Triangle edges have no smoothing of their own: the mesh is drawn at twice the size and shrunk by the browser.
    const density = Math.min(2, (devicePixelRatio || 1) * (state.mesh ? 2 : 1));
    const scale = density * (moving ? detail : 1);
    const width = Math.max(1, Math.round(canvas.clientWidth * scale));
    const height = Math.max(1, Math.round(canvas.clientHeight * scale));
    draw(orbit.camera(width, height), width, height, BACKGROUNDS[state.background], state.mesh);
    last = moving ? time : 0;
    if (!moving) slow = 0;
    if (moving) wake();
  }

  const orbit = new Orbit(canvas, scene, wake, () => setSpin(false));
  const timeline = film ? new Timeline(scene.film, wake) : null;

  function setSpin(on) {
    state.spin = on;
    element("turn").setAttribute("aria-pressed", String(on));
    wake();
  }
  function setBackground(index) {
    state.background = index % BACKGROUNDS.length;
    document.documentElement.classList.toggle("dark", BACKGROUNDS[state.background][0] < 0.5);
    wake();
  }
  function setMesh(on) {
    state.mesh = Boolean(scene.mesh) && (on || !splats.count);
    element("mesh").setAttribute("aria-pressed", String(state.mesh));
    const words = (count, what) => `${count.toLocaleString("en")} ${what}`;
    element("info").textContent = state.mesh ? words(scene.mesh.faces, "triangles") : film
      ? [words(film.frames, "frames"), words(film.most, "splats"), ...scene.film.notes].join(" \u00b7 ")
      : words(splats.count, "splats");
    wake();
  }
  function toggleFullscreen() {
    const done = document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen();
    done.catch(() => {}); // the browser may refuse, e.g. inside a frame
  }
  const actions = {
    reset: ["r", () => { setSpin(false); orbit.reset(false); }],
    turn: [film ? "t" : " ", () => setSpin(!state.spin)],
    background: ["b", () => setBackground(state.background + 1)],
    mesh: ["m", () => setMesh(!state.mesh)],
    fullscreen: ["f", toggleFullscreen],
  };
  if (film) {
    Object.assign(actions, timeline.actions());
    element("turn").title = "Turn by itself (T)";
  }
  element("mesh").hidden = !scene.mesh || !splats.count;
  element("fullscreen").hidden = !document.documentElement.requestFullscreen;
  for (const [id, [key, action]] of Object.entries(actions)) {
    if (element(id)) element(id).addEventListener("click", action); // some have only a key
    addEventListener("keydown", (event) => {
      if (event.key.toLowerCase() !== key || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
      if (key === " " && ["BUTTON", "SELECT"].includes(event.target.tagName)) return; // the element's own key
      event.preventDefault();
      action();
    });
  }
  canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
  canvas.addEventListener("webglcontextrestored", () => { build(); wake(); });
  new ResizeObserver(wake).observe(canvas);
  setSpin(state.spin);
  setMesh(false);
  if (timeline) timeline.setPlaying(!still);

  window.bozzetto = {
    count: splats.count,
    // A PNG data URL of the object from a given camera: cameraToWorld 16 numbers by rows (OpenGL axes), intrinsics
    // fx, fy, cx, cy as shares of the picture's size.
    snapshot({ width, height, cameraToWorld: m, intrinsics, background = [1, 1, 1], mesh = false, frame = null }) {
      const column = (i) => [m[i], m[4 + i], m[8 + i]];
      if (frame !== null) splatLayer.load(film.frame(frame));
      draw(makeCamera(column(0), column(1), column(2), column(3), intrinsics, scene.radius), width, height, background, mesh);
      const url = canvas.toDataURL("image/png");
      if (frame !== null) splatLayer.load(film.frame(timeline.frame()));
      wake();
      return url;
    },
    // The camera now, in the same form.
    camera() {
      const { rotation: r, eye, intrinsics } = orbit.camera(canvas.clientWidth, canvas.clientHeight);
      const rows = [0, 1, 2].map((i) => [r[i], -r[3 + i], -r[6 + i], eye[i]]);
      return { cameraToWorld: [...rows.flat(), 0, 0, 0, 1], intrinsics };
    },
    setSpin, setBackground, setMesh,
    reset: () => orbit.reset(true),
    timeline,
  };
  frame(performance.now());
  window.bozzettoReady = true;
}

(scene.mesh && scene.mesh.texture ? loadPicture(scene.mesh.texture) : Promise.resolve(null)).then(start).catch(fail);
