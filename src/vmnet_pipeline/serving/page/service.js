// Talking to the service: keys, waiting for a turn, uploads with progress, and what can be cancelled.

import { $ } from "./dom.js";
import { formatSize } from "./text.js";

const TRIES = 5;

export class Cancelled extends Error {}

export async function call(path, options = {}, tries = TRIES) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw new Cancelled();
    throw new Error("The service does not answer. Is it still running?");
  }
  if (response.status === 401) {
    await askKey();
    return call(path, options, tries);
  }
  if ([429, 503].includes(response.status) && tries > 1) {
    await waitTurn(response.headers.get("Retry-After"), options.signal);
    return call(path, options, tries - 1);
  }
  return resolveLinks(readAnswer(response.status, await response.text()), response.url);
}

export function post(path, content, signal) {
  const headers = { "Content-Type": "application/json" };
  return call(path, { method: "POST", headers, body: JSON.stringify(content), signal });
}

// Links are relative to the address that was asked, so that they hold below any path of a proxy.
function resolveLinks(content, address) {
  const resolve = (link) => link && new URL(link, address).href;
  for (const item of [...(content.results ?? []), ...(content.items ?? [])]) item.media = resolve(item.media);
  for (const side of Object.keys(content.media ?? {})) content.media[side] = resolve(content.media[side]);
  return content;
}

export class Refused extends Error {
  constructor(message, code) {
    super(message);
    this.code = code;
  }
}

function readAnswer(status, text) {
  let content = null;
  try {
    content = JSON.parse(text);
  } catch {
    // said below
  }
  if (status >= 200 && status < 300 && content) return content;
  throw new Refused(content?.error?.message ?? `The service answered with error ${status}.`, content?.error?.code);
}

function waitTurn(header, signal) {
  const seconds = Number(header) || 2;
  say(`The service is busy; trying again in ${seconds} s.`);
  return new Promise((resolve, reject) => {
    setTimeout(resolve, 1000 * seconds);
    signal?.addEventListener("abort", () => reject(new Cancelled()));
  });
}

// fetch cannot tell how much of a body has been sent.
function send(file, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", "v1/uploads");
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.onprogress = (event) => showSent(event.loaded, event.total);
    request.upload.onload = () => showWork("Reading the file …");
    request.onload = () => resolve(request);
    request.onerror = () => reject(new Error("The file could not be sent. Is the service still running?"));
    request.onabort = () => reject(new Cancelled());
    signal.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}

// What the service knows of a file that it keeps for some minutes.
export async function upload(file, signal, tries = TRIES) {
  showSent(0, file.size);
  const request = await send(file, signal);
  if (request.status === 401) {
    await askKey();
    return upload(file, signal, tries);
  }
  if ([429, 503].includes(request.status) && tries > 1) {
    await waitTurn(request.getResponseHeader("Retry-After"), signal);
    return upload(file, signal, tries - 1);
  }
  return readAnswer(request.status, request.responseText);
}

let asking = null;

// One question, however many requests wait for its answer.
function askKey() {
  asking ??= openDoor().finally(() => {
    asking = null;
  });
  return asking;
}

function openDoor() {
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

export function say(text) {
  $("status").textContent = text;
}

export function showWork(text) {
  $("work").hidden = false;
  $("progress").removeAttribute("value");
  say(text);
}

function showSent(sent, total) {
  $("work").hidden = false;
  $("progress").value = total ? sent / total : 0;
  say(`Sending: ${formatSize(sent)} of ${formatSize(total)}`);
}

export function endWork() {
  $("work").hidden = true;
  say("");
}
