// The page: a file or an item of the collection is the query, the other side answers, both play together.

import { hasBefore, readAddress, readName, writeAddress } from "./address.js";
import * as answers from "./answers.js";
import { $, settle, show } from "./dom.js";
import { readFields, setColumns, showFields } from "./filters.js";
import * as library from "./library.js";
import { drawMap, markFound } from "./map.js";
import * as passage from "./passage.js";
import * as player from "./player.js";
import * as render from "./render.js";
import { call, Cancelled, endWork, post, say, showWork, upload } from "./service.js";
import { formatSize, nameItem } from "./text.js";

const OTHER = { music: "video", video: "music" };
const BEST = { music: "The music that fits best", video: "The videos that fit best" };
const LACKING = { music: "This has no audio.", video: "This has no video." };
const STEP = 10;
const MAX_UNEXPLAINED = 3;

let limits = { max_upload_mb: Infinity, max_top_k: 100, keep_upload_s: 900 };
// What is asked: `ask` is {id}, {upload} or, of words alone, {}; `side` its side; with `same`, what is like it on its own side, `under` the
// item or upload whose picture or music it plays with. `title`, and `urls` of what can be played, by side.
let query = null;
let chosen = null;
let running = null; // what can be cancelled
let unexplained = 0; // searches without any reason: after some of them the network has none
const files = new Map(); // by upload, the file that this page has sent

const findingSide = (asked = query) => (asked.same ? asked.side : OTHER[asked.side]);
const wantedSide = () => document.querySelector("input[name=query]:checked").value;

function setSide(side) {
  document.querySelector(`input[name=query][value=${side}]`).checked = true;
}

// --- doing one thing at a time

async function attempt(action) {
  running?.abort();
  const mine = (running = new AbortController());
  show($("error"), "");
  try {
    await action(mine.signal);
  } catch (error) {
    if (mine === running && !(error instanceof Cancelled)) show($("error"), error.message);
  } finally {
    if (mine === running) {
      endWork();
      running = null;
    }
  }
}

function check(signal) {
  if (signal.aborted) throw new Cancelled();
}

$("cancel").addEventListener("click", () => running?.abort());

// --- asking

function askFile(file) {
  return attempt(async (signal) => {
    if (file.size === 0) throw new Error("The file is empty.");
    if (file.size > limits.max_upload_mb * 2 ** 20) throw new Error(sayLimit(file));
    const facts = await upload(file, signal);
    check(signal);
    files.set(facts.upload, { name: file.name, url: URL.createObjectURL(file) });
    if (facts.video_s === null) setSide("music");
    if (facts.audio_s === null) setSide("video");
    await ask(await describeUpload(facts.upload, wantedSide(), facts), signal);
  });
}

function sayLimit(file) {
  const enough = Math.ceil(file.size / 2 ** 20);
  return (
    `The file has ${formatSize(file.size)}; this service takes ${limits.max_upload_mb} MiB. ` +
    `Start it with --set max_upload_mb=${enough}, or use kedro recommend FILE, which has no limit.`
  );
}

// The query for an upload that the service still has.
async function describeUpload(token, side, known) {
  const facts = known ?? (await call(`v1/uploads/${token}`));
  if (facts[side === "video" ? "video_s" : "audio_s"] === null) throw new Error(LACKING[side]);
  const { name, url } = files.get(token) ?? { name: readName() ?? "Your file", url: `v1/uploads/${token}/media` };
  const address = new URL(url, location.href).href;
  const urls = { video: facts.video_s === null ? "" : address, music: facts.audio_s === null ? "" : address };
  return { ask: { upload: token }, side, title: name, urls };
}

async function describeItem(id, side) {
  const item = await call(`v1/items/${encodeURIComponent(id)}`);
  if (!item.metadata[side]) throw new Error(LACKING[side]);
  return { ask: { id }, side, title: item.metadata[side].title || id, urls: item.media };
}

// Words alone find what an item of the other side would.
const describeWords = (side) => ({ ask: {}, side, title: readText(), urls: { video: "", music: "" } });

function describe({ id, upload: token }, side) {
  if (id) return describeItem(id, side);
  return token ? describeUpload(token, side) : describeWords(side);
}

const readText = () => $("text").value.trim();
const hasItem = (asked) => Object.keys(asked.ask).length > 0;

function askWords() {
  if (query && hasItem(query)) return searchAgain();
  if (!readText()) return leave();
  return attempt(async (signal) => ask(describeWords(wantedSide()), signal));
}

$("wording").addEventListener("submit", (event) => {
  event.preventDefault();
  askWords();
});

function askItem(id, side) {
  setSide(side);
  return attempt(async (signal) => ask(await describeItem(id, side), signal));
}

// What fits the item of an answer on its own side; the picture or music of the query stays.
function askLike(result) {
  const side = findingSide();
  const under = query.same ? query.under : hasItem(query) ? query.ask : null;
  return attempt(async (signal) => {
    const { urls } = query;
    await ask({ ask: { id: result.id }, side, same: true, under, like: nameItem(result), title: query.title, urls }, signal);
  });
}

async function ask(next, signal, { push = true, state = {} } = {}) {
  check(signal);
  player.stop();
  query = { n: STEP, pick: null, ...next };
  chosen = null;
  const side = findingSide();
  showFields($("filters"), side, state.filters);
  $("stage").hidden = $("answers").hidden = false;
  $("stage-title").textContent = query.title;
  $("answers-title").textContent = query.same ? `More like ${query.like}` : BEST[side];
  document.title = `${query.same ? `More like ${query.like}` : query.title} – Music for pictures`;
  if (push) writeAddress(readState(), { push });
  $("back").hidden = !hasBefore();
  await search(signal, state.pick);
  if (push) $("stage").scrollIntoView({ block: "nearest" });
}

const readState = () => ({
  ...query,
  text: readText(),
  filters: readFields($("filters")),
  variety: Number($("variety").value),
  all: !$("one").checked,
});

async function search(signal, pick = null) {
  const { filters, variety, all, text } = readState();
  const asked = { ...query.ask, query: query.side, same_side: Boolean(query.same), filters, variety, one_per_group: !all };
  if (text) asked.text = text;
  const slow = query.ask.upload !== undefined;
  if (slow) showWork(query.side === "video" ? "Analysing the video …" : "Analysing the audio …");
  const answer = await post("v1/recommendations", { ...asked, top_k: query.n }, signal);
  check(signal);
  if (slow) endWork();
  showFound(answer, pick);
  if (unexplained < MAX_UNEXPLAINED && hasItem(query) && !query.same && answer.results.length) await explain(asked, signal);
}

function showFound(answer, pick) {
  const side = findingSide();
  answers.showAnswers(answer.results, side);
  markFound(answer.results, side);
  $("ten").hidden = answer.results.length < query.n || query.n >= limits.max_top_k;
  show($("remark"), answer.remark);
  show($("warnings"), answer.warnings.join("; "));
  const place = Math.max(0, answer.results.findIndex((result) => result.id === (pick ?? chosen?.id)));
  const best = answer.results[place];
  if (best && best.id === chosen?.id) answers.markPicked(place); // it may be playing
  else if (best) choose(place, false);
}

// Reasons need a worker and come later; a network without descriptors has none.
async function explain(asked, signal) {
  try {
    const { results } = await post("v1/recommendations", { ...asked, top_k: query.n, reasons: true }, signal);
    if (signal.aborted) return;
    unexplained = results.some((result) => result.reasons) ? 0 : unexplained + 1;
    answers.showReasons(results);
  } catch (error) {
    if (error instanceof Cancelled) throw error; // otherwise answers without reasons are still answers
  }
}

// --- choosing an answer

function choose(place, andPlay) {
  chosen = answers.listResults()[place];
  answers.markPicked(place);
  const side = findingSide();
  const pictureUrl = side === "music" ? query.urls.video : chosen.media;
  const musicUrl = side === "music" ? chosen.media : query.urls.music;
  const ownSound = side === "music" ? query.urls.music : "";
  player.load({ pictureUrl, musicUrl, ownSound });
  if (side === "video") offerOwnOf(chosen.id);
  showPassage(side, pictureUrl, musicUrl);
  const name = nameItem(chosen);
  const words = side === "music" ? `Music: ${name}` : `Video: ${name}`;
  $("now").textContent = chosen.media ? words : `${words} (its media are not available)`;
  if (andPlay) {
    query.pick = chosen.id;
    writeAddress(readState(), { push: false });
    player.play();
  }
}

function showPassage(side, pictureUrl, musicUrl) {
  const source = query.same ? query.under : query.ask;
  const isPossible = Boolean((source?.id || source?.upload) && pictureUrl && musicUrl);
  render.reset(isPossible);
  if (!isPossible) return passage.hide();
  const answer = { id: chosen.id };
  passage.show(side === "music" ? { video: source, music: answer } : { video: answer, music: source });
}

async function offerOwnOf(id) {
  const mine = chosen;
  try {
    const { media } = await call(`v1/items/${encodeURIComponent(id)}`);
    if (mine === chosen) player.offerOwn(media.music ?? "");
  } catch {
    // not offered
  }
}

document.addEventListener("player:fault", ({ detail }) => show($("error"), detail));
answers.onChoice(choose, askLike);
render.begin(() => (findingSide() === "music" ? query.title : nameItem(chosen)));

// --- changing what is shown

function searchAgain() {
  if (!query) return;
  attempt(async (signal) => {
    writeAddress(readState(), { push: false });
    await search(signal);
  });
}

const searchSoon = settle(() => {
  query.n = STEP;
  searchAgain();
});
for (const name of ["filters", "variety", "one"]) $(name).addEventListener("input", () => query && searchSoon());
$("options").addEventListener("submit", (event) => event.preventDefault());
$("ten").addEventListener("click", () => {
  query.n = Math.min(query.n + STEP, limits.max_top_k);
  searchAgain();
});
$("back").addEventListener("click", () => history.back());

for (const radio of document.querySelectorAll("input[name=query]")) {
  radio.addEventListener("change", () => {
    const source = query && (query.same ? query.under : query.ask);
    if (source) attempt((signal) => turn(source, wantedSide(), signal));
  });
}

async function turn(source, side, signal) {
  try {
    await ask(await describe(source, side), signal);
  } catch (error) {
    if (query.side !== side) setSide(OTHER[side]); // the source does not have it, and what was there stays
    throw error;
  }
}

// --- the address

function restore() {
  const state = readAddress();
  $("text").value = state.text;
  if (!state.ask && !state.text) return leave();
  setSide(state.same ? OTHER[state.side] : state.side);
  $("variety").value = String(state.variety);
  $("one").checked = !state.all;
  return attempt(async (signal) => {
    const { n } = state;
    const main = await describe(state.ask ?? {}, state.side);
    const next = state.same ? await describeLike(main, state) : main;
    await ask({ ...next, n, pick: state.pick }, signal, { push: false, state });
  });
}

async function describeLike(main, { side, under }) {
  const like = main.title;
  const below = under ? await describe(under, OTHER[side]) : main;
  return { ...main, same: true, under, like, title: below.title, urls: below.urls };
}

function leave() {
  player.stop();
  passage.hide();
  render.reset(false);
  query = chosen = null;
  $("stage").hidden = $("answers").hidden = true;
}

addEventListener("popstate", restore);

// --- the file field and dropping

$("file").addEventListener("change", () => {
  const [file] = $("file").files;
  $("file").value = ""; // so that the same file may be chosen again
  if (file) askFile(file);
});

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
    if (name === "drop" && file) askFile(file);
  });
}

async function begin() {
  const [content, columns] = await Promise.all([call("v1/map"), call("v1/columns")]);
  limits = content.limits;
  const { music, video } = content.n_items;
  const minutes = Math.max(1, Math.round(limits.keep_upload_s / 60));
  $("kept").textContent = `It stays on this server, which removes it ${minutes} minutes after its last use.`;
  $("size").textContent = `The collection has ${music} tracks and ${video} videos.`;
  setColumns(columns);
  drawMap(content.points, askItem);
  library.begin(askItem);
  if (location.hash) await restore();
}

begin().catch((error) => show($("error"), error.message));
say("");
