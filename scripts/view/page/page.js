// The page of `latentpress view`. The server keeps items (what was dropped) and results (an item compressed);
// every result says of which kind it is, and `renderers` has what shows a kind. Another kind of data, such as
// fields as slices or meshes to turn, is added there and as a bench on the server.

const $ = (id) => document.getElementById(id);
const OWN = "latentpress";
const PATIENCE_MS = 200; // so that a moving slider does not ask for every quality on its way

const state = { offer: null, item: null, results: new Map(), shown: OWN, asked: 0, kind: null };

async function ask(path, options = {}) {
  const response = await fetch(path, { ...options, headers: { "x-latentpress-page": "1", ...options.headers } });
  const answer = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
  if (!response.ok) throw Object.assign(new Error(answer.error), { status: response.status });
  return answer;
}

function say(text, how = "") {
  $("message").textContent = text;
  $("message").className = how;
}

// ---- numbers

const whole = (value) => value.toLocaleString("en-US");
const fixed = (value, digits, absent = "–") => (value === null || value === undefined ? absent : value.toFixed(digits));
const seconds = (value) => (value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(2)} s`);

function row(label) {
  const line = document.createElement("tr");
  const result = state.results.get(label);
  const cells = result
    ? [label, whole(result.bytes), fixed(result.bpp, 3), result.psnr === null ? "∞" : fixed(result.psnr, 2), fixed(result.ms_ssim, 4)]
    : [label, "…", "", "", ""];
  for (const text of cells) line.insertCell().textContent = text;
  line.dataset.codec = label;
  if (result) {
    line.tabIndex = 0;
    line.setAttribute("aria-selected", String(label === state.shown));
    line.addEventListener("click", () => show(label));
    line.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); show(label); }
    });
  } else {
    line.className = "waiting";
  }
  return line;
}

function refresh() {
  $("figures").tBodies[0].replaceChildren(...[OWN, ...state.offer.peers].map(row));
  $("figures").hidden = state.results.size === 0;
  const result = state.results.get(state.shown);
  $("details").hidden = $("download").hidden = !result;
  if (!result) return;
  const { item } = state;
  $("detail-setting").textContent = `quality ${result.setting}`;
  $("detail-encode").textContent = seconds(result.encode_seconds);
  $("detail-decode").textContent = seconds(result.decode_seconds);
  $("detail-original").textContent =
    `${item.width} × ${item.height}, ${item.channels === 1 ? "grey" : "RGB"}, ${whole(item.bytes)} bytes`;
  $("download").href = `api/results/${result.id}/file`;
  $("download").download = result.filename;
  $("download").textContent = `Download ${result.filename}`;
}

function show(label) {
  const result = state.results.get(label);
  if (!result) return;
  state.shown = label;
  renderers[result.kind].show(result);
  refresh();
}

// ---- kinds of data

const picture = {
  zoom: "fit",
  split: 50,

  async open(item) {
    $("drop").hidden = true;
    $("viewer").hidden = false;
    $("right").removeAttribute("src");
    $("left").src = `api/items/${item.id}/shown.png`;
    this.place();
    this.move(50);
  },

  show(result) {
    const source = `api/results/${result.id}/shown.png`;
    // Decoded before it is shown, so that nothing flickers.
    const next = new Image();
    next.src = source;
    next.decode().then(() => {
      if (state.results.get(state.shown) === result) $("right").src = source;
    }).catch(() => say("the decoded picture cannot be shown", "wrong"));
    $("right-tag").textContent = `${result.label}, ${whole(result.bytes)} bytes`;
  },

  place() {
    const { width, height } = state.item;
    const room = $("scroller");
    const space = 40; // its padding
    const fit = Math.min((room.clientWidth - space) / width, (room.clientHeight - space) / height);
    // A small picture is enlarged by whole steps, so that its pixels stay square.
    const scale = this.zoom === "fit" ? (fit > 1 ? Math.max(1, Math.floor(fit)) : fit) : Number(this.zoom) / devicePixelRatio;
    $("canvas").style.setProperty("--width", `${Math.max(1, Math.round(width * scale))}px`);
    $("canvas").style.setProperty("--height", `${Math.max(1, Math.round(height * scale))}px`);
    $("canvas").classList.toggle("pixels", scale * devicePixelRatio >= 2);
    room.scrollLeft = (room.scrollWidth - room.clientWidth) / 2;
    room.scrollTop = (room.scrollHeight - room.clientHeight) / 2;
  },

  move(percent) {
    this.split = Math.min(100, Math.max(0, percent));
    $("canvas").style.setProperty("--split", `${this.split}%`);
    $("divider").setAttribute("aria-valuenow", String(Math.round(this.split)));
  },
};

const renderers = { picture };

function follow(event) {
  const box = $("canvas").getBoundingClientRect();
  picture.move(((event.clientX - box.left) / box.width) * 100);
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
  picture.move(picture.split + step);
});
for (const button of $("zoom").children) {
  button.addEventListener("click", () => {
    picture.zoom = button.dataset.zoom;
    for (const other of $("zoom").children) other.setAttribute("aria-pressed", String(other === button));
    picture.place();
  });
}
new ResizeObserver(() => state.item && picture.place()).observe($("stage"));

// ---- from a file to figures

async function open(file) {
  const turn = ++state.asked;
  say(`Reading ${file.name} …`, "busy");
  try {
    const item = await ask(`api/items?name=${encodeURIComponent(file.name)}`, { method: "POST", body: file });
    if (turn !== state.asked) return;
    state.item = item;
    state.results.clear();
    state.shown = OWN;
    $("file-name").textContent = item.name;
    document.title = `${item.name} – latentpress`;
    const size = Object.values(item.metadata).reduce((sum, part) => sum + part, 0);
    $("metadata-row").hidden = size === 0;
    $("metadata-size").textContent = `(${Object.keys(item.metadata).join(", ")}: ${whole(size)} bytes)`;
    $("notes").replaceChildren(...item.notes.map((note) => Object.assign(document.createElement("li"), { textContent: note })));
    $("bytes").value = "";
    renderers[item.kind].open(item);
    await compress();
  } catch (error) {
    if (turn === state.asked) say(error.message, "wrong");
  }
}

function wanted() {
  const by = new FormData($("controls")).get("by");
  const rate = { codec: $("codec").value, keep_metadata: $("metadata").checked };
  if (by === "quality") return { ...rate, quality: Number($("quality-number").value) };
  return { ...rate, target_bytes: Math.round(Number($("bytes").value)) };
}

async function compress() {
  if (!state.item) return;
  const turn = ++state.asked;
  const current = () => turn === state.asked;
  say("Compressing …", "busy");
  const body = JSON.stringify(wanted());
  try {
    const own = await ask(`api/items/${state.item.id}/results`, { method: "POST", body });
    if (!current()) return;
    state.results.clear();
    state.results.set(OWN, own);
    if (!$("bytes").value) $("bytes").value = own.bytes;
    const before = state.shown;
    show(OWN);
    for (const peer of state.offer.peers) {
      say(`Comparing with ${peer} …`, "busy");
      const result = await ask(`api/results/${own.id}/peers/${peer}`, { method: "POST" });
      if (!current()) return;
      state.results.set(peer, result);
      if (peer === before) show(peer); else refresh();
    }
    say("");
  } catch (error) {
    // A 409 says that a newer request has taken the place of this one.
    if (current() && error.status !== 409) say(error.message, "wrong");
  }
}

let later = 0;
function soon() {
  clearTimeout(later);
  later = setTimeout(compress, PATIENCE_MS);
}

$("quality").addEventListener("input", () => { $("quality-number").value = $("quality").value; soon(); });
$("quality-number").addEventListener("input", () => {
  if (!$("quality-number").validity.valid || $("quality-number").value === "") return;
  $("quality").value = $("quality-number").value;
  soon();
});
$("bytes").addEventListener("input", () => { if ($("bytes").validity.valid && $("bytes").value) soon(); });
$("codec").addEventListener("change", compress);
$("metadata").addEventListener("change", compress);
for (const choice of document.querySelectorAll("input[name=by]")) {
  choice.addEventListener("change", () => {
    $("by-quality").hidden = choice.value !== "quality";
    $("by-bytes").hidden = choice.value !== "bytes";
    compress();
  });
}
$("controls").addEventListener("submit", (event) => { event.preventDefault(); compress(); });

for (const opener of [$("choose"), $("drop")]) opener.addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => { if ($("file").files.length) open($("file").files[0]); $("file").value = ""; });
for (const type of ["dragover", "dragenter"]) {
  addEventListener(type, (event) => { event.preventDefault(); $("stage").classList.add("over"); });
}
addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("stage").classList.remove("over"); });
addEventListener("drop", (event) => {
  event.preventDefault();
  $("stage").classList.remove("over");
  if (event.dataTransfer.files.length) open(event.dataTransfer.files[0]);
});
addEventListener("paste", (event) => { if (event.clipboardData.files.length) open(event.clipboardData.files[0]); });

state.offer = await ask("api/offer").catch((error) => { say(error.message, "wrong"); return { codecs: [], peers: [] }; });
$("codec").replaceChildren(...state.offer.codecs.map(({ name, title }) => new Option(title, name)));
