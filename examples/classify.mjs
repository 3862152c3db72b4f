// Classify a picture: `node classify.mjs PICTURE [SERVER]`. Needs Node.js 18 or newer and nothing else.

import { readFile } from "node:fs/promises";

const [picture, server = "http://127.0.0.1:3000"] = process.argv.slice(2);
const response = await fetch(`${server}/classify?top_k=3`, {
  method: "POST",
  headers: { "Content-Type": "application/octet-stream" },
  body: await readFile(picture),
  signal: AbortSignal.timeout(30_000),
});
const answer = await response.json();
if (!response.ok) {
  console.error(`${response.status}: ${answer.error.message}`);
  process.exit(1);
}
for (const { label, probability } of answer.predictions) {
  console.log(`${probability.toFixed(3)} ${label}`);
}
