// The map of the collection.

import { $ } from "./dom.js";
import { stop } from "./player.js";

const SVG = "http://www.w3.org/2000/svg";
let points = [];
let active = -1;
let onAsk = () => {};

export function drawMap(found, ask) {
  points = found;
  onAsk = ask;
  $("points").replaceChildren(...points.map(makeDot));
  $("map").hidden = !points.length;
}

function makeDot(point, i) {
  const dot = document.createElementNS(SVG, "path");
  dot.setAttribute("d", `M${point.x} ${-point.y}h.0001`);
  dot.setAttribute("class", point.side);
  dot.setAttribute("role", "option");
  dot.setAttribute("id", `point-${i}`);
  dot.setAttribute("aria-selected", "false");
  dot.setAttribute("aria-label", `${point.side} ${point.title}${point.tags ? `, ${point.tags}` : ""}`);
  dot.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && activate(i));
  dot.addEventListener("click", () => (i === active ? askPoint(i) : activate(i)));
  return dot;
}

function askPoint(i) {
  endPreview();
  onAsk(points[i].id, points[i].side);
}

export function markFound(results, side) {
  $("found-key").hidden = false;
  const ids = new Set(results.map((result) => result.id));
  points.forEach((point, i) => {
    $(`point-${i}`).classList.toggle("found", point.side === side && ids.has(point.id));
  });
}

function activate(i) {
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
  playPreview(point);
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
  if (event.key === "Escape") activate(-1);
  if (!STEPS[event.key]) return;
  event.preventDefault();
  const next = findNeighbour(STEPS[event.key]);
  if (next >= 0) activate(next);
});
$("points").addEventListener("blur", () => activate(-1));
$("points").addEventListener("pointerleave", (event) => event.pointerType === "mouse" && activate(-1));
document.addEventListener("player:play", endPreview);
