// The mesh beside the splats: texture or vertex colours as they are (light is baked in), plain grey with a headlight else.

const MESH_VERTEX = `
precision highp float;
uniform mat3 rotation;
uniform vec3 translation;
uniform vec2 focal, centre;  // as shares of the picture's size
uniform float near, far;
layout(location = 0) in vec3 position;
layout(location = 1) in vec3 colour;
layout(location = 2) in vec2 uv;
out vec3 tint, local;
out vec2 place;
void main() {
  vec3 p = rotation * position + translation;
  vec2 ndc = 2.0 * (focal * p.xy + (centre - 0.5) * p.z);
  gl_Position = vec4(ndc.x, -ndc.y, (far + near) / (far - near) * p.z - 2.0 * far * near / (far - near), p.z);
  tint = colour;
  local = p;
  place = uv;
}`;

const MESH_FRAGMENT = `
precision highp float;
uniform sampler2D picture;
uniform int skin;  // 0 plain, 1 vertex colours, 2 texture
in vec3 tint, local;
in vec2 place;
out vec4 result;
void main() {
  vec3 normal = normalize(cross(dFdx(local), dFdy(local)));
  float light = 0.25 + 0.65 * abs(dot(normal, normalize(local)));
  vec3 c = skin == 2 ? texture(picture, place).rgb : skin == 1 ? tint : vec3(light);
  result = vec4(c, 1.0);
}`;

function loadPicture(url) {
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => reject(new Error("the mesh's texture cannot be decoded"));
    image.src = url;
  });
}

class MeshLayer {
  constructor(gl, meta, bytes, picture) {
    this.gl = gl;
    Object.assign(this, buildProgram(gl, MESH_VERTEX, MESH_FRAGMENT));
    this.skin = picture ? 2 : meta.colours ? 1 : 0;
    this.corners = 3 * meta.faces;
    let at = 0;
    this.array = gl.createVertexArray();
    gl.bindVertexArray(this.array);
    const attribute = (location, width, type, normalised) => {
      const size = width * meta.vertices * (type === gl.FLOAT ? 4 : 1);
      gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
      gl.bufferData(gl.ARRAY_BUFFER, bytes.subarray(at, at + size), gl.STATIC_DRAW);
      gl.enableVertexAttribArray(location);
      gl.vertexAttribPointer(location, width, type, normalised, 0, 0);
      at += size;
    };
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, bytes.subarray(0, 4 * this.corners), gl.STATIC_DRAW);
    at = 4 * this.corners;
    attribute(0, 3, gl.FLOAT, false);
    if (meta.uvs) attribute(2, 2, gl.FLOAT, false);
    if (meta.colours) attribute(1, 3, gl.UNSIGNED_BYTE, true);
    gl.bindVertexArray(null);

    this.texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, this.texture);
    if (picture) {
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, picture);
      gl.generateMipmap(gl.TEXTURE_2D);
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR_MIPMAP_LINEAR);
    } else {
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, 1, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
    }
  }

  draw(camera) {
    const gl = this.gl, u = this.uniforms, [fx, fy, cx, cy] = camera.intrinsics;
    gl.useProgram(this.program);
    gl.enable(gl.DEPTH_TEST);
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D, this.texture);
    gl.uniform1i(u.picture, 0);
    gl.uniform1i(u.skin, this.skin);
    gl.uniformMatrix3fv(u.rotation, true, camera.rotation);
    gl.uniform3fv(u.translation, camera.translation);
    gl.uniform2f(u.focal, fx, fy);
    gl.uniform2f(u.centre, cx, cy);
    gl.uniform1f(u.near, camera.near);
    gl.uniform1f(u.far, camera.far);
    gl.bindVertexArray(this.array);
    gl.drawElements(gl.TRIANGLES, this.corners, gl.UNSIGNED_INT, 0);
    gl.bindVertexArray(null);
    gl.disable(gl.DEPTH_TEST);
  }
}
