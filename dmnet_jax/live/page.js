// Shows the engine's events and sends the viewer's commands.
"use strict";
const $ = (id) => document.getElementById(id);
const OLD_AFTER = 2000, STEP = 2;  // milliseconds; seconds that an arrow key moves
let about = null, event = null, points = [], thumbs = {}, drawn = null, seen = 0, rates = [];
let busy = false, held = null, choosing = false, seeking = false, recorder = null;
const hidden = new Set();  // classes that are not painted

const rgb = (color) => `rgb(${color.join(",")})`;
const inkOn = ([r, g, b]) => 0.3 * r + 0.59 * g + 0.11 * b > 110 ? "#141414" : "#fff";
function picture(address) {
  const image = new Image();
  image.src = address;
  return image.decode().then(() => image);
}
function text(id, value) { if ($(id).textContent !== value) $(id).textContent = value; }
function press(id, on) { $(id).setAttribute("aria-pressed", Boolean(on)); }
function clock(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

// ---- what is shown

function begin(message) {
  about = message.about;
  points = message.history;
  thumbs = {};
  for (const part of document.querySelectorAll(".remembers")) part.hidden = !about.global_memory;
  for (const part of document.querySelectorAll(".adjusts")) part.hidden ||= !about.compiled;
  $("memories").hidden = !about.compiled || !(about.local_memory || about.global_memory);
  $("local-part").hidden = !about.local_memory;
  $("global-part").hidden = !about.global_memory;
  $("trust-part").hidden = !about.state;
  $("forget-window").hidden = !about.local_memory;
  $("forget-all").hidden = !(about.local_memory || about.global_memory || about.state);
  $("compare").hidden = !about.can_compare;
  $("source").replaceChildren(...Object.entries(about.sources).map(([name, shown]) => new Option(shown, name)));
  $("legend").replaceChildren(...about.classes.slice(1).map(legendItem));
  $("degrade").replaceChildren(...about.degrade.kinds.map((kind) => {
    const button = document.createElement("button");
    button.value = kind;
    button.textContent = kind.replace("_", " ");
    button.onclick = () => send({degrade: kind, severity: Number($("severity").value)});
    return button;
  }));
}

function legendItem(info, index) {
  const item = document.createElement("li"), button = document.createElement("button");
  button.innerHTML = "<b></b><span></span><span class='number soft'></span><i><u></u></i>";
  button.title = "Shows or hides this class";
  const [box, name] = button.children;
  box.textContent = index + 1;
  name.textContent = info.name;
  box.style.background = rgb(info.color);
  box.style.color = inkOn(info.color);
  button.querySelector("u").style.background = rgb(info.color);
  button.setAttribute("aria-pressed", !hidden.has(index + 1));
  button.onclick = () => {
    hidden.has(index + 1) ? hidden.delete(index + 1) : hidden.add(index + 1);
    button.setAttribute("aria-pressed", !hidden.has(index + 1));
    paint();
  };
  item.append(button);
  return item;
}

async function show(message) {
  event = message;
  for (const name in thumbs)
    if (!message.local?.includes(name) && !message.global?.includes(name)) delete thumbs[name];
  Object.assign(thumbs, message.thumbs);
  $("trouble").hidden = !message.error;
  if (message.error) text("trouble", `The video stopped: ${message.error}`);
  $("notice").hidden = !message.notice;
  if (message.notice) text("notice", message.notice);
  if (message.point && message.point[0] !== points.at(-1)?.[0]) {
    points.push(message.point);
    if (points.length > HISTORY) points.shift();
    rates.push(performance.now());
    rates = rates.filter((time) => time > performance.now() - 3000);
  }
  seen = performance.now();
  if (!message.image || busy) return;
  busy = true;
  try {
    const [image, mask, trust, single] = await Promise.all(
      [message.image, message.mask, message.trust?.image, message.single?.mask]
        .map((address) => address && picture(address)));
    drawn = {image, mask, trust, places: message.places ?? [], single, singlePlaces: message.single?.places ?? []};
    paint();
    describe(message);
    if (message.point) curves();
  } finally { busy = false; }
}

function copy(id, image) {
  const canvas = $(id), to = canvas.getContext("2d");
  if (canvas.width !== image.width || canvas.height !== image.height) {
    canvas.width = image.width;
    canvas.height = image.height;
  }
  to.globalAlpha = 1;
  to.drawImage(image, 0, 0);
  return to;
}

function paint() {
  if (!drawn) return;
  paintOn("video", drawn.mask, drawn.places);
  if (!$("single-screen").hidden) paintOn("single", drawn.single, drawn.singlePlaces);
  $("trust").style.opacity = drawn.trust ? 1 : 0.2;
  if (drawn.trust) copy("trust", drawn.trust);
}

function paintOn(id, mask, places) {
  const to = copy(id, drawn.image), opacity = $("opacity").value / 100;
  if (!mask || opacity === 0) return;
  to.globalAlpha = opacity;
  to.drawImage(hidden.size ? withoutHidden(mask) : mask, 0, 0);
  to.globalAlpha = 1;
  const size = Math.max(11, Math.round(drawn.image.height / 26));
  to.font = `600 ${size}px system-ui, sans-serif`;
  to.textAlign = "center"; to.textBaseline = "middle"; to.lineJoin = "round";
  to.lineWidth = size / 4; to.strokeStyle = "#141414"; to.fillStyle = "#fff";
  for (const [label, x, y] of places) {
    if (hidden.has(label)) continue;
    to.strokeText(label, x, y);
    to.fillText(label, x, y);
  }
}

function withoutHidden(mask) {
  const canvas = document.createElement("canvas");
  canvas.width = mask.width;
  canvas.height = mask.height;
  const to = canvas.getContext("2d", {willReadFrequently: true});
  to.drawImage(mask, 0, 0);
  const pixels = to.getImageData(0, 0, mask.width, mask.height), data = pixels.data;
  const colors = new Set([...hidden].map((label) => about.classes[label]?.color)
    .filter(Boolean).map(([r, g, b]) => r << 16 | g << 8 | b));
  for (let i = 0; i < data.length; i += 4)
    if (data[i + 3] && colors.has(data[i] << 16 | data[i + 1] << 8 | data[i + 2])) data[i + 3] = 0;
  to.putImageData(pixels, 0, 0);
  return canvas;
}

function describe(message) {
  const loading = message.status === "loading";
  text("what", `${about.sources[message.source] ?? message.source} · ${about.checkpoint}`);
  if (document.activeElement !== $("source")) $("source").value = message.source in about.sources ? message.source : "";
  const withheld = message.status !== "ok";
  $("withheld").hidden = !withheld;
  $("withheld").classList.toggle("loading", loading);
  if (withheld) text("withheld", loading ? "The network is being compiled; masks follow in a few seconds."
    : `No result: ${message.status}, ${message.reason}`);
  $("degraded").hidden = !message.degraded;
  if (message.degraded) text("degraded", `Input degraded: ${message.degraded}`);
  const {kind, severity} = message.degrade;
  for (const button of $("degrade").children) button.setAttribute("aria-pressed", button.value === kind);
  $("severity-part").hidden = about.degrade.ungraded.includes(kind);
  if (!choosing) { $("severity").value = severity; text("severity-value", `${severity}`); }
  text("pause", message.paused ? "Play" : "Pause");
  press("pause", message.paused);
  describePosition(message);
  const comparing = message.comparing ?? "off";
  press("compare", comparing !== "off");
  $("single-screen").hidden = $("video-caption").hidden = comparing === "off";
  text("single-caption", comparing === "loading" ? "Without memory: being compiled" : "Without memory");
  if (loading) return;
  describeResult(message);
  describeLatency(message);
  describeMemory(message);
}

function describePosition({seconds, duration}) {
  $("timeline").hidden = !duration;
  if (!duration || seeking) return;
  $("seek").max = duration;
  $("seek").value = seconds;
  text("time", `${clock(seconds)} / ${clock(duration)}`);
}

function describeResult(message) {
  text("trust-mean", message.trust ? `frame trusted by ${(100 * message.trust.mean).toFixed(0)} %` : "no result");
  [...$("legend").children].forEach((item, index) => {
    const share = message.areas[about.classes[index + 1].name]?.share ?? 0;
    const value = item.firstChild.children[2];
    value.textContent = share ? `${(100 * share).toFixed(1)} %` : "–";
    item.querySelector("u").style.width = `${Math.min(100, 100 * Math.sqrt(share))}%`;
  });
  const {point} = message;
  text("r-now", point[1] === null ? "–" : point[1].toFixed(4));
  text("s-now", point[2] === null ? "–" : point[2].toFixed(2));
  text("ms-now", point[4].toFixed(1));
}

function describeLatency({stats, dropped}) {
  const {latency} = stats;
  const ms = (value) => value === null ? "–" : value.toFixed(1);
  const speed = rates.length > 1 ? 1000 * (rates.length - 1) / (rates.at(-1) - rates[0]) : 0;
  const withheld = ["refused", "late", "blank", "frozen", "suspect"]
    .reduce((sum, name) => sum + stats[name], 0);
  const cells = [
    ["p50", ms(latency.p50_ms), "Half of the frames took at most this many milliseconds"],
    ["p95", ms(latency.p95_ms), "95 of 100 frames took at most this long"],
    ["p99", ms(latency.p99_ms), "99 of 100 frames took at most this long"],
    ["max", ms(latency.max_ms), "The slowest frame"],
    ["frames/s", speed.toFixed(1), "Frames shown a second, with reading and drawing"],
    ["deadline missed", latency.deadline_misses, "Frames that took longer than the source's time between two frames"],
    ["withheld", withheld, "Frames without a result: damaged, blank, frozen, late or of another kind"],
    ["dropped", dropped, "Frames of a camera that were skipped because a newer one had arrived"],
  ];
  $("stats").replaceChildren(...cells.map(([name, value, meaning]) => {
    const cell = document.createElement("div"), number = document.createElement("b");
    const caption = document.createElement("span");
    number.textContent = value;
    caption.textContent = name;
    caption.className = "soft";
    cell.title = meaning;
    cell.append(number, caption);
    return cell;
  }));
}

function describeMemory(message) {
  text("local-count", `the last ${message.local.length} frame${message.local.length === 1 ? "" : "s"}`);
  const more = message.global_count > message.global.length ? `, the newest ${message.global.length} shown` : "";
  text("global-count", `${message.global_count} of at most ${about.global_size}${more}`);
  gallery("local", message.local, false);
  gallery("global", [...message.global].reverse(), message.point[3]);
}

function gallery(id, names, first) {
  const key = names.join() + first;
  if (gallery[id] === key) return;
  gallery[id] = key;
  $(id).replaceChildren(...names.filter((name) => thumbs[name]).map((name, index) => {
    const figure = document.createElement("figure"), image = new Image();
    const caption = document.createElement("figcaption");
    image.src = thumbs[name];
    image.alt = `frame ${name}`;
    caption.textContent = name;
    if (first && index === 0) figure.className = "new";
    figure.append(image, caption);
    return figure;
  }));
}

function curves() {
  if (!event?.thresholds) return;
  const column = (index) => points.map((point) => point[index]);
  const limits = {...event.thresholds, ...held};
  const marks = column(3), shaded = column(5);
  const threshold = about.global_memory ? limits.min_confidence ?? null : null;
  const r = curve($("r"), column(1), {threshold, marks, shaded});
  const s = curve($("s"), column(2), {threshold: limits.max_similarity ?? null, marks, shaded});
  curve($("ms"), column(4).map((value) => value || null), {from: 0, shaded});
  slider("alpha", limits.min_confidence, r, 4);
  slider("beta", limits.max_similarity, s, 2);
}

function slider(id, value, range, digits) {
  if (value === undefined) return;
  text(`${id}-value`, value.toFixed(digits));
  if (held || !range) return;
  const spread = range[1] - range[0];
  $(id).min = range[0] - spread / 2;
  $(id).max = Math.min(range[1] + spread / 2, 0);
  $(id).value = value;
}

// ---- what the viewer does

async function refused(response) {
  const answer = await response;
  if (answer.ok) return;
  $("notice").hidden = false;
  text("notice", await answer.text());
}
function send(command) {
  return refused(fetch("/commands", {method: "POST", headers: {"Content-Type": "application/json"},
    body: JSON.stringify(command)}));
}
function play(file) {
  return refused(fetch("/video", {method: "POST", body: file,
    headers: {"Content-Type": "application/octet-stream", "X-Name": encodeURIComponent(file.name)}}));
}
function seek(seconds) {
  if (event?.duration) send({seek: Math.min(Math.max(0, seconds), event.duration)});
}
function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
const stamp = () => new Date().toISOString().slice(0, 19).replaceAll(":", "-");

$("pause").onclick = () => send({paused: !event?.paused});
$("forget-window").onclick = () => send({forget: "reset-local"});
$("forget-all").onclick = () => send({forget: "reset-all"});
$("calibrated").onclick = () => event?.calibrated && send(event.calibrated);
$("compare").onclick = () => send({compare: $("compare").getAttribute("aria-pressed") !== "true"});
$("opacity").oninput = paint;
$("source").onchange = () => { send({source: $("source").value}); $("source").blur(); };
$("open").onclick = () => $("file").click();
$("file").onchange = () => { if ($("file").files[0]) play($("file").files[0]); $("file").value = ""; };
$("full").onclick = () => document.fullscreenElement ? document.exitFullscreen() : $("screens").requestFullscreen();
$("snapshot").onclick = () => $("video").toBlob((blob) => save(blob, `dmnet-${stamp()}.png`));
$("record").onclick = () => {
  if (recorder) return recorder.stop();
  const parts = [];
  recorder = new MediaRecorder($("video").captureStream());
  recorder.ondataavailable = ({data}) => parts.push(data);
  recorder.onstop = () => {
    save(new Blob(parts, {type: recorder.mimeType}), `dmnet-${stamp()}.${recorder.mimeType.includes("mp4") ? "mp4" : "webm"}`);
    recorder = null;
    press("record", false);
    text("record", "Record");
  };
  recorder.start(1000);
  press("record", true);
  text("record", "Stop recording");
};
$("theme").onclick = () => {
  const root = document.documentElement, dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = root.style.colorScheme || (dark ? "dark" : "light");
  setTheme(now === "dark" ? "light" : "dark");
};
function setTheme(scheme) {
  document.documentElement.style.colorScheme = scheme;
  localStorage.setItem("theme", scheme);
  if (event?.point) curves();
}
if (localStorage.getItem("theme")) setTheme(localStorage.getItem("theme"));

for (const id of ["alpha", "beta"]) {
  $(id).oninput = () => {
    held = {min_confidence: Number($("alpha").value), max_similarity: Number($("beta").value)};
    if (id === "alpha") held.max_similarity = event.thresholds.max_similarity;
    else held.min_confidence = event.thresholds.min_confidence;
    curves();
  };
  $(id).onchange = () => send(held).finally(() => setTimeout(() => held = null, 300));
}
$("severity").oninput = () => { choosing = true; text("severity-value", $("severity").value); };
$("severity").onchange = () => send({degrade: event.degrade.kind, severity: Number($("severity").value)})
  .finally(() => setTimeout(() => choosing = false, 300));
$("seek").oninput = () => { seeking = true; text("time", `${clock($("seek").value)} / ${clock(event.duration)}`); };
$("seek").onchange = () => { seek(Number($("seek").value)); setTimeout(() => seeking = false, 300); };

const keys = {
  " ": () => $("pause").click(),
  "ArrowLeft": () => seek((event?.seconds ?? 0) - STEP),
  "ArrowRight": () => seek((event?.seconds ?? 0) + STEP),
  "f": () => $("full").click(),
  "s": () => $("snapshot").click(),
  "r": () => $("record").click(),
};
addEventListener("keydown", (down) => {
  const inControl = down.target.matches("input, select") ||
    down.key === " " && down.target.matches("button");
  if (inControl || down.ctrlKey || down.metaKey || down.altKey || !keys[down.key]) return;
  down.preventDefault();
  keys[down.key]();
});

let over = 0;  // dragging enters and leaves the parts of the page, too
addEventListener("dragenter", () => { over += 1; $("drop").hidden = false; });
addEventListener("dragleave", () => { over -= 1; $("drop").hidden = over <= 0; });
addEventListener("dragover", (drag) => drag.preventDefault());
addEventListener("drop", (drag) => {
  drag.preventDefault();
  over = 0;
  $("drop").hidden = true;
  if (drag.dataTransfer.files[0]) play(drag.dataTransfer.files[0]);
});
addEventListener("resize", () => event?.point && curves());

setInterval(() => {
  const age = performance.now() - seen, paused = event?.paused;
  const old = Boolean(event) && !paused && age > OLD_AFTER;
  $("screen").classList.toggle("old", old || Boolean(event?.error));
  text("state", !event ? "waiting for the first frame…"
    : event.error ? "stopped" : paused ? `paused at frame ${event.index}`
    : old ? `no new frame for ${(age / 1000).toFixed(0)} s; the picture is old`
    : `frame ${event.index}`);
}, 250);

const events = new EventSource("/events");
events.onmessage = ({data}) => {
  const message = JSON.parse(data);
  message.about ? begin(message) : show(message);
};
