// The player. The video is the timeline: bar and end are its own, and music ends or loops with it.

import { $ } from "./dom.js";
import { formatTime } from "./text.js";

const MOST_DRIFT_S = 0.25;

const picture = $("picture");
const music = $("sound");
const own = $("own-sound");
let ownUrl = "";
let startS = 0; // of the passage in the track
let gain = 1; // of the music, so that tracks are as loud as each other

const hasPicture = () => Boolean(picture.getAttribute("src"));
const timeline = () => (hasPicture() ? picture : music);
const isOwn = () => $("own").getAttribute("aria-pressed") === "true";
const audible = () => (isOwn() ? own : music);

// Where a sound is when the picture is at some time; a shorter one repeats.
function findPlace(sound, time) {
  const from = sound === music ? startS : 0;
  const length = (sound.duration || Infinity) - from;
  return from + (length > 0.1 ? time % length : 0);
}

function setSource(element, url) {
  if (!url) element.removeAttribute("src");
  else if (element.src !== url) element.src = url;
  if (!url) element.load();
}

// `ownSound`: address of the sound that belongs to the picture, or empty: there is none.
export function load({ pictureUrl, musicUrl, ownSound = "" }) {
  stop();
  setPart(0, 1);
  ownUrl = pictureUrl ? ownSound : "";
  setSource(picture, pictureUrl);
  setSource(music, musicUrl);
  setSource(own, "");
  $("own").setAttribute("aria-pressed", "false");
  $("ab").hidden = !ownUrl;
  $("full").hidden = !pictureUrl;
  for (const element of [picture, music]) if (element.getAttribute("src")) element.currentTime = 0;
  follow();
}

// The part of the track that plays, and how much softer it is than its file.
export function setPart(start, factor) {
  startS = start;
  gain = factor;
  setVolume();
  if (hasPicture() && music.duration) music.currentTime = findPlace(music, picture.currentTime);
}

export function offerOwn(url) {
  ownUrl = url;
  $("ab").hidden = !url;
}

export const isPlaying = () => !timeline().paused;

export async function play() {
  document.dispatchEvent(new CustomEvent("player:play"));
  const main = timeline();
  if (main.ended || (main.duration && main.currentTime >= main.duration - 0.05)) main.currentTime = 0;
  const sound = audible();
  const wanted = [main];
  if (sound !== main && sound.getAttribute("src")) {
    sound.currentTime = findPlace(sound, main.currentTime);
    wanted.push(sound);
  }
  try {
    await Promise.all(wanted.map((element) => element.play()));
  } catch (error) {
    if (error.name === "AbortError") return; // another one was chosen meanwhile
    stop();
    const refused = error.name === "NotAllowedError";
    tell(refused ? "Press Play to hear it." : "This browser cannot play one of the two.");
  }
}

function tell(text) {
  document.dispatchEvent(new CustomEvent("player:fault", { detail: text }));
}

export function stop() {
  for (const element of [picture, music, own]) element.pause();
}

function follow() {
  const main = timeline();
  const length = main.duration || 0;
  $("seek").max = String(length || 1);
  $("seek").value = String(main.currentTime);
  const words = `${formatTime(main.currentTime)} / ${formatTime(length)}`;
  $("clock").textContent = words;
  $("seek").setAttribute("aria-valuetext", words);
  const sound = audible();
  if (main === sound || main.paused || main.seeking || !sound.duration || sound.seeking) return;
  const wanted = findPlace(sound, main.currentTime);
  if (Math.abs(sound.currentTime - wanted) > MOST_DRIFT_S) sound.currentTime = wanted;
  if (sound.paused) sound.play().catch(() => {});
}

function seek(time) {
  timeline().currentTime = time;
  const sound = audible();
  if (sound !== timeline() && sound.duration) sound.currentTime = findPlace(sound, time);
}

function chooseSound(wantOwn) {
  const wasPlaying = isPlaying();
  audible().pause();
  $("own").setAttribute("aria-pressed", String(wantOwn));
  if (wantOwn) setSource(own, ownUrl);
  if (wasPlaying) play();
  document.dispatchEvent(new CustomEvent("player:sound", { detail: wantOwn }));
}

function setVolume() {
  for (const element of [music, own]) {
    element.volume = Number($("volume").value) * (element === music ? gain : 1);
    element.muted = $("mute").getAttribute("aria-pressed") === "true";
  }
}

function toggleFull() {
  if (document.fullscreenElement) document.exitFullscreen();
  else if ($("stage").requestFullscreen) $("stage").requestFullscreen().catch(() => {});
  else picture.webkitEnterFullscreen?.(); // phones that show only videos so
}

function showState() {
  $("play").textContent = isPlaying() ? "Pause" : "Play";
}

for (const element of [picture, music]) {
  for (const name of ["timeupdate", "loadedmetadata", "durationchange", "seeked"]) {
    element.addEventListener(name, () => element === timeline() && follow());
  }
  for (const name of ["play", "pause", "ended", "emptied"]) element.addEventListener(name, showState);
}
picture.addEventListener("ended", stop);
picture.addEventListener("pause", () => hasPicture() && audible().pause());
picture.addEventListener("waiting", () => audible().pause()); // `follow` lets it go on
for (const sound of [music, own]) {
  sound.addEventListener("ended", () => {
    if (hasPicture() && !picture.paused && sound === audible()) follow();
  });
}
$("play").addEventListener("click", () => (isPlaying() ? stop() : play()));
picture.addEventListener("click", () => $("play").click());
$("seek").addEventListener("input", () => seek(Number($("seek").value)));
$("own").addEventListener("click", () => chooseSound(!isOwn()));
$("volume").addEventListener("input", () => {
  $("mute").setAttribute("aria-pressed", "false");
  setVolume();
});
$("mute").addEventListener("click", () => {
  const muted = $("mute").getAttribute("aria-pressed") !== "true";
  $("mute").setAttribute("aria-pressed", String(muted));
  setVolume();
});
$("full").addEventListener("click", toggleFull);
document.addEventListener("fullscreenchange", () => {
  $("full").textContent = document.fullscreenElement ? "Leave full screen" : "Full screen";
});

// On a phone the player becomes a bar at the lower edge when it has been scrolled away.
const place = $("stage-place");
new IntersectionObserver(([entry]) => {
  const isSmall = !entry.isIntersecting && entry.boundingClientRect.top < 0 && matchMedia("(max-width: 55.99rem)").matches;
  if (isSmall) place.style.minHeight = `${place.offsetHeight}px`;
  $("stage").classList.toggle("mini", isSmall);
  if (!isSmall) place.style.minHeight = "";
}).observe(place);
