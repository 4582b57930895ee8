// The part of the track that plays: drawn, chosen by hand, matched in loudness, with beats and cuts on one line.

import { $ } from "./dom.js";
import * as player from "./player.js";
import { Cancelled, post } from "./service.js";
import { formatTime } from "./text.js";

const SVG = "http://www.w3.org/2000/svg";
const FLOOR_DB = -30; // below the loudest moment of a track
const MATCHED_DB = -24; // louder parts are turned down to this, so that tracks can be compared
const WAIT_MS = 400;

let pair = null; // {video, music}, each {id} or {upload}
let found = null;
let start = 0;
let running = null;

export const readPassage = () => ({ pair, start, found });

export function hide() {
  running?.abort();
  pair = found = null;
  start = 0;
  $("passage").hidden = true;
}

// Looks for the part once the choice has settled.
export async function show(next) {
  hide();
  pair = next;
  const mine = (running = new AbortController());
  await new Promise((resolve) => setTimeout(resolve, WAIT_MS));
  if (mine.signal.aborted) return;
  try {
    const answer = await post("v1/passages", next, mine.signal);
    if (mine.signal.aborted) return;
    found = answer;
    draw();
    move(found.passages[0].start_s);
  } catch (error) {
    if (!(error instanceof Cancelled)) $("passage").hidden = true; // it still plays, from the beginning
  }
}

// --- drawing

function draw() {
  $("passage").hidden = false;
  const { energy_db: energy } = found.track;
  const most = Math.max(...energy);
  const heights = energy.map((db) => Math.max(0.02, (db - most - FLOOR_DB) / -FLOOR_DB));
  const bars = heights.map((height, i) => `M${i + 0.5} ${1 - height}V${1 + height}`).join("");
  const wave = document.createElementNS(SVG, "path");
  wave.setAttribute("d", bars);
  $("wave").setAttribute("viewBox", `0 0 ${energy.length} 2`);
  $("wave").replaceChildren(wave);
  $("slider").setAttribute("aria-valuemax", String(findLast().toFixed(1)));
}

// The latest beginning from which the track lasts as long as the video.
const findLast = () => Math.max(0, found.track.duration_s - found.video.duration_s);

function drawLines() {
  const { beats_s: beats } = found.track;
  const { cuts_s: cuts, duration_s: length } = found.video;
  const heard = beats.map((beat) => beat - start).filter((beat) => beat >= 0 && beat <= length);
  const beatPath = document.createElementNS(SVG, "path");
  beatPath.setAttribute("class", "beats");
  beatPath.setAttribute("d", heard.map((beat) => `M${beat} 0.9V2`).join(""));
  const cutPath = document.createElementNS(SVG, "path");
  cutPath.setAttribute("class", "cuts");
  cutPath.setAttribute("d", cuts.map((cut) => `M${cut} 0V1.1`).join(""));
  $("lines").setAttribute("viewBox", `0 0 ${length || 1} 2`);
  $("lines").replaceChildren(beatPath, cutPath);
}

function explain() {
  const best = found.passages.find((passage) => Math.abs(passage.start_s - start) < 0.05);
  const { bars_s: bars, sections_s: sections, duration_s: length } = found.track;
  const end = Math.min(length, start + found.video.duration_s);
  const place = `${formatTime(start)} to ${formatTime(end)} of ${formatTime(length)}`;
  if (best) return `Chosen part, ${place}: ${best.words}`;
  const near = (lines) => lines.some((line) => Math.abs(line - start) < 0.12);
  const begin = near(sections) ? ": begins where a section begins" : near(bars) ? ": begins on a bar line" : "";
  return `Your part, ${place}${begin}`;
}

// --- choosing

function move(to) {
  start = Math.min(findLast(), Math.max(0, to));
  const { duration_s: length } = found.track;
  const width = Math.min(1, found.video.duration_s / length);
  $("window").style.left = `${(100 * start) / length}%`;
  $("window").style.width = `${100 * width}%`;
  $("slider").setAttribute("aria-valuenow", String(start.toFixed(1)));
  $("slider").setAttribute("aria-valuetext", `${formatTime(start)} of ${formatTime(length)}`);
  $("passage-words").textContent = explain();
  drawLines();
  player.setPart(start, findGain());
}

// Mean level of the part; what is softer than wanted stays as it is.
function findGain() {
  const rate = found.energy_hz;
  const from = Math.round(start * rate);
  const levels = found.track.energy_db.slice(from, Math.max(from + 1, Math.round((start + found.video.duration_s) * rate)));
  const power = levels.reduce((sum, db) => sum + 10 ** (db / 10), 0) / Math.max(1, levels.length);
  return Math.min(1, 10 ** ((MATCHED_DB - 10 * Math.log10(power + 1e-12)) / 20));
}

function step(lines, direction) {
  const usable = lines.length ? lines : Array.from({ length: Math.ceil(found.track.duration_s) }, (_, second) => second);
  const ahead = usable.filter((line) => (direction > 0 ? line > start + 0.05 : line < start - 0.05));
  if (ahead.length) move(direction > 0 ? ahead[0] : ahead[ahead.length - 1]);
}

const KEYS = {
  ArrowLeft: () => step(found.track.bars_s, -1),
  ArrowRight: () => step(found.track.bars_s, 1),
  ArrowDown: () => step(found.track.bars_s, -1),
  ArrowUp: () => step(found.track.bars_s, 1),
  PageDown: () => step(found.track.sections_s, -1),
  PageUp: () => step(found.track.sections_s, 1),
  Home: () => move(0),
  End: () => move(findLast()),
};

$("slider").addEventListener("keydown", (event) => {
  if (!found || !KEYS[event.key]) return;
  event.preventDefault();
  KEYS[event.key]();
});

// The window follows the finger or mouse, and snaps to a bar line that is near when it is let go.
let grip = 0;

const readTime = (event) => {
  const box = $("slider").getBoundingClientRect();
  return ((event.clientX - box.left) / box.width) * found.track.duration_s;
};

$("slider").addEventListener("pointerdown", (event) => {
  if (!found) return;
  $("slider").setPointerCapture(event.pointerId);
  const time = readTime(event);
  const inside = time >= start && time <= start + found.video.duration_s;
  grip = inside ? time - start : found.video.duration_s / 2;
  move(time - grip);
});
$("slider").addEventListener("pointermove", (event) => {
  if (found && $("slider").hasPointerCapture(event.pointerId)) move(readTime(event) - grip);
});
$("slider").addEventListener("pointerup", () => {
  if (!found) return;
  const near = found.track.bars_s.filter((bar) => Math.abs(bar - start) < 0.3);
  near.sort((a, b) => Math.abs(a - start) - Math.abs(b - start));
  if (near.length) move(near[0]);
});
