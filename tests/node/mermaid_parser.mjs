// Mermaid's own parser behind a pipe: one JSON string (a chart's text) in on each line, `null` or the parser's
// complaint out. Mermaid's sanitiser wants a browser's document and is no part of the grammar, so it is passed by.
import DOMPurify from 'dompurify';
import { createInterface } from 'node:readline';

DOMPurify.addHook = () => {};
DOMPurify.sanitize = (text) => text;
const { default: mermaid } = await import('mermaid');

for await (const line of createInterface({ input: process.stdin })) {
  let answer = null;
  try {
    await mermaid.parse(JSON.parse(line));
  } catch (error) {
    answer = String(error.message ?? error).slice(0, 500);
  }
  process.stdout.write(JSON.stringify(answer) + '\n');
}
