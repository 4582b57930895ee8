// The items of the collection as a list, searched by words and filters.

import { makePicture } from "./answers.js";
import { $, make, makeButton, settle } from "./dom.js";
import { readFields, showFields } from "./filters.js";
import { call } from "./service.js";
import { listFacts, nameItem } from "./text.js";

const PAGE = 20;
const KINDS = { music: "tracks", video: "videos" };
let onAsk = () => {};
let asked = 0;

const listedSide = () => $("library-side").value;

export function begin(ask) {
  onAsk = ask;
  $("library").hidden = false;
  showFields($("library-filters"), listedSide());
  list(0);
}

async function list(offset) {
  const mine = ++asked;
  const side = listedSide();
  const words = new URLSearchParams({ side, text: $("library-text").value.slice(0, 200), offset, limit: PAGE });
  for (const filter of readFields($("library-filters"))) words.append("filter", filter);
  try {
    const { total, items } = await call(`v1/items?${words}`);
    if (mine !== asked) return;
    const rows = items.map((item) => makeRow(item, side));
    if (offset) $("library-items").append(...rows);
    else $("library-items").replaceChildren(...rows);
    const n = $("library-items").children.length;
    $("library-count").textContent = total ? `${n} of ${total} ${KINDS[side]}. Choose one to search with it.` : `No ${KINDS[side]} with these words.`;
    $("library-more").hidden = n >= total;
  } catch (error) {
    if (mine === asked) $("library-count").textContent = error.message;
  }
}

function makeRow(item, side) {
  const button = makeButton("entry", undefined, () => onAsk(item.id, side));
  button.append(make("span", "name", nameItem(item)), make("span", "facts", listFacts(item.metadata)));
  const row = make("li");
  row.append(makePicture(item, side), button);
  return row;
}

const listAgain = settle(() => list(0));
$("library-text").addEventListener("input", listAgain);
$("library-filters").addEventListener("input", listAgain);
$("library-side").addEventListener("change", () => {
  showFields($("library-filters"), listedSide());
  list(0);
});
$("library-more").addEventListener("click", () => list($("library-items").children.length));
$("library-search").addEventListener("submit", (event) => event.preventDefault());
