// Live figures: counts of /metrics every two seconds, their differences as four small charts, and drift in words.

import { at, draw, make, say } from "./dom.js";
import { key } from "./server.js";
import { TEXT } from "./strings.js";

const EVERY = 2000;
const POINTS = 60;
const RATE_OVER = 3;
const QUANTILES_OVER = 15;
const ROUTES = /^\/(classify|classify_batch|explain|v2\/models\/.*\/infer)$/;
const [WIDTH, HEIGHT] = [240, 64];

let past = [];
let refused = null;

export async function watch() {
  for (;;) {
    if (document.visibilityState === "visible" && key() !== refused && !(await observe())) return;
    await new Promise(resolve => setTimeout(resolve, EVERY));
  }
}

// Returns false where the service shows no metrics.
async function observe() {
  let response;
  try {
    response = await fetch("metrics", { headers: key() ? { "X-API-Key": key() } : {} });
  } catch {
    return true;
  }
  const shown = response.ok;
  refused = response.status === 401 ? key() : null;
  at("live").hidden = at("metrics-link").hidden = !shown;
  if (shown) {
    past = [...past, { time: performance.now(), ...read(await response.text()) }].slice(-POINTS - QUANTILES_OVER);
    show();
  }
  return response.status !== 404;
}

const LINE = /^(\w+)(?:\{(.*)\})? (\S+)/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

function read(text) {
  const found = { requests: 0, buckets: new Map(), queue: 0, errors: new Map(), drift: new Map() };
  for (const line of text.split("\n")) {
    const [, name, written = "", value] = LINE.exec(line) ?? [];
    if (name) add(found, name, Object.fromEntries([...written.matchAll(LABEL)].map(([, label, each]) => [label, each])), Number(value));
  }
  return found;
}

function add(found, name, labels, value) {
  if (name === "halftone_queue_depth") found.queue += value;
  if (name === "halftone_rejected_total" && value) found.errors.set(labels.reason, value);
  if (name === "halftone_model_info") found.drift.set(labels.name, found.drift.get(labels.name) ?? new Map());
  if (name === "halftone_input_drift_detected") addDrift(found.drift, labels, value);
  if (!ROUTES.test(labels.route)) return;
  if (name === "halftone_request_seconds_count") found.requests += value;
  if (name === "halftone_request_seconds_bucket") found.buckets.set(labels.le, (found.buckets.get(labels.le) ?? 0) + value);
}

// Of several workers or versions, what one of them found counts.
function addDrift(models, { model, measure }, value) {
  const measures = models.get(model) ?? new Map();
  const found = Number.isNaN(value) ? -1 : value;
  models.set(model, measures.set(measure, Math.max(measures.get(measure) ?? -1, found)));
}

function rate(end) {
  const [now, before] = [past[end], past[Math.max(0, end - RATE_OVER)]];
  return now === before ? 0 : Math.max(0, (1000 * (now.requests - before.requests)) / (now.time - before.time));
}

// A quantile in milliseconds of the requests of the last half minute, on a line within its bucket.
function quantile(share, end) {
  const [now, before] = [past[end], past[Math.max(0, end - QUANTILES_OVER)]];
  const counts = [...now.buckets].map(([bound, count]) => [bound === "+Inf" ? Infinity : Number(bound), count - (before.buckets.get(bound) ?? 0)]);
  counts.sort(([a], [b]) => a - b);
  const wanted = share * (counts.at(-1)?.[1] ?? 0);
  if (!wanted) return null;
  let [low, below] = [0, 0];
  for (const [bound, count] of counts) {
    if (count >= wanted) return 1000 * (bound === Infinity ? low : low + ((bound - low) * (wanted - below)) / (count - below));
    [low, below] = [bound, count];
  }
  return null;
}

function show() {
  const ends = past.map((_, i) => i).slice(-POINTS);
  const last = past.length - 1;
  const [p50, p99] = [0.5, 0.99].map(share => ends.map(end => quantile(share, end)));
  const now = [p50.at(-1), p99.at(-1)];
  at("charts").replaceChildren(
    chart(TEXT.rate, TEXT.perSecond(rate(last)), [ends.map(rate)]),
    chart(TEXT.latency, now[0] === null ? TEXT.quiet : TEXT.quantiles(...now), [p50, p99]),
    chart(TEXT.queue, TEXT.queued(past[last].queue), [ends.map(end => past[end].queue)]),
    chart(TEXT.errors, TEXT.errorTotal(total(last)), [ends.map(end => total(end) - total(Math.max(0, end - 1)))], errors(past[last].errors)),
  );
  showDrift(past[last].drift);
}

function showDrift(models) {
  const lines = [...models].map(([name, measures]) => TEXT.drift(models.size > 1 ? name : "", drift(name, measures)));
  while (at("drift").children.length < lines.length) at("drift").append(make("p"));
  [...at("drift").children].forEach((line, i) => say(line, lines[i] ?? ""));
}

function drift(name, measures) {
  if (!measures.size) return TEXT.driftUnknown(name);
  const values = [...measures];
  const found = values.filter(([, value]) => value === 1).map(([measure]) => TEXT.measures[measure]);
  if (found.length) return TEXT.driftFound(found);
  return values.every(([, value]) => value < 0) ? TEXT.driftWaits : TEXT.driftNone;
}

const total = end => [...past[end].errors.values()].reduce((sum, each) => sum + each, 0);

function errors(counts) {
  return [...counts].sort(([, a], [, b]) => b - a).map(([kind, count]) => TEXT.errorCount(kind, count)).join(", ");
}

function chart(title, value, series, note = "") {
  const top = Math.max(1e-9, ...series.flat());
  const image = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": TEXT.chart(title, value) });
  image.append(draw("path", { d: `M0 ${HEIGHT - 1}H${WIDTH}`, class: "axis" }));
  series.forEach((values, i) => image.append(draw("path", { d: line(values, top), class: `line line-${i}` })));
  return make("div", { className: "chart" }, make("h3", {}, title), make("p", { className: "chart-value" }, value), make("p", { className: "chart-note quiet" }, note), image);
}

function line(values, top) {
  const x = i => (WIDTH * (i + POINTS - values.length)) / (POINTS - 1);
  const y = value => HEIGHT - 2 - ((HEIGHT - 6) * value) / top;
  let open = false;
  return values.map((value, i) => {
    if (value === null) return (open = false) || "";
    const step = `${open ? "L" : "M"}${x(i).toFixed(1)} ${y(value).toFixed(1)}`;
    open = true;
    return step;
  }).join("");
}
