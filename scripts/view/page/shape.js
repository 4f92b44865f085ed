// What was dropped and what came back, side by side, turned together.

import { fixed, whole } from "./numbers.js";
import { fetchBuffer, partOf } from "./server.js";
import { readMesh, STRAIGHT, Turntable } from "./turntable.js";

const $ = (id) => document.getElementById(id);

let item = null;
let shown = null;
let tables = null;
let view = { ...STRAIGHT };

function start() {
  if (tables) return true;
  try {
    tables = { original: new Turntable($("shape-original")), decoded: new Turntable($("shape-decoded")) };
  } catch {
    $("no-webgl").hidden = false;
    return false;
  }
  return true;
}

let waiting = false;
function draw() {
  if (!tables || waiting || $("shape").hidden) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    const how = { painted: pressed("colours"), edges: pressed("edges") };
    for (const table of Object.values(tables)) table.draw(view, how);
  });
}

const pressed = (id) => $(id).getAttribute("aria-pressed") === "true";

function turn(across, down) {
  view.turn += across;
  view.tip = Math.min(1.5, Math.max(-1.5, view.tip + down));
  $("shape").dataset.turn = view.turn.toFixed(3);
  draw();
}

for (const canvas of [$("shape-original"), $("shape-decoded")]) {
  let last = null;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    last = event;
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!canvas.hasPointerCapture(event.pointerId) || !last) return;
    turn((event.clientX - last.clientX) * 0.01, (event.clientY - last.clientY) * 0.01);
    last = event;
  });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    view.distance = Math.min(12, Math.max(1.2, view.distance * Math.exp(event.deltaY * 0.001)));
    draw();
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] }[event.key];
    if (!step) return;
    event.preventDefault();
    turn(...step);
  });
}
for (const id of ["colours", "edges"]) {
  $(id).addEventListener("click", () => {
    $(id).setAttribute("aria-pressed", String(!pressed(id)));
    draw();
  });
}
$("front").addEventListener("click", () => { view = { ...STRAIGHT }; turn(0, 0); });

export const shape = {
  columns: [
    ["Chamfer", "Mean distance between the two surfaces, where the longest side is 2", (result) => fixed(result.chamfer, 4)],
    ["points", "Vertices of the decoded mesh", (result) => whole(result.points)],
    ["faces", "Triangles of the decoded mesh", (result) => whole(result.faces)],
  ],

  facts: ({ points, faces, coloured, bytes }) =>
    `${whole(points)} points, ${whole(faces)} faces${coloured ? ", coloured" : ""}, ${whole(bytes)} bytes`,

  async open(next) {
    item = next;
    shown = null;
    view = { ...STRAIGHT };
    delete $("shape").dataset.drawn;
    $("colours").hidden = !item.coloured;
    if (!start()) return;
    tables.decoded.put(readMesh(new ArrayBuffer(12)));
    const buffer = await fetchBuffer(partOf("items", item.id, "mesh.bin"));
    if (item !== next) return;
    tables.original.put(readMesh(buffer));
    draw();
  },

  async show(result) {
    shown = result;
    $("shape-tag").textContent = `${result.label}, ${whole(result.bytes)} bytes`;
    if (!tables) return;
    const buffer = await fetchBuffer(partOf("results", result.id, "mesh.bin"));
    if (shown !== result) return;
    tables.decoded.put(readMesh(buffer));
    draw();
    $("shape").dataset.drawn = result.id;
  },

  place: draw,
};
