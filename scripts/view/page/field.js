// Slices of a field, of what came back and of the error, and their energy spectra.

import { decibels, fixed, short, whole } from "./numbers.js";
import { plot } from "./plot.js";
import { ask, fetchBuffer, partOf } from "./server.js";

const $ = (id) => document.getElementById(id);

let item = null;
let shown = null;
let colours = null; // 256 colours for values and for errors, as the pixels of a canvas
let axis = 0;
let drawn = 0;

const solid = () => item.shape.length === 4;

function packed(table) {
  return Uint32Array.from(table, ([red, green, blue]) => (255 << 24) | (blue << 16) | (green << 8) | red);
}

async function loadColours() {
  if (colours) return;
  const tables = await ask("api/colours");
  colours = { values: packed(tables.sequential), errors: packed(tables.diverging) };
  paint($("value-scale"), Float32Array.from({ length: 256 }, (_, k) => k), 256, [0, 255], colours.values);
  paint($("error-scale"), Float32Array.from({ length: 256 }, (_, k) => k), 256, [0, 255], colours.errors);
}

function paint(canvas, values, width, [low, high], table) {
  canvas.width = width;
  canvas.height = values.length / width;
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  const pixels = new Uint32Array(image.data.buffer);
  const scale = high > low ? 255 / (high - low) : 0;
  for (let k = 0; k < values.length; k++) {
    const level = Math.round((values[k] - low) * scale);
    // What is not finite stays transparent.
    pixels[k] = Number.isFinite(values[k]) ? table[Math.min(255, Math.max(0, level))] : 0;
  }
  context.putImageData(image, 0, 0);
}

// Rows and columns of a slice: the axes that are left.
function sizes() {
  const [rows, columns] = solid() ? item.shape.slice(1).filter((_, k) => k !== axis) : item.shape.slice(1);
  return { rows, columns };
}

async function draw() {
  if (!item) return;
  const turn = ++drawn;
  const query = { component: $("component").value || 0, axis, index: $("slice").value };
  const load = (source, id) => fetchBuffer(partOf(source, id, "slice.f32", query)).then((buffer) => new Float32Array(buffer));
  await loadColours();
  const [original, decoded] = await Promise.all([
    load("items", item.id), shown ? load("results", shown.id) : null,
  ]);
  if (turn !== drawn) return;
  const { columns } = sizes();
  const range = item.ranges[query.component];
  paint($("field-original"), original, columns, range, colours.values);
  $("value-low").textContent = short(range[0]);
  $("value-high").textContent = short(range[1]);
  $("slice-number").value = `${query.index}`;
  if (!decoded) return;
  paint($("field-decoded"), decoded, columns, range, colours.values);
  const error = decoded.map((value, k) => value - original[k]);
  const largest = error.reduce((most, value) => (Math.abs(value) > most ? Math.abs(value) : most), 0);
  paint($("field-error"), error, columns, [-largest || -1, largest || 1], colours.errors);
  $("error-low").textContent = short(-largest);
  $("error-high").textContent = short(largest);
  $("field").dataset.drawn = shown.id;
}

function place() {
  if (!item || $("field").hidden) return;
  const { rows, columns } = sizes();
  $("slices").style.setProperty("--ratio", String(columns / rows));
}

function drawSpectrum() {
  if (!shown) return;
  const { wavenumbers, original, decoded, error } = shown.spectra;
  plot($("spectrum"), wavenumbers, [
    { name: "original", y: original }, { name: shown.label, y: decoded }, { name: "error", y: error },
  ]);
}

function chooseAxis(next) {
  axis = next;
  for (const button of $("axis").children) button.setAttribute("aria-pressed", String(Number(button.dataset.axis) === axis));
  const count = solid() ? item.shape[axis + 1] : 1;
  $("slice").max = count - 1;
  $("slice").value = Math.floor(count / 2);
  place();
}

for (const button of $("axis").children) {
  button.addEventListener("click", () => { chooseAxis(Number(button.dataset.axis)); draw(); });
}
$("component").addEventListener("change", draw);
$("slice").addEventListener("input", draw);
new ResizeObserver(drawSpectrum).observe($("spectrum"));

export const field = {
  columns: [
    ["ratio", "Bytes of the values over bytes of the file", (result) => fixed(result.ratio, 1)],
    ["PSNR dB", "Peak signal-to-noise ratio, the peak being the range of the values, dB", (result) => decibels(result.psnr)],
    ["largest", "Largest error of any value, as a part of the range", (result) => short(result.relative)],
  ],

  facts: ({ shape, dtype, values_bytes: bytes }) =>
    `${shape[0]} × (${shape.slice(1).join(" × ")}), ${dtype}, ${whole(bytes)} bytes`,

  open(next) {
    item = next;
    shown = null;
    delete $("field").dataset.drawn;
    $("component").replaceChildren(...item.ranges.map((_, k) => new Option(k + 1, k)));
    $("component").parentElement.hidden = item.ranges.length < 2;
    $("axis").hidden = $("slice-row").hidden = !solid();
    chooseAxis(0);
    return draw();
  },

  show(result) {
    shown = result;
    $("field-tag").textContent = `${result.label}, ${whole(result.bytes)} bytes`;
    drawSpectrum();
    return draw();
  },

  place,
};
