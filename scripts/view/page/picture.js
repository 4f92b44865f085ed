// A decoded picture behind the original, with a boundary that moves.

import { decibels, fixed, whole } from "./numbers.js";
import { partOf } from "./server.js";

const $ = (id) => document.getElementById(id);

let item = null;
let shown = null;
let zoom = "fit";
let split = 50;

function place() {
  if (!item || $("picture").hidden) return;
  const room = $("scroller");
  const space = 40; // its padding
  const fit = Math.min((room.clientWidth - space) / item.width, (room.clientHeight - space) / item.height);
  // A small picture is enlarged by whole steps, so that its pixels stay square.
  const whole = fit > 1 ? Math.max(1, Math.floor(fit)) : fit;
  const scale = zoom === "fit" ? whole : Number(zoom) / devicePixelRatio;
  $("canvas").style.setProperty("--width", `${Math.max(1, Math.round(item.width * scale))}px`);
  $("canvas").style.setProperty("--height", `${Math.max(1, Math.round(item.height * scale))}px`);
  $("canvas").classList.toggle("pixels", scale * devicePixelRatio >= 2);
  room.scrollLeft = (room.scrollWidth - room.clientWidth) / 2;
  room.scrollTop = (room.scrollHeight - room.clientHeight) / 2;
}

function move(percent) {
  split = Math.min(100, Math.max(0, percent));
  $("canvas").style.setProperty("--split", `${split}%`);
  $("divider").setAttribute("aria-valuenow", String(Math.round(split)));
}

function follow(event) {
  const box = $("canvas").getBoundingClientRect();
  move(((event.clientX - box.left) / box.width) * 100);
}

$("canvas").addEventListener("pointerdown", (event) => {
  $("canvas").setPointerCapture(event.pointerId);
  follow(event);
});
$("canvas").addEventListener("pointermove", (event) => {
  if ($("canvas").hasPointerCapture(event.pointerId)) follow(event);
});
$("divider").addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1, PageDown: -10, PageUp: 10, Home: -100, End: 100 }[event.key];
  if (step === undefined) return;
  event.preventDefault();
  move(split + step);
});
for (const button of $("zoom").children) {
  button.addEventListener("click", () => {
    zoom = button.dataset.zoom;
    for (const other of $("zoom").children) other.setAttribute("aria-pressed", String(other === button));
    place();
  });
}

export const picture = {
  columns: [
    ["bpp", "Bits per pixel", (result) => fixed(result.bpp, 3)],
    ["PSNR dB", "Peak signal-to-noise ratio over 8-bit samples, dB", (result) => decibels(result.psnr)],
    ["MS-SSIM", "Multi-scale structural similarity; not defined under 161 pixels", (result) => fixed(result.ms_ssim, 4)],
  ],

  facts: ({ width, height, channels, bytes }) =>
    `${width} × ${height}, ${channels === 1 ? "grey" : channels === 3 ? "RGB" : `${channels} channels`}, ${whole(bytes)} bytes`,

  open(next) {
    item = next;
    $("right").removeAttribute("src");
    $("left").src = partOf("items", item.id, "shown.png");
    place();
    move(50);
  },

  async show(result) {
    shown = result;
    $("right-tag").textContent = `${result.label}, ${whole(result.bytes)} bytes`;
    const source = partOf("results", result.id, "shown.png");
    // Decoded before it is shown, so that nothing flickers.
    const next = new Image();
    next.src = source;
    await next.decode();
    if (shown === result) $("right").src = source;
  },

  place,
};
