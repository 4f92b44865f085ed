// The controls that say how small a file is to be: each codec has some of the rates, each rate some of the rows.

const $ = (id) => document.getElementById(id);
const NAMES = { quality: "Quality", bytes: "Bytes", bound: "Bound", ratio: "Ratio" };

let codec = null;

const chosen = () => document.querySelector("#rates input:checked")?.value;

function showRows() {
  const by = chosen();
  for (const row of document.querySelectorAll("#controls [data-rate]")) {
    row.hidden = !row.dataset.rate.split(" ").includes(by);
  }
  for (const part of document.querySelectorAll("#controls .effort")) part.hidden = !codec?.effort;
  $("realistic-row").hidden = !codec?.realistic;
}

// Offers what a codec can do, and keeps what was chosen where it can do that too.
export function offerRates(next, changed) {
  const before = chosen();
  codec = next;
  $("rates").replaceChildren(...(codec?.rates ?? []).map((name) => {
    const label = Object.assign(document.createElement("label"), { className: "choice" });
    const input = Object.assign(document.createElement("input"), { type: "radio", name: "by", value: name });
    input.addEventListener("change", () => { showRows(); changed(); });
    label.append(input, ` ${NAMES[name]}`);
    return label;
  }));
  const inputs = [...document.querySelectorAll("#rates input")];
  const kept = inputs.find((input) => input.value === before) ?? inputs[0];
  if (kept) kept.checked = true;
  $("ratio").replaceChildren(...(codec?.ratios ?? []).map((ratio) => new Option(`${ratio} samples for one`, ratio)));
  if (codec?.ratios.includes(64)) $("ratio").value = 64;
  showRows();
}

// What the server is asked for; null while a control holds nothing that makes sense.
export function wantedRate() {
  if (!codec) return null;
  const rate = { codec: codec.name, keep_metadata: $("metadata").checked };
  if (codec.effort) rate.effort = Number($("effort").value);
  const by = chosen();
  if (by === "bytes") {
    const bytes = Math.round(Number($("bytes").value));
    return $("bytes").validity.valid && bytes >= 1 ? { ...rate, target_bytes: bytes } : null;
  }
  if (by === "bound") {
    const bound = Number($("bound-number").value);
    return $("bound-number").value.trim() && bound >= 0 && Number.isFinite(bound) ? { ...rate, relative_error: bound } : null;
  }
  if (!$("quality-number").validity.valid || $("quality-number").value === "") return null;
  rate.quality = Number($("quality-number").value);
  if (by === "quality") return rate;
  return { ...rate, ratio: Number($("ratio").value), realistic: $("realistic").checked };
}

// Before anything is compressed nobody knows which number of bytes makes sense.
export function suggestBytes(bytes) {
  if (!$("bytes").value) $("bytes").value = bytes;
}

export function forgetBytes() {
  $("bytes").value = "";
}

// `soon` is for what moves, `now` for what has been decided.
export function connectRates(soon, now) {
  $("quality").addEventListener("input", () => { $("quality-number").value = $("quality").value; soon(); });
  $("quality-number").addEventListener("input", () => { $("quality").value = $("quality-number").value; soon(); });
  $("bound").addEventListener("input", () => {
    $("bound-number").value = String(Number((10 ** Number($("bound").value)).toPrecision(2)));
    soon();
  });
  $("bound-number").addEventListener("input", () => {
    const bound = Number($("bound-number").value);
    if (bound > 0) $("bound").value = Math.log10(bound);
    soon();
  });
  $("bytes").addEventListener("input", soon);
  $("effort").addEventListener("input", () => { $("effort-number").value = $("effort").value; soon(); });
  for (const id of ["ratio", "realistic", "metadata"]) $(id).addEventListener("change", now);
}
