// A shape on a canvas: WebGL 2, flat shading, coordinates in the cube [-1, 1]^3.

const VERTEX = `#version 300 es
in vec3 place;
in vec4 colour;
uniform mat4 view;
uniform mat4 lens;
out vec3 seen;
out vec3 paint;
void main() {
  vec4 eye = view * vec4(place, 1.0);
  seen = eye.xyz;
  paint = colour.rgb;
  gl_Position = lens * eye;
  gl_PointSize = 4.0;
}`;

// The normal of a face comes from how its place changes from pixel to pixel, so no normals are sent.
const FRAGMENT = `#version 300 es
precision highp float;
in vec3 seen;
in vec3 paint;
uniform bool painted;
uniform bool flat_colour;
uniform vec3 plain;
out vec4 pixel;
void main() {
  vec3 base = painted ? paint : plain;
  if (flat_colour) { pixel = vec4(base, 1.0); return; }
  vec3 normal = normalize(cross(dFdx(seen), dFdy(seen)));
  float key = abs(dot(normal, normalize(vec3(0.35, 0.5, 0.8))));
  float fill = 0.5 + 0.5 * normal.y;
  pixel = vec4(base * (0.22 + 0.68 * key + 0.12 * fill), 1.0);
}`;

const PLAIN = [0.66, 0.7, 0.74];
const EDGE = [0.06, 0.3, 0.28];
const DISTANCE = 3.6;
const FIELD_OF_VIEW = 0.62;

// A mesh.bin of the server: see mesh_buffer.py.
export function readMesh(buffer) {
  const [points, faces, coloured] = new Uint32Array(buffer, 0, 3);
  const places = new Float32Array(buffer, 12, points * 3);
  const corners = new Uint32Array(buffer, 12 + points * 12, faces * 3);
  const colours = coloured ? new Uint8Array(buffer, 12 + points * 12 + faces * 12, points * 4) : null;
  return { points, faces, places, corners, colours };
}

function program(gl) {
  const made = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(made));
  return made;
}

// Each edge once, as pairs of corners.
function edgesOf(corners) {
  const seen = new Set();
  const found = [];
  for (let k = 0; k < corners.length; k += 3) {
    for (const [a, b] of [[corners[k], corners[k + 1]], [corners[k + 1], corners[k + 2]], [corners[k + 2], corners[k]]]) {
      const key = a < b ? a * 4294967296 + b : b * 4294967296 + a;
      if (seen.has(key)) continue;
      seen.add(key);
      found.push(a, b);
    }
  }
  return Uint32Array.from(found);
}

// Column by column, as WebGL has it: turned about the vertical, then tipped, then moved away.
function viewMatrix({ turn, tip, distance }) {
  const [c, s, d, t] = [Math.cos(turn), Math.sin(turn), Math.cos(tip), Math.sin(tip)];
  return new Float32Array([c, t * s, -d * s, 0, 0, d, t, 0, s, -t * c, d * c, 0, 0, 0, -distance, 1]);
}

function lensMatrix(aspect) {
  const [near, far] = [0.1, 20];
  const reach = 1 / Math.tan(FIELD_OF_VIEW / 2);
  const [x, y] = aspect > 1 ? [reach / aspect, reach] : [reach, reach * aspect];
  return new Float32Array([x, 0, 0, 0, 0, y, 0, 0, 0, 0, (near + far) / (near - far), -1, 0, 0, (2 * near * far) / (near - far), 0]);
}

export const STRAIGHT = { turn: -0.6, tip: 0.35, distance: DISTANCE };

export class Turntable {
  // Throws where the browser has no WebGL 2.
  constructor(canvas) {
    this.canvas = canvas;
    const gl = canvas.getContext("webgl2", { antialias: true, preserveDrawingBuffer: true });
    if (!gl) throw new Error("no WebGL 2");
    this.gl = gl;
    this.program = program(gl);
    this.mesh = null;
    this.buffers = ["place", "colour", "corners", "edges"].map(() => gl.createBuffer());
  }

  put(mesh) {
    const { gl } = this;
    const [place, colour, corners] = this.buffers;
    this.mesh = mesh;
    this.edges = null;
    gl.bindBuffer(gl.ARRAY_BUFFER, place);
    gl.bufferData(gl.ARRAY_BUFFER, mesh.places, gl.STATIC_DRAW);
    gl.bindBuffer(gl.ARRAY_BUFFER, colour);
    gl.bufferData(gl.ARRAY_BUFFER, mesh.colours ?? new Uint8Array(mesh.points * 4), gl.STATIC_DRAW);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, corners);
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, mesh.corners, gl.STATIC_DRAW);
  }

  draw(view, { painted, edges }) {
    const { gl, canvas, mesh } = this;
    canvas.width = Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio));
    canvas.height = Math.max(1, Math.round(canvas.clientHeight * devicePixelRatio));
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    if (!mesh || !mesh.points) return;
    gl.enable(gl.DEPTH_TEST);
    gl.useProgram(this.program);
    const at = (name) => gl.getUniformLocation(this.program, name);
    gl.uniformMatrix4fv(at("view"), false, viewMatrix(view));
    gl.uniformMatrix4fv(at("lens"), false, lensMatrix(canvas.width / canvas.height));
    gl.uniform1i(at("painted"), painted && mesh.colours ? 1 : 0);
    gl.uniform3fv(at("plain"), PLAIN);
    const [place, colour, corners, lines] = this.buffers;
    for (const [name, buffer, size, kind, scaled] of [["place", place, 3, gl.FLOAT, false], ["colour", colour, 4, gl.UNSIGNED_BYTE, true]]) {
      const slot = gl.getAttribLocation(this.program, name);
      gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
      gl.enableVertexAttribArray(slot);
      gl.vertexAttribPointer(slot, size, kind, scaled, 0, 0);
    }
    gl.uniform1i(at("flat_colour"), mesh.faces ? 0 : 1);
    if (!mesh.faces) {
      gl.drawArrays(gl.POINTS, 0, mesh.points);
      return;
    }
    // Faces a little behind their edges, which would flicker otherwise.
    gl.enable(gl.POLYGON_OFFSET_FILL);
    gl.polygonOffset(1, 1);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, corners);
    gl.drawElements(gl.TRIANGLES, mesh.faces * 3, gl.UNSIGNED_INT, 0);
    if (!edges) return;
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, lines);
    if (!this.edges) {
      this.edges = edgesOf(mesh.corners);
      gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, this.edges, gl.STATIC_DRAW);
    }
    gl.uniform1i(at("painted"), 0);
    gl.uniform1i(at("flat_colour"), 1);
    gl.uniform3fv(at("plain"), EDGE);
    gl.drawElements(gl.LINES, this.edges.length, gl.UNSIGNED_INT, 0);
  }
}
