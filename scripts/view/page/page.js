// The page of `latentpress view`. The server keeps items (what was dropped) and results (an item compressed);
// both say of which kind they are, and `renderers` has what shows a kind.

import { field } from "./field.js";
import { seconds, whole } from "./numbers.js";
import { picture } from "./picture.js";
import { connectRates, forgetBytes, offerRates, suggestBytes, wantedRate } from "./rate.js";
import { ask } from "./server.js";
import { shape } from "./shape.js";

const $ = (id) => document.getElementById(id);
const OWN = "latentpress";
const PATIENCE_MS = 200; // so that a moving slider does not ask for every quality on its way
const PROGRESS_MS = 400;

const renderers = { picture, field, shape };
const PLURAL = { picture: "Pictures", field: "Fields", shape: "Shapes" };
const state = { offer: null, item: null, results: new Map(), failed: new Map(), shown: OWN, asked: 0 };

function say(text, how = "") {
  $("message").textContent = text;
  $("message").className = how;
}

function make(name, text = "", properties = {}) {
  return Object.assign(document.createElement(name), { textContent: text, ...properties });
}

// ---- codecs

const codecs = () => state.offer.codecs.filter(({ kind }) => !state.item || kind === state.item.kind);
const codec = () => state.offer.codecs.find(({ name }) => name === $("codec").value) ?? null;

// Those for the kind of data at hand, with those that are not to be had greyed out; without data, all.
function offerCodecs() {
  const before = $("codec").value;
  const kinds = Object.keys(renderers).filter((kind) => !state.item || kind === state.item.kind);
  $("codec").replaceChildren(...kinds.map((kind) => {
    const group = make("optgroup", "", { label: PLURAL[kind] });
    for (const { name, title } of state.offer.codecs.filter((offered) => offered.kind === kind)) group.append(new Option(title, name));
    for (const { title } of state.offer.withheld.filter((withheld) => withheld.kind === kind)) {
      group.append(make("option", title, { disabled: true, value: "" }));
    }
    return group;
  }));
  if (codecs().some(({ name }) => name === before)) $("codec").value = before;
  const withheld = state.offer.withheld.filter(({ kind }) => kinds.includes(kind));
  $("withheld").hidden = !withheld.length;
  $("withheld").replaceChildren(
    make("p", "Not offered"),
    ...withheld.map(({ title, reason }) => {
      const line = make("p");
      line.append(make("b", title), ` – ${reason}`);
      return line;
    }),
  );
  offerRates(codec(), compress);
}

// ---- figures

const peers = () => state.offer.peers[state.item.kind];

function row(label) {
  const line = document.createElement("tr");
  const result = state.results.get(label);
  const { columns } = renderers[state.item.kind];
  line.insertCell().textContent = label;
  line.insertCell().textContent = result ? whole(result.bytes) : state.failed.has(label) ? "none" : "…";
  for (const [, , text] of columns) line.insertCell().textContent = result ? text(result) : "";
  line.dataset.codec = label;
  if (state.failed.has(label)) line.title = state.failed.get(label);
  if (!result) {
    line.className = "waiting";
    return line;
  }
  line.tabIndex = 0;
  line.setAttribute("aria-selected", String(label === state.shown));
  line.addEventListener("click", () => show(label));
  line.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); show(label); }
  });
  return line;
}

function refresh() {
  const { item } = state;
  const { columns, facts } = renderers[item.kind];
  $("figures").tHead.rows[0].replaceChildren(
    ...[["Codec", ""], ["Bytes", "Of the file"], ...columns].map(([head, title]) => {
      const cell = make("th", "", { scope: "col" });
      cell.append(make("abbr", head, { title }));
      return cell;
    }),
  );
  $("figures").tBodies[0].replaceChildren(...[OWN, ...peers()].map(row));
  $("figures").hidden = state.results.size === 0;
  $("caption").textContent = peers().length
    ? "Of the others, the largest file that is not larger than ours. Select a row to see it."
    : "";
  const result = state.results.get(state.shown);
  $("details").hidden = $("download").hidden = !result;
  if (!result) return;
  const lines = {
    Setting: result.setting, Encoding: seconds(result.encode_seconds), Decoding: seconds(result.decode_seconds),
    Original: facts(item),
  };
  $("details").replaceChildren(...Object.entries(lines).flatMap(([name, text]) => [make("dt", name), make("dd", text)]));
  $("download").href = `api/results/${result.id}/file`;
  $("download").download = result.filename;
  $("download").textContent = `Download ${result.filename}`;
}

function show(label) {
  const result = state.results.get(label);
  if (!result) return;
  state.shown = label;
  Promise.resolve(renderers[result.kind].show(result)).catch((error) => say(`this cannot be shown: ${error.message}`, "wrong"));
  refresh();
}

// ---- from a file to figures

async function open(name, asked) {
  const turn = ++state.asked;
  say(`Reading ${name} …`, "busy");
  try {
    const item = await asked();
    if (turn !== state.asked) return;
    state.item = item;
    state.results.clear();
    state.failed.clear();
    state.shown = OWN;
    $("file-name").textContent = item.name;
    document.title = `${item.name} – latentpress`;
    const metadata = Object.entries(item.metadata ?? {});
    $("metadata-row").hidden = !metadata.length;
    $("metadata-size").textContent =
      `(${metadata.map(([kind]) => kind).join(", ")}: ${whole(metadata.reduce((sum, [, size]) => sum + size, 0))} bytes)`;
    $("notes").replaceChildren(...item.notes.map((note) => make("li", note)));
    forgetBytes();
    offerCodecs();
    $("drop").hidden = true;
    for (const kind of Object.keys(renderers)) $(kind).hidden = kind !== item.kind;
    $("figures").hidden = $("details").hidden = $("download").hidden = true;
    await renderers[item.kind].open(item);
    await compress();
  } catch (error) {
    if (turn === state.asked) say(error.message, "wrong");
  }
}

const openFile = (file) =>
  open(file.name, () => ask(`api/items?name=${encodeURIComponent(file.name)}`, { method: "POST", body: file }));

async function compress() {
  const rate = wantedRate();
  if (!state.item || !rate) return;
  const turn = ++state.asked;
  const current = () => turn === state.asked;
  const { item } = state;
  say("Compressing …", "busy");
  const telling = setInterval(async () => {
    const { fraction, stage } = await ask(`api/items/${item.id}/progress`).catch(() => ({}));
    if (current() && stage && $("message").className === "busy" && !state.comparing) {
      say(`Compressing … ${stage}${fraction > 0 ? `, ${Math.round(fraction * 100)} %` : ""}`, "busy");
    }
  }, PROGRESS_MS);
  state.comparing = false;
  try {
    const own = await ask(`api/items/${item.id}/results`, { method: "POST", body: JSON.stringify(rate) });
    if (!current()) return;
    state.comparing = true;
    state.results.clear();
    state.failed.clear();
    state.results.set(OWN, own);
    suggestBytes(own.bytes);
    const before = state.shown;
    show(OWN);
    for (const peer of peers()) {
      say(`Comparing with ${peer} …`, "busy");
      const result = await ask(`api/results/${own.id}/peers/${peer}`, { method: "POST" }).catch((error) => {
        if (error.status !== 422) throw error;
        return { refused: error.message }; // this one cannot; the others may
      });
      if (!current()) return;
      if (result.refused) state.failed.set(peer, result.refused);
      else state.results.set(peer, result);
      if (peer === before && !result.refused) show(peer); else refresh();
    }
    say("");
  } catch (error) {
    // A 409 says that a newer request has taken the place of this one.
    if (current() && error.status !== 409) say(error.message, "wrong");
  } finally {
    clearInterval(telling);
  }
}

let later = 0;
function soon() {
  clearTimeout(later);
  later = setTimeout(compress, PATIENCE_MS);
}

connectRates(soon, compress);
$("codec").addEventListener("change", () => { offerRates(codec(), compress); compress(); });
$("controls").addEventListener("submit", (event) => { event.preventDefault(); compress(); });
new ResizeObserver(() => state.item && renderers[state.item.kind].place()).observe($("stage"));

$("choose").addEventListener("click", () => $("file").click());
$("drop").addEventListener("click", (event) => { if (!event.target.closest("button")) $("file").click(); });
$("file").addEventListener("change", () => { if ($("file").files.length) openFile($("file").files[0]); $("file").value = ""; });
for (const type of ["dragover", "dragenter"]) {
  addEventListener(type, (event) => { event.preventDefault(); $("stage").classList.add("over"); });
}
addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("stage").classList.remove("over"); });
addEventListener("drop", (event) => {
  event.preventDefault();
  $("stage").classList.remove("over");
  if (event.dataTransfer.files.length) openFile(event.dataTransfer.files[0]);
});
addEventListener("paste", (event) => { if (event.clipboardData.files.length) openFile(event.clipboardData.files[0]); });

state.offer = await ask("api/offer").catch((error) => {
  say(error.message, "wrong");
  return { codecs: [], withheld: [], peers: {}, samples: [] };
});
offerCodecs();
const samples = state.offer.samples.filter(({ kind }) => state.offer.codecs.some((offered) => offered.kind === kind));
for (const { name, title } of samples) {
  const button = make("button", title, { type: "button", className: "sample" });
  button.dataset.sample = name;
  button.addEventListener("click", () => open(title, () => ask(`api/samples/${name}`, { method: "POST" })));
  $("samples").append(button, " ");
}
