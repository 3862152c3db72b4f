// The request of this page as a command and as programs. The key itself is never part of them.

const shell = text => `'${text.replaceAll("'", String.raw`'\''`)}'`;
// A string literal of JSON is one of Python and JavaScript as well.
const literal = JSON.stringify;

function curl({ url, name, download, keyed }) {
  const get = download ? `curl -sSo ${shell(name)} ${shell(download)}\n` : "";
  const key = keyed ? ' -H "X-API-Key: $HALFTONE_KEY"' : "";
  return `${get}curl --data-binary @${shell(name)}${key} \\\n  ${shell(url)}`;
}

function python({ url, name, download, keyed }) {
  const imports = keyed ? "import json\nimport os\nfrom urllib.request import Request, urlopen" : "import json\nfrom urllib.request import Request, urlopen";
  const source = download ? `urlopen(${literal(download)}).read()` : `open(${literal(name)}, "rb").read()`;
  const headers = `{"Content-Type": "application/octet-stream"${keyed ? ', "X-API-Key": os.environ["HALFTONE_KEY"]' : ""}}`;
  return `${imports}

picture = ${source}
request = Request(
    ${literal(url)},
    data=picture,
    headers=${headers},
)
for each in json.load(urlopen(request))["predictions"]:
    print(f"{each['probability']:6.1%}  {each['label']}")`;
}

function javascript({ url, name, download, keyed }) {
  const source = download ? `await (await fetch(${literal(download)})).blob()` : `await readFile(${literal(name)})`;
  const headers = `{ "Content-Type": "application/octet-stream"${keyed ? ', "X-API-Key": process.env.HALFTONE_KEY' : ""} }`;
  return `${download ? "" : 'import { readFile } from "node:fs/promises";\n\n'}const body = ${source};
const headers = ${headers};
const response = await fetch(${literal(url)}, { method: "POST", body, headers });
for (const { label, probability } of (await response.json()).predictions) {
  console.log(\`\${(100 * probability).toFixed(1)} %  \${label}\`);
}`;
}

export const SNIPPETS = { curl, python, javascript };
