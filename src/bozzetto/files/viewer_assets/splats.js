// Gaussian splats in WebGL 2: unpack, sort back to front, draw one blended quad each.
// The picture follows the equations of bozzetto.raster: EWA projection with a 0.3 pixel low-pass, alpha capped at 0.99
// and cut below 1/255, order by camera depth.

function bytesOf(id) {
  const text = document.getElementById(id).textContent.trim();
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

// Four float texels of splat i: centre and opacity | covariance xx xy xz yy | covariance yz zz, unused | colour, unused.
// centres and quats (w, x, y, z of any length) are arrays of all splats; a, b, c are the splat's standard deviations.
function putTexels(texels, i, centres, quats, a, b, c, opacity, tint) {
  let w = quats[4 * i], x = quats[4 * i + 1], y = quats[4 * i + 2], z = quats[4 * i + 3];
  const unit = 1 / (Math.sqrt(w * w + x * x + y * y + z * z) || 1);
  w *= unit; x *= unit; y *= unit; z *= unit;
  // Columns of rotation times scale.
  const m00 = a * (1 - 2 * (y * y + z * z)), m10 = a * 2 * (x * y + w * z), m20 = a * 2 * (x * z - w * y);
  const m01 = b * 2 * (x * y - w * z), m11 = b * (1 - 2 * (x * x + z * z)), m21 = b * 2 * (y * z + w * x);
  const m02 = c * 2 * (x * z + w * y), m12 = c * 2 * (y * z - w * x), m22 = c * (1 - 2 * (x * x + y * y));
  const o = 16 * i;
  texels[o] = centres[3 * i];
  texels[o + 1] = centres[3 * i + 1];
  texels[o + 2] = centres[3 * i + 2];
  texels[o + 3] = opacity;
  texels[o + 4] = m00 * m00 + m01 * m01 + m02 * m02;
  texels[o + 5] = m00 * m10 + m01 * m11 + m02 * m12;
  texels[o + 6] = m00 * m20 + m01 * m21 + m02 * m22;
  texels[o + 7] = m10 * m10 + m11 * m11 + m12 * m12;
  texels[o + 8] = m10 * m20 + m11 * m21 + m12 * m22;
  texels[o + 9] = m20 * m20 + m21 * m21 + m22 * m22;
  for (let k = 0; k < 3; k++) texels[o + 12 + k] = tint[k];
}

// The page's planar arrays -> centres (for sorting), texels, and the SH bytes.
function unpackSplats(meta, bytes) {
  const n = meta.count;
  let at = 0;
  const take = (Type, length) => {
    const array = new Type(bytes.buffer, bytes.byteOffset + at, length);
    at += array.byteLength;
    return array;
  };
  const centres = take(Float32Array, 3 * n);
  const quats = take(Int16Array, 4 * n);
  const scales = take(Uint16Array, 3 * n);
  const colours = take(Uint16Array, 3 * n);
  const opacities = take(Uint16Array, n);
  const terms = (meta.degree + 1) ** 2 - 1;
  const harmonics = take(Int8Array, 3 * terms * n);
  const span = (range) => [range[0], (range[1] - range[0]) / 65535];
  const [s0, sStep] = span(meta.logScale), [c0, cStep] = span(meta.colour);
  const texels = new Float32Array(16 * n), tint = [0, 0, 0];
  for (let i = 0; i < n; i++) {
    for (let k = 0; k < 3; k++) tint[k] = c0 + cStep * colours[3 * i + k];
    const size = (k) => Math.exp(s0 + sStep * scales[3 * i + k]);
    putTexels(texels, i, centres, quats, size(0), size(1), size(2), opacities[i] / 65535, tint);
  }
  return { count: n, degree: meta.degree, shScale: meta.shScale, centres, texels, harmonics, terms };
}

const SPLAT_VERTEX = `
precision highp float;
precision highp int;
precision highp sampler2D;
precision highp isampler2D;
uniform sampler2D splats;
uniform isampler2D harmonics;
uniform mat3 rotation;      // world to camera: x right, y down, z forward
uniform vec3 translation, eye, shScale;
uniform vec2 focal, centre, viewport;  // pixels, y down
uniform float near;
uniform int count;
uniform highp usampler2D order;
out vec2 sigmas;
out vec4 colour;

int i;  // the splat

ivec2 place(int perRow, int texels, int k) {
  return ivec2((i % perRow) * texels + k, i / perRow);
}

vec3 term(int k, int band) {
  ivec2 at = place(SH_PER_ROW, SH_TERMS, k);
  return vec3(texelFetch(harmonics, at, 0).rgb) / 127.0 * shScale[band - 1];
}

vec3 radiance(vec3 base, vec3 d) {
  vec3 c = base;
#if DEGREE >= 1
  float x = d.x, y = d.y, z = d.z;
  c += 0.4886025119029199 * (-y * term(0, 1) + z * term(1, 1) - x * term(2, 1));
#endif
#if DEGREE >= 2
  float xx = x * x, yy = y * y, zz = z * z;
  c += 1.0925484305920792 * (x * y * term(3, 2) - y * z * term(4, 2) - x * z * term(6, 2))
     + 0.31539156525252005 * (2.0 * zz - xx - yy) * term(5, 2) + 0.5462742152960396 * (xx - yy) * term(7, 2);
#endif
#if DEGREE >= 3
  c += -0.5900435899266435 * (y * (3.0 * xx - yy) * term(8, 3) + x * (xx - 3.0 * yy) * term(14, 3))
     + 2.890611442640554 * x * y * z * term(9, 3) + 1.445305721320277 * z * (xx - yy) * term(13, 3)
     - 0.4570457994644658 * (4.0 * zz - xx - yy) * (y * term(10, 3) + x * term(12, 3))
     + 0.3731763325901154 * z * (2.0 * zz - 3.0 * xx - 3.0 * yy) * term(11, 3);
#endif
  return max(c, 0.0);
}

void main() {
  gl_Position = vec4(2.0, 2.0, 2.0, 1.0);  // outside the picture, for everything that is not drawn
  int column = gl_VertexID >> 2;
  if (gl_InstanceID * BATCH + column >= count) return;
  i = int(texelFetch(order, ivec2(column, gl_InstanceID), 0).r);
  vec4 a = texelFetch(splats, place(PER_ROW, 4, 0), 0);
  vec4 b = texelFetch(splats, place(PER_ROW, 4, 1), 0);
  vec4 c = texelFetch(splats, place(PER_ROW, 4, 2), 0);
  vec3 rgb = texelFetch(splats, place(PER_ROW, 4, 3), 0).rgb;
  vec3 p = rotation * a.xyz + translation;
  if (p.z <= near || a.w * 255.0 <= 1.0) return;

  // Jacobian of the projection; far outside the picture its slope is held, or splats there would blow up.
  vec2 margin = 0.15 * viewport / focal;
  vec2 slope = clamp(p.xy / p.z, -centre / focal - margin, (viewport - centre) / focal + margin);
  mat3 world = transpose(rotation);  // columns: the camera's axes in the world
  vec3 u = focal.x / p.z * (world[0] - slope.x * world[2]);
  vec3 v = focal.y / p.z * (world[1] - slope.y * world[2]);
  mat3 cov = mat3(b.x, b.y, b.z, b.y, b.w, c.x, b.z, c.x, c.y);
  float xx = dot(u, cov * u) + 0.3, xy = dot(u, cov * v), yy = dot(v, cov * v) + 0.3;
  float det = xx * yy - xy * xy;
  if (!(det > 0.0)) return;

  // Axes of the ellipse; the quad ends where alpha falls to 1/255.
  float mid = 0.5 * (xx + yy);
  float reach = length(vec2(0.5 * (xx - yy), xy));
  float major = mid + reach, minor = max(det / major, 1e-12);
  vec2 axis = reach < 1e-9 ? vec2(1.0, 0.0)
    : xx > yy ? normalize(vec2(major - yy, xy)) : normalize(vec2(xy, major - xx));
  float extent = sqrt(2.0 * log(255.0 * a.w));
  sigmas = extent * vec2((gl_VertexID & 1) * 2 - 1, (gl_VertexID & 2) - 1);
  vec2 pixel = focal * p.xy / p.z + centre
    + sigmas.x * sqrt(major) * axis + sigmas.y * sqrt(minor) * vec2(-axis.y, axis.x);
  gl_Position = vec4(pixel.x / viewport.x * 2.0 - 1.0, 1.0 - pixel.y / viewport.y * 2.0, 0.0, 1.0);
  colour = vec4(radiance(rgb, normalize(a.xyz - eye)), a.w);
}`;

const SPLAT_FRAGMENT = `
precision highp float;
in vec2 sigmas;
in vec4 colour;
out vec4 result;
void main() {
  float alpha = min(0.99, colour.a * exp(-0.5 * dot(sigmas, sigmas)));
  if (alpha < 1.0 / 255.0) discard;
  result = vec4(colour.rgb * alpha, alpha);
}`;

function buildProgram(gl, vertex, fragment, defines = "") {
  const program = gl.createProgram();
  for (const [type, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(type);
    gl.shaderSource(shader, "#version 300 es\n" + defines + source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
    const logs = gl.getAttachedShaders(program).map((s) => gl.getShaderInfoLog(s));
    throw new Error("a shader does not compile: " + logs.join("\n") + gl.getProgramInfoLog(program));
  }
  const uniforms = {};
  for (let i = 0; i < gl.getProgramParameter(program, gl.ACTIVE_UNIFORMS); i++) {
    const { name } = gl.getActiveUniform(program, i);
    uniforms[name] = gl.getUniformLocation(program, name);
  }
  return { program, uniforms };
}

// One instance draws this many quads: an instance of a single quad is slow on most graphics drivers. Also the width of
// the texture that holds the order.
const BATCH = 1024;

class SplatLayer {
  // room: the most splats that load() will bring later.
  constructor(gl, splats, room = splats.count) {
    this.gl = gl;
    const limit = gl.getParameter(gl.MAX_TEXTURE_SIZE);
    const width = Math.min(limit, 4096);
    const perRow = Math.floor(width / 4), terms = Math.max(1, splats.terms), shPerRow = Math.floor(width / terms);
    const rows = (per) => Math.max(1, Math.ceil(room / per));
    const most = limit * Math.min(perRow, shPerRow, BATCH);
    if (room > most) throw new Error(`this device can show at most ${most} splats, these are ${room}`);
    const defines = `#define DEGREE ${splats.degree}\n#define PER_ROW ${perRow}\n#define SH_PER_ROW ${shPerRow}\n`
      + `#define SH_TERMS ${terms}\n#define BATCH ${BATCH}\n`;
    Object.assign(this, buildProgram(gl, SPLAT_VERTEX, SPLAT_FRAGMENT, defines));

    this.width = width;
    this.perRow = perRow;
    this.grid = new Float32Array(4 * width * rows(perRow));
    this.texture = this.upload(gl.RGBA32F, width, rows(perRow), gl.RGBA, gl.FLOAT, this.grid);
    const sh = new Int8Array(splats.terms ? 4 * width * rows(shPerRow) : 4);
    for (let i = 0; i < splats.count; i++) {
      for (let k = 0; k < splats.terms; k++) {
        const to = 4 * (width * Math.floor(i / shPerRow) + (i % shPerRow) * terms + k);
        for (let c = 0; c < 3; c++) sh[to + c] = splats.harmonics[3 * (i * splats.terms + k) + c];
      }
    }
    const size = splats.terms ? [width, rows(shPerRow)] : [1, 1];
    this.harmonics = this.upload(gl.RGBA8I, ...size, gl.RGBA_INTEGER, gl.BYTE, sh);

    this.order = new Uint32Array(BATCH * rows(BATCH));
    this.orderTexture = this.upload(gl.R32UI, BATCH, rows(BATCH), gl.RED_INTEGER, gl.UNSIGNED_INT, this.order);
    this.depths = new Uint32Array(room);
    this.load(splats);
    this.array = gl.createVertexArray();
    gl.bindVertexArray(this.array);
    const corners = new Uint16Array(6 * BATCH);
    for (let q = 0; q < BATCH; q++) corners.set([0, 1, 2, 2, 1, 3].map((k) => 4 * q + k), 6 * q);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, corners, gl.STATIC_DRAW);
    gl.bindVertexArray(null);
  }

  // Show other splats (of the same degree; harmonics stay those of the first).
  load(splats) {
    const gl = this.gl, { width, perRow, grid } = this;
    const rows = Math.ceil(splats.count / perRow);
    for (let row = 0; row < rows; row++) // rows of the texture may be wider than their splats
      grid.set(splats.texels.subarray(16 * perRow * row, 16 * Math.min(perRow * (row + 1), splats.count)), 4 * width * row);
    gl.bindTexture(gl.TEXTURE_2D, this.texture);
    if (rows) gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, width, rows, gl.RGBA, gl.FLOAT, grid);
    this.splats = splats;
    this.direction = [0, 0, 0]; // sort anew
  }

  upload(internal, width, height, format, type, data) {
    const gl = this.gl, texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.texImage2D(gl.TEXTURE_2D, 0, internal, width, height, 0, format, type, data);
    for (const filter of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, filter, gl.NEAREST);
    return texture;
  }

  // Far to near by depth along the viewing direction: a counting sort over 2^16 depths, linear in the splats.
  // Moving the camera without turning it keeps the order, so only a new direction sorts again.
  sort(direction) {
    if (direction.every((d, i) => d === this.direction[i])) return;
    this.direction = direction.slice();
    const { centres, count } = this.splats, [dx, dy, dz] = direction, keys = this.depths;
    let low = Infinity, high = -Infinity;
    for (let i = 0; i < count; i++) {
      const d = dx * centres[3 * i] + dy * centres[3 * i + 1] + dz * centres[3 * i + 2];
      if (d < low) low = d;
      if (d > high) high = d;
    }
    const scale = high > low ? 65535 / (high - low) : 0;
    const starts = new Uint32Array(65537);
    for (let i = 0; i < count; i++) {
      const d = dx * centres[3 * i] + dy * centres[3 * i + 1] + dz * centres[3 * i + 2];
      keys[i] = ((high - d) * scale) | 0;
      starts[keys[i] + 1]++;
    }
    for (let k = 0; k < 65536; k++) starts[k + 1] += starts[k];
    // Backwards, so that of equal depths the lower index is drawn later, in front.
    for (let i = count - 1; i >= 0; i--) this.order[starts[keys[i]]++] = i;
    const gl = this.gl;
    gl.bindTexture(gl.TEXTURE_2D, this.orderTexture);
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, BATCH, this.order.length / BATCH, gl.RED_INTEGER, gl.UNSIGNED_INT, this.order);
  }

  draw(camera, width, height) {
    const gl = this.gl, u = this.uniforms, r = camera.rotation;
    this.sort([r[6], r[7], r[8]]);
    gl.useProgram(this.program);
    gl.disable(gl.DEPTH_TEST);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D, this.texture);
    gl.activeTexture(gl.TEXTURE1);
    gl.bindTexture(gl.TEXTURE_2D, this.harmonics);
    gl.uniform1i(u.splats, 0);
    gl.activeTexture(gl.TEXTURE2);
    gl.bindTexture(gl.TEXTURE_2D, this.orderTexture);
    gl.uniform1i(u.order, 2);
    gl.uniform1i(u.count, this.splats.count);
    if (u.harmonics) gl.uniform1i(u.harmonics, 1);
    gl.uniformMatrix3fv(u.rotation, true, r);
    gl.uniform3fv(u.translation, camera.translation);
    if (u.eye) gl.uniform3fv(u.eye, camera.eye);
    if (u.shScale) gl.uniform3fv(u.shScale, this.splats.shScale);
    const [fx, fy, cx, cy] = camera.intrinsics;
    gl.uniform2f(u.focal, fx * width, fy * height);
    gl.uniform2f(u.centre, cx * width, cy * height);
    gl.uniform2f(u.viewport, width, height);
    gl.uniform1f(u.near, camera.near);
    gl.bindVertexArray(this.array);
    gl.drawElementsInstanced(gl.TRIANGLES, 6 * BATCH, gl.UNSIGNED_SHORT, 0, this.order.length / BATCH);
    gl.bindVertexArray(null);
    gl.disable(gl.BLEND);
  }
}
