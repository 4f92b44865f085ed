// Numbers as people read them.

export const whole = (value) => value.toLocaleString("en-US");
export const fixed = (value, digits) => (value === null || value === undefined ? "–" : value.toFixed(digits));
export const seconds = (value) => (value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(2)} s`);
export const decibels = (value) => (value === null ? "∞" : value.toFixed(2));

// Three digits, with an exponent where that is shorter.
export function short(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e-3 && size < 1e5) return String(Number(value.toPrecision(3)));
  return value.toExponential(1).replace(".0e", "e").replace("e+", "e");
}
