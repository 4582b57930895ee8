// Making the finished video: a job in the queue of the service, then what can be taken away.

import { $, make, makeButton, show } from "./dom.js";
import { readPassage } from "./passage.js";
import { call, Cancelled, post } from "./service.js";
import { formatSize } from "./text.js";

const LOOK_MS = 500;
let job = "";
let running = null;
let nameVideo = () => "video";

export function begin(name) {
  nameVideo = name;
}

// Forgets what was made for another choice; a job that runs for it ends.
export function reset(isPossible) {
  cancel();
  $("finish").hidden = !isPossible;
  $("render-files").replaceChildren();
  show($("render-status"), "");
}

function cancel() {
  if (job && running) call(`v1/renders/${job}/cancel`, { method: "POST" }).catch(() => {});
  running?.abort();
  running = null;
  job = "";
  $("render-work").hidden = true;
  $("render").disabled = false;
}

function makeOrder() {
  const { pair, start, found } = readPassage();
  const order = { ...pair, start_s: start, own_sound: $("own-mode").value, name: nameVideo().slice(0, 200) };
  if (!found) return order;
  const { bars_s, beats_s } = found.track;
  return { ...order, bars_s: bars_s.slice(0, 5000), beats_s: beats_s.slice(0, 5000), cuts_s: found.video.cuts_s.slice(0, 5000) };
}

async function render() {
  cancel();
  $("render-files").replaceChildren();
  const mine = (running = new AbortController());
  $("render").disabled = true;
  $("render-work").hidden = false;
  try {
    let state = await post("v1/renders", makeOrder(), mine.signal);
    job = state.render;
    while (state.state === "waiting" || state.state === "running") {
      tellState(state);
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
      if (mine.signal.aborted) return;
      state = await call(`v1/renders/${job}`, { signal: mine.signal });
    }
    if (mine === running) finish(state);
  } catch (error) {
    if (mine === running && !(error instanceof Cancelled)) show($("render-status"), error.message);
  } finally {
    if (mine === running) {
      running = null;
      $("render-work").hidden = true;
      $("render").disabled = false;
    }
  }
}

function tellState({ state, progress, before }) {
  $("render-progress").value = progress;
  const waits = before === 1 ? "one other video is" : `${before} other videos are`;
  show($("render-status"), state === "waiting" && before ? `Waiting: ${waits} made first.` : `Making the video: ${Math.round(100 * progress)} %`);
}

function finish(state) {
  if (state.state !== "done") return show($("render-status"), state.message || "It was cancelled.");
  const loud = state.loudness_lufs === null ? "" : `, ${state.loudness_lufs.toFixed(1)} LUFS`;
  show($("render-status"), [`Done: ${formatSize(state.size_bytes)}${loud}.`, ...state.warnings].join(" "));
  const links = [["video", "Download the video"], ["timeline", "Cut list (OTIO)"], ["credits", "Credits"]];
  $("render-files").replaceChildren(
    ...links.map(([kind, words]) => {
      const link = make("a", "button", words);
      link.href = `v1/renders/${state.render}/${kind}`;
      link.download = "";
      const row = make("li");
      row.append(link);
      return row;
    }),
  );
}

$("render").addEventListener("click", render);
$("render-work").append(
  makeButton("", "Cancel", () => {
    cancel();
    show($("render-status"), "Cancelled.");
  }),
);
$("own-mode").addEventListener("change", () => reset(true));
