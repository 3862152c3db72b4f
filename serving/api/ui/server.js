// Requests to the service that this page comes from; addresses are relative, for proxies with a prefix.

import { TEXT } from "./strings.js";

const KEY = "halftone-key";
const MOST_TRIES = 6;

export const key = () => sessionStorage.getItem(KEY) ?? "";

export function keep(value) {
  if (value) sessionStorage.setItem(KEY, value);
  else sessionStorage.removeItem(KEY);
}

export class Failure extends Error {
  constructor(message, status = 0, code = "", retryAfter = 0) {
    super(message);
    Object.assign(this, { status, code, retryAfter });
  }
}

export async function send(path, { headers, ...options } = {}) {
  const all = { ...headers, ...(key() && { "X-API-Key": key() }) };
  let response;
  try {
    response = await fetch(path, { ...options, headers: all });
  } catch {
    throw new Failure(TEXT.noConnection);
  }
  if (response.ok) return response;
  const error = await response.json().then(body => body.error, () => null);
  if (!error?.message) throw new Failure(TEXT.notJson(response.status), response.status);
  throw new Failure(error.message, response.status, error.code, Number(response.headers.get("Retry-After")));
}

export const json = async (path, options) => (await send(path, options)).json();

// A service that is busy says when to come again; `waiting` gets these seconds.
export async function sendPatiently(path, options, waiting) {
  for (let tries = 1; ; tries++) {
    try {
      return await send(path, options);
    } catch (failure) {
      if (![429, 503].includes(failure.status) || !failure.retryAfter || tries === MOST_TRIES) throw failure;
      waiting(failure.retryAfter);
      await new Promise(resolve => setTimeout(resolve, 1000 * failure.retryAfter));
    }
  }
}

export async function sendPicture(path, picture, query, waiting) {
  const started = performance.now();
  const headers = { "Content-Type": picture.file.type.startsWith("image/") ? picture.file.type : "application/octet-stream" };
  const options = { method: "POST", body: picture.file, headers };
  const response = await sendPatiently(`${path}?${new URLSearchParams(query)}`, options, waiting);
  const answer = await response.json();
  return { answer, stages: stages(response.headers.get("Server-Timing"), performance.now() - started) };
}

function stages(header, total) {
  if (!header) return { total, parts: [] };
  const parts = header.split(",").map(each => each.trim().split(";dur=")).map(([name, value]) => [name, Number(value)]);
  const known = parts.reduce((sum, [, value]) => sum + value, 0);
  return { total, parts: [...parts, ["network", Math.max(0, total - known)]] };
}
