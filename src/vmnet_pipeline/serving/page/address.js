// The state of the page in its address, so that reload, back and shared links work.
//
// #item=ID or #upload=TOKEN, or neither with words alone; text=WORDS, query=SIDE; same=1 and with=item:ID or upload:TOKEN for what is like an answer;
// filter=..., repeatable; variety, all=1, n and pick.

export function readAddress() {
  const found = new URLSearchParams(location.hash.slice(1));
  return {
    ask: readAsk(found),
    side: found.get("query") === "music" ? "music" : "video",
    same: found.has("same"),
    text: found.get("text") ?? "",
    under: readUnder(found.get("with")),
    filters: found.getAll("filter"),
    variety: Number(found.get("variety")) || 0,
    all: found.has("all"),
    n: Math.max(10, Number(found.get("n")) || 10),
    pick: found.get("pick"),
  };
}

function readAsk(found) {
  for (const [name, field] of [["item", "id"], ["upload", "upload"]]) {
    if (found.get(name)) return { [field]: found.get(name) };
  }
  return null;
}

function readUnder(text) {
  const [kind, ...rest] = (text ?? "").split(":");
  const name = rest.join(":");
  return name ? { [kind === "upload" ? "upload" : "id"]: name } : null;
}

export function writeAddress(state, { push }) {
  const words = new URLSearchParams();
  if (state.ask.id) words.set("item", state.ask.id);
  if (state.ask.upload) words.set("upload", state.ask.upload);
  if (state.text) words.set("text", state.text);
  words.set("query", state.side);
  if (state.same) words.set("same", "1");
  if (state.under) words.set("with", state.under.id ? `item:${state.under.id}` : `upload:${state.under.upload}`);
  for (const filter of state.filters) words.append("filter", filter);
  if (state.variety) words.set("variety", String(state.variety));
  if (state.all) words.set("all", "1");
  if (state.n > 10) words.set("n", String(state.n));
  if (state.pick) words.set("pick", state.pick);
  const depth = (history.state?.depth ?? 0) + (push ? 1 : 0);
  const address = `${location.pathname}${location.search}#${words}`;
  const known = { depth, name: state.title }; // the service does not know the names of files
  if (push) history.pushState(known, "", address);
  else history.replaceState(known, "", address);
}

export const readName = () => history.state?.name;

export const hasBefore = () => (history.state?.depth ?? 0) > 0;
