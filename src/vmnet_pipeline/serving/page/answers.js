// The list of answers.

import { $, make, makeButton } from "./dom.js";
import { formatShare, listFacts, nameItem } from "./text.js";

let results = [];
let onPick = () => {};
let onLike = () => {};

export function onChoice(pick, like) {
  onPick = pick;
  onLike = like;
}

export const listResults = () => results;

export function showAnswers(found, side) {
  results = found;
  $("nothing").hidden = results.length > 0;
  $("results").replaceChildren(...results.map((result, place) => makeRow(result, place, side)));
  $("explained").hidden = !results.some((result) => result.fit !== null);
}

function makeRow(result, place, side) {
  const button = makeButton("answer", undefined, () => onPick(place, true));
  button.setAttribute("aria-pressed", "false");
  button.append(
    make("span", "rank", `${result.rank}.`),
    make("span", "name", nameItem(result)),
    makeScore(result),
    make("span", "facts", listFacts(result.metadata)),
    makeReasons(result.reasons),
  );
  const like = makeButton("like", "more like this", () => onLike(result));
  like.setAttribute("aria-label", `more like this: ${nameItem(result)}`);
  const row = make("li");
  row.append(makePicture(result, side), button, like);
  return row;
}

// The bar is the calibrated fit. A similarity alone has no bar: nobody can say how long it would have to be.
function makeScore({ score, fit, percentile }) {
  if (fit === null) return make("span", "score", `similarity ${score.toFixed(2)}`);
  const box = make("span", "score");
  const bar = make("i");
  bar.append(make("b"));
  bar.firstChild.style.width = `${100 * Math.min(1, Math.max(0, fit))}%`;
  const better = percentile === null ? "" : `better than ${formatShare(percentile / 100)}`;
  box.append(bar, make("span", "", `fit ${formatShare(fit)}`), make("span", "percentile", better));
  return box;
}

function makeReasons(text) {
  const reasons = make("span", "reasons", text ? `Why: ${text}` : "");
  reasons.hidden = !text;
  return reasons;
}

export function showReasons(explained) {
  const known = new Map(explained.map(({ id, reasons }) => [id, reasons]));
  results.forEach((result, place) => {
    result.reasons = known.get(result.id) ?? "";
    $("results").children[place].querySelector(".reasons").replaceWith(makeReasons(result.reasons));
  });
}

const seen = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    target.src = target.dataset.src;
    seen.unobserve(target);
  }
});

export const makePicture = ({ id, media }, side) => (side === "video" ? makeThumbnail(media) : makeCover(id, media));

// The picture in the file of a track; it takes no room where there is none.
function makeCover(id, media) {
  const cover = make("img", "cover");
  Object.assign(cover, { alt: "", loading: "lazy" });
  cover.addEventListener("load", () => cover.classList.add("there"));
  if (media) cover.src = `v1/items/${encodeURIComponent(id)}/cover`;
  return cover;
}

// A frame near the beginning, drawn by the browser once the row can be seen.
function makeThumbnail(media) {
  const frame = make("video", "thumbnail");
  Object.assign(frame, { muted: true, playsInline: true, preload: "metadata", tabIndex: -1 });
  frame.setAttribute("aria-hidden", "true");
  if (media) {
    frame.dataset.src = `${media}#t=1`;
    seen.observe(frame);
  }
  return frame;
}

export function markPicked(place) {
  $("results").querySelectorAll(".answer").forEach((button, i) => {
    button.setAttribute("aria-pressed", String(i === place));
  });
}
