// The description of the HTTP API (OpenAPI), made readable.

import { $, make } from "./dom.js";

const description = await (await fetch("openapi.json")).json();
const root = new URL(".", location.href).href;

function resolve(schema) {
  const name = schema?.$ref?.split("/").pop();
  return name ? { name, ...description.components.schemas[name] } : (schema ?? {});
}

function nameType(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(nameType).join(" or ");
  if (schema.type === "array") return `list of ${nameType(schema.items ?? {})}`;
  if (schema.enum) return schema.enum.join(" or ");
  if (schema.const !== undefined) return String(schema.const);
  return schema.format === "binary" ? "file" : (schema.type ?? "anything");
}

function makeTable(caption, rows) {
  const table = make("table");
  table.append(make("caption", "", caption));
  const head = table.createTHead().insertRow();
  for (const name of ["Name", "Type", "Meaning"]) {
    const cell = make("th", "", name);
    cell.scope = "col";
    head.append(cell);
  }
  const body = table.createTBody();
  for (const cells of rows) {
    const row = body.insertRow();
    const name = make("th");
    name.scope = "row";
    name.append(make("code", "", cells[0]));
    row.append(name, ...cells.slice(1).map((text) => make("td", "", text)));
  }
  const box = make("div", "scroll");
  box.tabIndex = 0;
  box.setAttribute("role", "group");
  box.setAttribute("aria-label", caption);
  box.append(table);
  return box;
}

function describeValue(name, schema, needed, text) {
  const standard = schema.default === undefined || schema.default === null ? "" : `Default: ${JSON.stringify(schema.default)}.`;
  return [name, nameType(schema), [text ?? schema.description, needed ? "Needed." : standard].filter(Boolean).join(" ")];
}

function listFields(schema) {
  const known = resolve(schema);
  const needed = new Set(known.required ?? []);
  return Object.entries(known.properties ?? {}).map(([name, field]) => describeValue(name, field, needed.has(name)));
}

function writeExample(method, path, content) {
  const address = root + path.slice(1);
  const [example] = Object.values(content?.["application/json"]?.examples ?? {});
  if (example) return `curl --json '${JSON.stringify(example.value)}' ${address}`;
  if (content?.["multipart/form-data"]) return `curl -F file=@clip.mp4 ${address}`;
  return method === "get" ? `curl ${address}` : "";
}

function makeOperation(path, method, operation) {
  const section = make("section");
  section.append(make("h2", "", `${method.toUpperCase()} ${path}`), make("p", "", operation.description ?? operation.summary));
  const parameters = (operation.parameters ?? []).map((parameter) =>
    describeValue(`${parameter.name} (${parameter.in})`, parameter.schema ?? {}, parameter.required, parameter.description ?? parameter.schema?.description),
  );
  if (parameters.length) section.append(makeTable("Parameters", parameters));
  const content = operation.requestBody?.content;
  if (content) section.append(make("p", "", `Body: ${Object.keys(content).join(", ")}`));
  const fields = listFields(content?.["application/json"]?.schema);
  if (fields.length) section.append(makeTable("Fields of a JSON body", fields));
  const answer = Object.entries(operation.responses).find(([status]) => status.startsWith("2"));
  const answered = listFields(answer?.[1].content?.["application/json"]?.schema);
  if (answered.length) section.append(makeTable(`Answer ${answer[0]}`, answered));
  const errors = Object.entries(operation.responses).filter(([status]) => status >= "4");
  section.append(makeErrors(errors));
  const example = writeExample(method, path, content);
  if (example) {
    const code = make("pre", "", example);
    code.tabIndex = 0;
    section.append(code);
  }
  return section;
}

function makeErrors(errors) {
  const box = make("details");
  const list = make("ul");
  list.append(...errors.map(([status, { description: text }]) => make("li", "", `${status}: ${text}`)));
  box.append(make("summary", "", "Errors"), list);
  return box;
}

function makeSchema(name) {
  const section = make("section");
  const schema = resolve({ $ref: name });
  section.append(make("h2", "", name), make("p", "", schema.description ?? ""), makeTable(`Fields of ${name}`, listFields(schema)));
  return section;
}

// Bodies and answers are described where they are used; what is inside of them, below.
const used = JSON.stringify(description.paths);
const nested = Object.keys(description.components.schemas).filter(
  (name) => !used.includes(`schemas/${name}"`) && description.components.schemas[name].properties,
);
$("operations").replaceChildren(
  ...Object.entries(description.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => makeOperation(path, method, operation)),
  ),
  ...nested.map(makeSchema),
);
