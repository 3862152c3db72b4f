// The answer of the picture that is shown: first answer, how far to trust it, bars, prediction set and times.

import { at, make, say } from "./dom.js";
import { TEXT, milliseconds, percent } from "./strings.js";

const MOST_IN_SET = 8;

export function showAnswer({ answer, stages }, model, chosen, choose) {
  const [first] = answer.predictions;
  at("first").replaceChildren(make("span", { className: "first-label" }, first.label), " ", make("span", { className: "first-share" }, percent(first.probability)));
  at("first").classList.toggle("long", first.label.length > 18);
  const words = notes(answer, model?.promises);
  at("notes").replaceChildren(...words.map(([kind, title, text]) =>
    make("p", { className: `note ${kind}` }, make("strong", {}, title), ` ${text}`)));
  at("bars").replaceChildren(...answer.predictions.map((each, i) => bar(each, i, each.index === chosen, choose)));
  showSet(answer.prediction_set);
  showTiming(stages);
  say(at("announce"), TEXT.announce(first.label, first.probability, words.map(([, title, text]) => `${title}. ${text}`).join(" ")));
}

function notes({ confident, unfamiliar }, promises) {
  // With a note the pictures were too few for a promise.
  const error = promises?.note ? null : (promises?.error ?? null);
  const found = [];
  if (unfamiliar) found.push(["unfamiliar", TEXT.unfamiliar, TEXT.unfamiliarMore]);
  if (confident === true && !unfamiliar) found.push(["sure", TEXT.sure, TEXT.sureMore(error)]);
  if (confident === false) found.push(["not-sure", TEXT.notSure, TEXT.notSureMore(error)]);
  return found;
}

// With `choose` a row is a button that draws the heat map for its class.
function bar({ label, index, probability }, place, pressed, choose) {
  const filled = make("span", { className: "bar-filled" });
  filled.style.width = `${100 * probability}%`;
  const parts = [make("span", { className: "bar-label" }, label), make("span", { className: "bar-share" }, percent(probability)), make("span", { className: "bar" }, filled)];
  const inside = choose
    ? make("button", { type: "button", className: "bar-row", title: TEXT.showHeat(label), "aria-pressed": pressed, onclick: () => choose(index) }, ...parts)
    : make("span", { className: "bar-row" }, ...parts);
  return make("li", { className: place ? "" : "best" }, inside);
}

function showSet(set) {
  at("set").hidden = !set;
  if (!set) return;
  const shown = set.labels.slice(0, MOST_IN_SET);
  const left = set.labels.length - shown.length;
  const labels = shown.flatMap((label, i) => [i ? ", " : "", make("strong", {}, label)]);
  at("set").replaceChildren(TEXT.set(set.coverage, set.labels), ...labels, left ? TEXT.setMore(left) : "", ".");
}

function showTiming({ total, parts }) {
  const line = make("span", { className: "timing-line", "aria-hidden": "true" });
  const legend = make("ul", { className: "timing-legend" });
  for (const [name, value] of parts) {
    const part = make("span", { className: `stage-${name}` });
    part.style.flexGrow = value;
    line.append(part);
    legend.append(make("li", { className: `stage-${name}` }, TEXT.stages[name] ?? name, " ", make("b", {}, milliseconds(value))));
  }
  at("timing").replaceChildren(make("p", {}, TEXT.answeredIn(total)), ...(parts.length ? [line, legend] : []));
}
