// The pictures of the page: classified a few at a time, each with its answer or its failure.

import { make } from "./dom.js";
import { sendPicture } from "./server.js";
import { TEXT, percent } from "./strings.js";

const AT_ONCE = 4;

export const pictures = [];
let working = 0;

export function add(file, sample = null) {
  const name = sample ? `${sample.name}.jpg` : file.name || TEXT.pasted;
  const picture = { file, name, sample, url: URL.createObjectURL(file), state: "waiting", heat: {}, note: "" };
  pictures.push(picture);
  return picture;
}

export function removeAll() {
  for (const { url } of pictures.splice(0)) URL.revokeObjectURL(url);
}

export function again(picture) {
  Object.assign(picture, { state: "waiting", answer: null, failure: null, heat: {}, note: "" });
}

// Classify what waits; `changed` is called with a picture whenever its state changes.
export function work(model, changed) {
  while (working < AT_ONCE) {
    const picture = pictures.find(each => each.state === "waiting");
    if (!picture) return;
    working++;
    classify(picture, model, changed).finally(() => {
      working--;
      work(model, changed);
    });
  }
}

async function classify(picture, model, changed) {
  const turn = (picture.turn = {});
  picture.state = "busy";
  picture.note = TEXT.working(picture.name);
  changed(picture);
  const busy = seconds => {
    picture.note = TEXT.busy(seconds);
    changed(picture);
  };
  try {
    const answer = await sendPicture("classify", picture, { model: model.name }, busy);
    if (picture.turn === turn) Object.assign(picture, { answer, state: "done" });
  } catch (failure) {
    if (picture.turn === turn) Object.assign(picture, { failure, state: "failed" });
  }
  changed(picture);
}

export function tile(picture, current, show) {
  const first = picture.answer?.answer.predictions[0];
  const words = first ? [first.label, percent(first.probability, 0)] : picture.state === "failed" ? [TEXT.refused] : [TEXT.waiting];
  const button = make("button", { type: "button", className: `tile ${picture.state}`, "aria-pressed": current, onclick: () => show(picture) },
    make("img", { src: picture.url, alt: "", loading: "lazy", decoding: "async", onerror: event => event.target.classList.add("broken") }),
    make("span", { className: "tile-name" }, words[0]), words[1] ? make("span", { className: "tile-share" }, words[1]) : "");
  button.title = picture.name;
  return make("li", {}, button);
}

// The picture as a PNG where this browser can draw it, though the service can't decode it; null where it can't either.
export async function converted(picture) {
  try {
    const image = await createImageBitmap(picture.file);
    const canvas = new OffscreenCanvas(image.width, image.height);
    canvas.getContext("2d").drawImage(image, 0, 0);
    return new File([await canvas.convertToBlob({ type: "image/png" })], `${picture.name}.png`, { type: "image/png" });
  } catch {
    return null;
  }
}
