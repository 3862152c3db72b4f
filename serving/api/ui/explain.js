// The heat map of the picture that is shown, for a class; a picture keeps those that it has.

import { at, make, say } from "./dom.js";
import { drawHeat, place } from "./heat.js";
import { json, sendPicture } from "./server.js";
import { TEXT } from "./strings.js";

let latest = 0;

export async function explainable() {
  const { paths } = await json("docs.json");
  return "/explain" in paths;
}

export function fillClasses(answer, model) {
  const options = entries => entries.map(([index, label]) => make("option", { value: index }, label));
  const best = answer.predictions.map(({ index, label }) => [index, label]);
  const all = [...model.labels.entries()].filter(([index]) => !best.some(([each]) => each === index));
  at("heat-class").replaceChildren(make("optgroup", { label: TEXT.best }, ...options(best)), make("optgroup", { label: TEXT.all }, ...options(all)));
}

export function hideHeat() {
  latest++;
  at("seen").hidden = true;
  at("heat-note").textContent = "";
}

export async function showHeat(picture, model, index) {
  const turn = ++latest;
  if (!picture.heat[index]) at("heat-note").textContent = TEXT.explaining;
  try {
    const found = (picture.heat[index] ??= await ask(picture, model, index, turn));
    if (turn !== latest) return;
    const { box: [left, top, right, bottom], map, label, probability, method } = found;
    Object.entries({ left, top, width: right - left, height: bottom - top }).forEach(([name, share]) =>
      at("seen").style.setProperty(name, `${100 * share}%`));
    drawHeat(at("heat"), map, at("strength").value / 100);
    at("seen").hidden = false;
    say(at("heat-note"), TEXT.explained(label, probability, place(map)) + (method ? TEXT.method(method) : ""));
  } catch (failure) {
    if (turn !== latest) return;
    at("seen").hidden = true;
    at("heat-note").textContent = failure.message;
  }
}

async function ask(picture, model, index, turn) {
  // A label may be a number: an index only where two classes share the label.
  const label = model.labels[index];
  const once = model.labels.indexOf(label) === model.labels.lastIndexOf(label);
  const busy = seconds => turn === latest && (at("heat-note").textContent = TEXT.busy(seconds));
  const { answer } = await sendPicture("explain", picture, { class: once ? label : index, model: model.name }, busy);
  return answer;
}
