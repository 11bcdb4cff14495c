// Says what foreign tools make of the published contract: AsyncAPI's parser, ajv in strict mode, a generator of types.
// stdin: {documents: {name: text}, schemas: {name: {root, parts}}, values: [[schema, value]]}; stdout: what each said.
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";
import Ajv from "ajv";
import addFormats from "ajv-formats";
import { compile } from "json-schema-to-typescript";

const asked = JSON.parse(readFileSync(0, "utf8"));
const said = { documents: {}, compiled: {}, values: [], types: {} };

for (const [name, text] of Object.entries(asked.documents)) {
  const { document, diagnostics } = await new Parser().parse(text);
  said.documents[name] = {
    version: document?.version(),
    messages: document?.allMessages().all().map((each) => each.id()),
    diagnostics: diagnostics.map((each) => `${each.code} ${each.path.join(".")} ${each.message}`),
  };
}

const validators = {};
for (const [name, schema] of Object.entries(asked.schemas)) {
  const ajv = new Ajv.default({ strict: true, strictRequired: true, allErrors: true });
  addFormats.default(ajv);
  try {
    validators[name] = ajv.compile(schema);
    said.compiled[name] = "";
    said.types[name] = await compile(structuredClone(schema), name, { bannerComment: "", unreachableDefinitions: true });
  } catch (error) {
    said.compiled[name] = error.message;
  }
}

for (const [name, value] of asked.values) said.values.push(validators[name](value));

process.stdout.write(JSON.stringify(said));
