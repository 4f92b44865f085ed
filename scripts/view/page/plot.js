// Curves in a plane with two logarithmic axes, as SVG.

const SPACE = { left: 58, right: 12, top: 10, bottom: 26 };
const NAMESPACE = "http://www.w3.org/2000/svg";

function element(name, attributes, text = "") {
  const made = document.createElementNS(NAMESPACE, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

function decades(low, high, most) {
  const first = Math.ceil(Math.log10(low) - 1e-9);
  const last = Math.floor(Math.log10(high) + 1e-9);
  const step = Math.max(1, Math.ceil((last - first + 1) / most));
  const found = [];
  for (let power = first; power <= last; power += step) found.push(power);
  return found;
}

const SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";
const power = (n) => `10${n < 0 ? "⁻" : ""}${[...String(Math.abs(n))].map((digit) => SUPERSCRIPTS[digit]).join("")}`;

// curves: [{ name, y }], all over the same x. Values that are not positive are left out.
export function plot(holder, x, curves) {
  const width = Math.max(240, holder.clientWidth);
  const height = Math.max(120, holder.clientHeight);
  const values = curves.flatMap(({ y }) => y.filter((value) => value > 0));
  const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img" });
  svg.append(element("title", {}, `${curves.map(({ name }) => name).join(", ")} by wavenumber`));
  holder.replaceChildren(svg);
  if (!values.length || x.length < 2) return;
  const high = Math.max(...values);
  // What is fourteen orders below is rounding.
  const low = Math.max(Math.min(...values), high * 1e-14);
  const ends = { x: [Math.log10(x[0]), Math.log10(x.at(-1))], y: [Math.log10(low), Math.log10(high) + 0.1] };
  const right = width - SPACE.right;
  const bottom = height - SPACE.bottom;
  const atX = (value) => SPACE.left + ((Math.log10(value) - ends.x[0]) / (ends.x[1] - ends.x[0])) * (right - SPACE.left);
  const atY = (value) => bottom - ((Math.log10(value) - ends.y[0]) / (ends.y[1] - ends.y[0] || 1)) * (bottom - SPACE.top);
  for (const n of decades(low, high, Math.max(2, Math.floor((bottom - SPACE.top) / 26)))) {
    const y = atY(10 ** n);
    svg.append(element("line", { class: "grid", x1: SPACE.left, x2: right, y1: y, y2: y }));
    svg.append(element("text", { x: SPACE.left - 8, y: y + 4, "text-anchor": "end" }, power(n)));
  }
  for (const tick of [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000].filter((k) => k >= x[0] && k <= x.at(-1))) {
    svg.append(element("line", { class: "grid", x1: atX(tick), x2: atX(tick), y1: SPACE.top, y2: bottom }));
    svg.append(element("text", { x: atX(tick), y: height - 8, "text-anchor": "middle" }, String(tick)));
  }
  curves.forEach(({ name, y }, number) => {
    const points = y.map((value, k) => (value >= low ? `${atX(x[k]).toFixed(1)},${atY(value).toFixed(1)}` : null));
    svg.append(element("polyline", { class: `curve curve-${number}`, points: points.filter(Boolean).join(" ") }));
    const line = SPACE.top + 14 + 18 * number; // curves fall, so there is room above on the right
    svg.append(element("line", { class: `curve curve-${number}`, x1: right - 110, x2: right - 86, y1: line, y2: line }));
    svg.append(element("text", { x: right - 78, y: line + 4 }, name));
  });
}
