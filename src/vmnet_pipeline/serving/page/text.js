// Words and numbers for people.

export const formatTime = (seconds) => {
  const whole = Math.floor(seconds || 0);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
};

export const formatSize = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;

// 0.4 % and 21 %, but never 0 % for what is possible, nor 100 % for what is not certain.
export function formatShare(share) {
  const percent = 100 * share;
  if (percent > 0 && percent < 0.1) return "< 0.1 %";
  if (percent > 99.9 && percent < 100) return "> 99.9 %";
  return `${percent.toFixed(percent < 10 ? 1 : 0)} %`;
}

const NAMES = { duration_s: "length", tags: "tag", licence: "licence", bpm: "tempo" };

export const nameColumn = (name) => NAMES[name] ?? name.replaceAll("_", " ");

export const nameItem = ({ id, metadata }) => metadata.title || id;

const TOLD_APART = new Set(["title", "duration_s"]);

// Title aside, what is known of an item, in one line.
export function listFacts(metadata) {
  const facts = [metadata.duration_s && formatTime(metadata.duration_s)];
  for (const [name, value] of Object.entries(metadata)) {
    if (TOLD_APART.has(name) || value === null || value === "" || value === metadata.title) continue;
    facts.push(typeof value === "number" ? `${nameColumn(name)} ${Number(value.toFixed(2))}` : String(value));
  }
  return facts.filter(Boolean).join(" · ");
}
