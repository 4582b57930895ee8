// A field for every column of the metadata that filters can use.

import { make } from "./dom.js";
import { nameColumn } from "./text.js";

const MAX_OPTIONS = 50;
let columns = { music: [], video: [] };

export function setColumns(found) {
  columns = found;
}

// Fills a form with fields for one side; fields of the same name keep what was entered.
export function showFields(box, side, filters = readFields(box)) {
  const usable = columns[side].filter(({ name }) => !/[<>=!]/.test(name));
  box.replaceChildren(...usable.flatMap((column) => makeFields(column, box.id)));
  writeFields(box, filters);
}

function makeFields(column, prefix) {
  if (column.kind === "number") {
    return [makeNumber(column, ">=", "at least", column.least), makeNumber(column, "<=", "at most", column.most)];
  }
  const label = make("label", "", `${nameColumn(column.name)} `);
  label.append(column.n_values > MAX_OPTIONS ? makeText(column, `${prefix}-${column.name}`, label) : makeChoice(column));
  return [label];
}

function makeNumber({ name }, operator, words, hint) {
  const unit = name.endsWith("_s") ? " s" : "";
  const label = make("label", "", `${nameColumn(name)} ${words} `);
  const field = make("input");
  Object.assign(field, { type: "number", step: "any", placeholder: String(Number(hint.toFixed(1))), name: name + operator });
  label.append(field, unit);
  return label;
}

function makeChoice({ name, values }) {
  const field = make("select");
  field.name = `${name}=`;
  field.append(new Option("any", ""), ...values.map((value) => new Option(value, value)));
  return field;
}

function makeText({ name, values }, id, label) {
  const field = make("input");
  const list = make("datalist");
  list.id = `${id}-values`;
  list.append(...values.map((value) => new Option(value, value)));
  Object.assign(field, { type: "text", placeholder: "any", name: `${name}=`, maxLength: 150 });
  field.setAttribute("list", list.id);
  label.append(list);
  return field;
}

const listFields = (box) => [...box.querySelectorAll("input, select")];

// Conditions as the service reads them, e.g. `tags=rock`, `duration_s<=60`.
export const readFields = (box) =>
  listFields(box).filter((field) => field.value !== "").map((field) => field.name + field.value);

export function writeFields(box, filters) {
  for (const field of listFields(box)) {
    const own = filters.find((filter) => filter.startsWith(field.name));
    field.value = own ? own.slice(field.name.length) : "";
  }
}
