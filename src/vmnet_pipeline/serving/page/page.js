// The page: a file or an item of the collection is the query, the other side answers, both play together.

const $ = (id) => document.getElementById(id);
const OTHER = { music: "video", video: "music" };
const BEST = { music: "The music that fits best", video: "The videos that fit best" };
const PLAYER = { music: $("sound"), video: $("picture") };
const MOST_DRIFT_S = 0.2;
const TRIES = 5;

let limits = { max_upload_mb: Infinity };
// What is asked: {side, id} or {side, embedding}, with a title and a url for each side that can be played; with `same`,
// what is like it on its own side.
let query = null;
let results = [];
let chosen = null;
let askedLast = 0;
let fileUrl = "";

// --- talking to the service

async function call(path, options = {}, tries = TRIES) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The service does not answer. Is it still running?");
  }
  if (response.status === 401) {
    await askKey();
    return call(path, options, tries);
  }
  if ([429, 503].includes(response.status) && tries > 1) {
    await waitTurn(Number(response.headers.get("Retry-After")) || 2);
    return call(path, options, tries - 1);
  }
  return resolveLinks(readAnswer(response.status, await response.text()), response.url);
}

// Links are relative to the address that was asked, so that they hold below any path of a proxy.
function resolveLinks(content, address) {
  const resolve = (link) => link && new URL(link, address).href;
  for (const result of content.results ?? []) result.media = resolve(result.media);
  for (const side of Object.keys(content.media ?? {})) content.media[side] = resolve(content.media[side]);
  return content;
}

function readAnswer(status, text) {
  let content = null;
  try {
    content = JSON.parse(text);
  } catch {
    // said below
  }
  if (status >= 200 && status < 300 && content) return content;
  throw new Error(content?.error?.message ?? `The service answered with error ${status}.`);
}

async function waitTurn(seconds) {
  say(`The service is busy; trying again in ${seconds} s.`);
  await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
}

// fetch cannot tell how much of a body has been sent.
function upload(file, side, showSent) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `v1/embeddings?query=${side}`);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.onprogress = (event) => showSent(event.loaded / event.total);
    request.upload.onload = () => showSent(1);
    request.onload = () => resolve(request);
    request.onerror = () => reject(new Error("The file could not be sent. Is the service still running?"));
    request.send(file);
  });
}

async function embedFile(file, side, tries = TRIES) {
  const request = await upload(file, side, (share) => showProgress(share < 1 ? share : null, side));
  if (request.status === 401) {
    await askKey();
    return embedFile(file, side, tries);
  }
  if ([429, 503].includes(request.status) && tries > 1) {
    await waitTurn(Number(request.getResponseHeader("Retry-After")) || 2);
    return embedFile(file, side, tries - 1);
  }
  return readAnswer(request.status, request.responseText);
}

function askKey() {
  return new Promise((resolve) => {
    const door = $("door");
    door.onclose = async () => {
      const headers = { "Content-Type": "application/json" };
      const body = JSON.stringify({ key: $("key").value });
      const { ok } = await fetch("v1/session", { method: "POST", headers, body });
      if (ok) resolve();
      else door.showModal();
    };
    if (!door.open) door.showModal();
  });
}

// --- saying what happens

function say(text) {
  $("status").textContent = text;
}

function complain(text) {
  $("error").textContent = text;
  $("error").hidden = !text;
}

function showProgress(share, side) {
  const bar = $("progress");
  bar.hidden = false;
  if (share === null) {
    bar.removeAttribute("value");
    say(side === "video" ? "Analysing the video …" : "Analysing the audio …");
  } else {
    bar.value = share;
    say(`Sending: ${Math.round(100 * share)} %`);
  }
}

function endProgress() {
  $("progress").hidden = true;
}

const formatTime = (seconds) => {
  const whole = Math.floor(seconds || 0);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
};

// --- asking

const findingSide = () => (query.same ? query.side : OTHER[query.side]);
const wantedSide = () => document.querySelector("input[name=query]:checked").value;

function setSide(side) {
  document.querySelector(`input[name=query][value=${side}]`).checked = true;
}

async function attempt(action) {
  const mine = ++askedLast;
  complain("");
  try {
    await action(() => mine === askedLast);
  } catch (error) {
    if (mine === askedLast) complain(error.message);
  } finally {
    if (mine === askedLast) {
      endProgress();
      say("");
    }
  }
}

let lastFile = null;

function askFile(file) {
  lastFile = file;
  return attempt(async (isCurrent) => {
    const side = wantedSide();
    if (file.size === 0) throw new Error("The file is empty.");
    if (file.size > limits.max_upload_mb * 2 ** 20) {
      throw new Error(`The file exceeds the limit of ${limits.max_upload_mb} MiB.`);
    }
    showProgress(0, side);
    const { embedding, warnings } = await embedFile(file, side);
    if (!isCurrent()) return;
    if (fileUrl) URL.revokeObjectURL(fileUrl);
    fileUrl = URL.createObjectURL(file);
    setQuery({ side, ask: { embedding }, warnings, title: file.name, urls: { [side]: fileUrl, music: fileUrl } });
    await search(isCurrent);
  });
}

function askItem(id, side) {
  lastFile = null;
  setSide(side);
  return attempt(async (isCurrent) => {
    const item = await call(`v1/items/${encodeURIComponent(id)}`);
    if (!isCurrent()) return;
    const title = item.metadata[side]?.title || id;
    setQuery({ side, ask: { id }, title, urls: item.media });
    await search(isCurrent);
  });
}

// The media of the query stay while results are played.
function askLike({ id, metadata }) {
  const side = findingSide();
  const rest = OTHER[side];
  return attempt(async (isCurrent) => {
    const item = query.urls[rest] ? { media: query.urls } : await call(`v1/items/${encodeURIComponent(id)}`);
    if (!isCurrent()) return;
    const like = metadata.title || id;
    setQuery({ side, same: true, ask: { id }, title: query.title, like, urls: { [rest]: item.media[rest] } });
    await search(isCurrent);
  });
}

async function search(isCurrent) {
  const filters = [];
  if ($("tag").value) filters.push(`tag=${$("tag").value}`);
  if ($("shorter").value) filters.push(`duration<${$("shorter").value}`);
  const body = JSON.stringify({ ...query.ask, query: query.side, same_side: Boolean(query.same), top_k: 10, filters });
  const headers = { "Content-Type": "application/json" };
  const answer = await call("v1/recommendations", { method: "POST", headers, body });
  if (!isCurrent()) return;
  showResults(answer.results);
  $("remark").textContent = answer.remark;
  $("remark").hidden = !answer.remark;
  $("warnings").textContent = [...(query.warnings ?? []), ...answer.warnings].join("; ");
  $("warnings").hidden = !$("warnings").textContent;
}

// --- answers

function setQuery(next) {
  stop();
  query = next;
  const side = findingSide();
  PLAYER[OTHER[side]].src = query.urls[OTHER[side]] ?? "";
  PLAYER[side].removeAttribute("src");
  $("stage").hidden = $("answers").hidden = false;
  $("stage-title").textContent = query.title;
  $("answers-title").textContent = query.same ? `More like ${query.like}` : BEST[side];
  $("stage").scrollIntoView({ block: "nearest" });
  $("own").hidden = side !== "music" || !query.urls.music;
}

function showResults(found) {
  results = found;
  $("nothing").hidden = results.length > 0;
  $("results").replaceChildren(...results.map(makeRow));
  markFound();
  if (results.length) choose(0, false);
}

function make(tag, className, text) {
  const element = document.createElement(tag);
  element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function makeRow(result, place) {
  const button = make("button", "");
  button.type = "button";
  button.setAttribute("aria-pressed", "false");
  const { title, tags, duration_s: duration, group, licence } = result.metadata;
  const score = make("span", "score", result.score.toFixed(2));
  score.title = "Cosine similarity, -1 to 1";
  const bar = make("i", "");
  const best = Math.max(results[0].score, 1e-6);
  bar.append(make("b", ""));
  bar.firstChild.style.width = `${100 * Math.max(0, result.score / best)}%`;
  score.prepend(bar);
  const fit = result.fit !== null && `fit ${(100 * result.fit).toFixed(1)} %, above ${result.percentile.toFixed(1)} %`;
  const facts = [fit, tags, duration && formatTime(duration), group && group !== title && group, licence];
  button.append(
    make("span", "rank", `${result.rank}.`),
    make("span", "name", title || result.id),
    score,
    make("span", "facts", facts.filter(Boolean).join(" · ")),
  );
  button.addEventListener("click", () => choose(place, true));
  const like = make("button", "like", "more like this");
  like.type = "button";
  like.setAttribute("aria-label", `more like this: ${title || result.id}`);
  like.addEventListener("click", () => askLike(result));
  const row = document.createElement("li");
  row.append(button, like);
  return row;
}

function choose(place, andPlay) {
  chosen = results[place];
  const side = findingSide();
  $("results").querySelectorAll("button[aria-pressed]").forEach((button, i) => {
    button.setAttribute("aria-pressed", String(i === place));
  });
  $("own").setAttribute("aria-pressed", "false");
  if (!chosen.media) {
    $("now").textContent = "No media available for this item.";
    return;
  }
  PLAYER[side].src = chosen.media;
  const name = chosen.metadata.title || chosen.id;
  $("now").textContent = side === "music" ? `Music: ${name}` : `Picture: ${name}`;
  restart(andPlay);
}

$("own").addEventListener("click", () => {
  if ($("own").getAttribute("aria-pressed") === "true") return choose(results.indexOf(chosen), true);
  $("own").setAttribute("aria-pressed", "true");
  PLAYER.music.src = query.urls.music;
  $("now").textContent = "Music: own audio";
  restart(true);
});

// --- playing: the video follows the audio, and restarts if it is shorter

function restart(andPlay) {
  for (const player of Object.values(PLAYER)) player.currentTime = 0;
  if (andPlay) play();
  else stop();
}

async function play() {
  endPreview();
  try {
    await Promise.all([PLAYER.music.play(), PLAYER.video.play()]);
  } catch (error) {
    if (error.name === "AbortError") return; // another one was chosen meanwhile
    stop();
    complain(error.name === "NotAllowedError" ? "Press Play to hear it." : "This browser cannot play one of the two.");
  }
}

function stop() {
  for (const player of Object.values(PLAYER)) player.pause();
}

function follow() {
  const { music, video } = PLAYER;
  $("seek").value = music.duration ? music.currentTime / music.duration : 0;
  $("clock").textContent = `${formatTime(music.currentTime)} / ${formatTime(music.duration)}`;
  if (!video.duration || !music.duration || video.seeking) return;
  const wanted = music.currentTime % video.duration;
  const drift = Math.abs(video.currentTime - wanted);
  if (Math.min(drift, video.duration - drift) > MOST_DRIFT_S) video.currentTime = wanted;
}

PLAYER.music.addEventListener("timeupdate", follow);
PLAYER.music.addEventListener("loadedmetadata", follow);
PLAYER.music.addEventListener("ended", stop);
PLAYER.music.addEventListener("waiting", () => PLAYER.video.pause());
PLAYER.music.addEventListener("playing", () => PLAYER.video.play().catch(() => {}));
for (const name of ["play", "pause"]) {
  PLAYER.music.addEventListener(name, () => {
    $("play").textContent = PLAYER.music.paused ? "Play" : "Pause";
    if (PLAYER.music.paused) PLAYER.video.pause();
  });
}
$("play").addEventListener("click", () => (PLAYER.music.paused ? play() : stop()));
$("picture").addEventListener("click", () => $("play").click());
$("seek").addEventListener("input", () => {
  if (PLAYER.music.duration) PLAYER.music.currentTime = $("seek").value * PLAYER.music.duration;
});

// --- the map

const SVG = "http://www.w3.org/2000/svg";
let points = [];
let active = -1;

function drawMap() {
  const dots = points.map((point, i) => {
    const dot = document.createElementNS(SVG, "path");
    dot.setAttribute("d", `M${point.x} ${-point.y}h.0001`);
    dot.setAttribute("class", point.side);
    dot.setAttribute("role", "option");
    dot.setAttribute("id", `point-${i}`);
    dot.setAttribute("aria-selected", "false");
    dot.setAttribute("aria-label", `${point.side} ${point.title}${point.tags ? `, ${point.tags}` : ""}`);
    dot.addEventListener("pointerenter", () => activate(i, true));
    dot.addEventListener("click", () => askPoint(i));
    return dot;
  });
  $("points").replaceChildren(...dots);
  $("map").hidden = !points.length;
}

function askPoint(i) {
  endPreview();
  askItem(points[i].id, points[i].side);
}

function markFound() {
  const side = findingSide();
  $("found-key").hidden = false;
  const ids = new Set(results.map((result) => result.id));
  points.forEach((point, i) => {
    $(`point-${i}`).classList.toggle("found", point.side === side && ids.has(point.id));
  });
}

function activate(i, andPlay) {
  if (active >= 0) {
    $(`point-${active}`).classList.remove("active");
    $(`point-${active}`).setAttribute("aria-selected", "false");
  }
  endPreview();
  active = i;
  if (i < 0) return;
  const point = points[i];
  $(`point-${i}`).classList.add("active");
  $(`point-${i}`).setAttribute("aria-selected", "true");
  $("points").setAttribute("aria-activedescendant", `point-${i}`);
  showHint(point);
  if (andPlay) playPreview(point);
}

function showHint(point) {
  const hint = $("hint");
  hint.lastElementChild.textContent = point.tags ? `${point.title}: ${point.tags}` : point.title;
  hint.hidden = false;
  const across = (point.x + 1.05) / 2.1;
  const down = (1.05 - point.y) / 2.1;
  hint.style.left = across < 0.5 ? `calc(${100 * across}% + 14px)` : "auto";
  hint.style.right = across < 0.5 ? "auto" : `calc(${100 * (1 - across)}% + 14px)`;
  hint.style.top = down < 0.6 ? `${100 * down}%` : "auto";
  hint.style.bottom = down < 0.6 ? "auto" : `${100 * (1 - down)}%`;
}

function playPreview(point) {
  const player = point.side === "music" ? $("preview") : $("peek");
  $("peek").hidden = point.side !== "video";
  player.src = `v1/items/${encodeURIComponent(point.id)}/media?side=${point.side}`;
  if (point.side === "music") stop();
  player.play().catch(() => {}); // a browser may want a click first, and an item may have no media
}

function endPreview() {
  $("hint").hidden = true;
  for (const player of [$("preview"), $("peek")]) {
    player.pause();
    player.removeAttribute("src");
  }
}

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

// The nearest point that lies in a direction; what lies aside counts twice.
function findNeighbour([dx, dy]) {
  const from = points[active] ?? { x: 0, y: 0 };
  let best = -1;
  let least = Infinity;
  points.forEach((point, i) => {
    const along = (point.x - from.x) * dx + (point.y - from.y) * dy;
    const aside = Math.abs((point.x - from.x) * dy + (point.y - from.y) * dx);
    const distance = along + 2 * aside;
    if (i !== active && along > 0 && distance < least) [best, least] = [i, distance];
  });
  return best;
}

$("points").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && active >= 0) askPoint(active);
  if (event.key === "Escape") activate(-1, false);
  if (!STEPS[event.key]) return;
  event.preventDefault();
  const next = findNeighbour(STEPS[event.key]);
  if (next >= 0) activate(next, true);
});
$("points").addEventListener("blur", () => activate(-1, false));
$("points").addEventListener("pointerleave", () => activate(-1, false));

function listTags() {
  const counts = new Map();
  for (const { tags } of points) {
    for (const tag of tags ? tags.split(", ") : []) counts.set(tag, (counts.get(tag) ?? 0) + 1);
  }
  const common = [...counts].sort((a, b) => b[1] - a[1] || a[0].localeCompare(b[0])).slice(0, 50);
  $("tag").append(...common.map(([tag]) => new Option(tag, tag)));
}

// --- the file field and dropping

$("file").addEventListener("change", () => {
  const [file] = $("file").files;
  $("file").value = ""; // so that the same file may be chosen again
  if (file) takeFile(file);
});

function takeFile(file) {
  if (file.type.startsWith("audio/")) setSide("music");
  if (file.type.startsWith("video/") && !lastFile) setSide("video");
  askFile(file);
}

for (const radio of document.querySelectorAll("input[name=query]")) {
  radio.addEventListener("change", () => lastFile && askFile(lastFile));
}

for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    $("drop").classList.add("over");
  });
}
for (const name of ["dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    $("drop").classList.remove("over");
    const file = event.dataTransfer?.files?.[0];
    if (name === "drop" && file) takeFile(file);
  });
}

$("filters").addEventListener("submit", (event) => event.preventDefault());
$("filters").addEventListener("change", () => query && attempt(search));

async function begin() {
  const content = await call("v1/map");
  ({ points, limits } = content);
  const { music, video } = content.n_items;
  $("size").textContent += ` The collection has ${music} tracks and ${video} videos.`;
  drawMap();
  listTags();
}

attempt(begin);
