// The page to try the service: what the user does, and what is shown of it.

import { at, fillTexts, make } from "./dom.js";
import { showAnswer } from "./answer.js";
import { explainable, fillClasses, hideHeat, showHeat } from "./explain.js";
import { watch } from "./live.js";
import { add, again, converted, pictures, removeAll, tile, work } from "./pictures.js";
import { showProof } from "./proof.js";
import { json, keep, key, send } from "./server.js";
import { SNIPPETS } from "./snippets.js";
import { TEXT } from "./strings.js";

const IMAGENET_CLASSES = 1000;

const state = { models: [], model: null, current: null, samples: [], canExplain: false, heat: false, chosen: null, language: "curl" };

// The service

async function connect() {
  try {
    state.models = (await json("models")).models;
  } catch (failure) {
    const words = { 401: key() ? TEXT.keyWrong : TEXT.keyNeeded, 503: TEXT.starting, 0: TEXT.unreachable };
    at("status").textContent = words[failure.status] ?? `${TEXT.failed}: ${failure.message}`;
    at("status").className = "status bad";
    at("key").classList.toggle("wanted", failure.status === 401);
    show();
    if (failure.status !== 401) setTimeout(connect, 1000);
    return;
  }
  at("status").textContent = TEXT.ready;
  at("status").className = "status good";
  at("key").classList.remove("wanted");
  at("model").replaceChildren(...state.models.map(({ name }) => make("option", { value: name }, name)));
  at("models").hidden = false;
  at("model").disabled = state.models.length < 2;
  state.canExplain = await explainable().catch(() => false);
  await useModel(state.models.find(({ name }) => name === state.model?.name) ?? state.models[0]);
}

async function useModel(model) {
  state.model = model;
  at("model").value = model.name;
  showProof(model);
  state.chosen = null;
  for (const picture of pictures) again(picture);
  await showSamples();
  show();
  work(model, changed);
}

// Pictures

function take(files) {
  const images = [...files];
  if (!images.length) return fail(TEXT.noFile);
  history.replaceState(null, "", location.pathname + location.search);
  begin(images.map(file => add(file)));
}

function begin([first]) {
  state.current = first;
  state.chosen = null;
  show();
  if (state.model) work(state.model, changed);
}

function changed(picture) {
  showStrip();
  if (picture === state.current) show();
}

function select(picture) {
  state.current = picture;
  state.chosen = null;
  show();
}

function clear() {
  removeAll();
  state.current = null;
  history.replaceState(null, "", location.pathname + location.search);
  show();
  at("choose").focus();
}

// Samples

async function showSamples() {
  at("samples").hidden = state.model.labels.length !== IMAGENET_CLASSES;
  if (state.samples.length || at("samples").hidden) return;
  state.samples = await json("ui/samples.json").catch(() => []);
  at("sample-list").replaceChildren(...state.samples.map(sample => {
    const image = make("img", { src: `ui/small/${sample.name}.jpg`, alt: sample.shows, width: 88, height: 88 });
    return make("li", {}, make("button", { type: "button", className: "tile", title: sample.shows, "aria-pressed": false, onclick: () => trySample(sample) }, image));
  }));
  fromAddress();
}

async function trySample(sample) {
  history.replaceState(null, "", `#sample=${sample.name}${state.heat ? "&heat" : ""}`);
  const known = pictures.find(each => each.sample === sample);
  if (known) return select(known);
  try {
    begin([add(await (await send(sampleAddress(sample))).blob(), sample)]);
  } catch (failure) {
    fail(failure.message);
  }
}

const sampleAddress = sample => `ui/samples/${sample.name}.jpg`;

// `#sample=cat&heat` shows a sample picture with its heat map: an address to pass on.
function fromAddress() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  const sample = state.samples.find(({ name }) => name === wanted.get("sample"));
  if (wanted.has("heat") && state.canExplain) setHeat(true);
  if (sample) trySample(sample);
}

// What is shown

function show() {
  const picture = state.current;
  at("invite").hidden = Boolean(picture);
  at("figure").hidden = at("caption").hidden = at("clear").hidden = !picture;
  at("stage").classList.toggle("filled", Boolean(picture));
  const busy = Boolean(picture) && ["waiting", "busy"].includes(picture.state);
  at("progress").hidden = !busy;
  at("stage").setAttribute("aria-busy", busy);
  showPhoto(picture);
  showOutcome(picture, busy);
  showStrip();
  showCode();
}

function showPhoto(picture) {
  if (!picture) return at("photo").removeAttribute("src");
  at("photo").alt = TEXT.picture(picture.sample?.shows ?? picture.name);
  if (at("photo").src === picture.url) return showCaption(picture);
  at("undrawn").hidden = true;
  at("photo").hidden = false;
  at("photo").src = picture.url;
  at("caption").textContent = picture.name;
}

function drawn() {
  const { naturalWidth: width, naturalHeight: height } = at("photo");
  at("frame").style.setProperty("--ratio", width / height);
  at("photo").classList.toggle("pixels", width < 100);
  showCaption(state.current);
}

function showCaption(picture) {
  const { naturalWidth: width, naturalHeight: height } = at("photo");
  const { sample, name, file, note, state: now } = picture;
  const known = sample ? TEXT.credit(sample.shows, sample.origin, sample.license) : width ? TEXT.size(name, width, height, file.size) : name;
  at("caption").textContent = now === "busy" ? note : known;
}

function undrawn() {
  if (!state.current) return;
  at("photo").hidden = true;
  at("undrawn").hidden = false;
  at("undrawn").textContent = TEXT.undrawn(state.current.name);
  at("frame").style.setProperty("--ratio", 4 / 3);
}

function showOutcome(picture, busy) {
  at("empty").hidden = Boolean(picture);
  at("more").hidden = !picture;
  at(picture ? "more" : "empty").append(at("samples"));
  at("failure").hidden = picture?.state !== "failed";
  at("result").hidden = !picture?.answer;
  at("result").classList.toggle("old", busy);
  at("heating").hidden = !(picture?.answer && state.canExplain);
  if (picture && !state.model) fail(at("status").textContent);
  if (picture?.state === "failed") showFailure(picture);
  if (!picture?.answer) return hideHeat();
  const { answer } = picture.answer;
  const chosen = state.chosen ?? answer.predictions[0].index;
  showAnswer(picture.answer, state.model, state.heat ? chosen : null, state.canExplain ? chooseClass : null);
  if (!state.canExplain) return;
  fillClasses(answer, state.model);
  at("heat-class").value = chosen;
  if (state.heat) showHeat(picture, state.model, chosen);
  else hideHeat();
}

async function showFailure(picture) {
  const { failure, name } = picture;
  const retry = make("button", { type: "button", onclick: () => tryAgain(picture) }, TEXT.retry);
  const hint = /heic|heif/i.test(failure.message) ? [make("p", {}, TEXT.heic)] : [];
  at("failure").replaceChildren(make("strong", {}, name), make("p", {}, failure.message), ...hint, retry);
  if (failure.status !== 415) return;
  retry.remove();
  const file = await converted(picture);
  if (file && state.current === picture) at("failure").append(make("button", { type: "button", onclick: () => replace(picture, file) }, TEXT.convert));
}

function fail(message) {
  at("failure").hidden = false;
  at("failure").replaceChildren(make("p", {}, message));
}

function tryAgain(picture) {
  again(picture);
  show();
  work(state.model, changed);
}

function replace(picture, file) {
  URL.revokeObjectURL(picture.url);
  Object.assign(picture, { file, name: file.name, url: URL.createObjectURL(file) });
  tryAgain(picture);
}

function showStrip() {
  at("many").hidden = pictures.length < 2;
  const count = wanted => pictures.filter(each => each.state === wanted).length;
  at("many-title").textContent = TEXT.many(pictures.length, count("done"), count("failed"));
  const focused = [...at("strip").children].findIndex(each => each.contains(document.activeElement));
  state.samples.forEach((sample, i) => at("sample-list").children[i].firstChild.setAttribute("aria-pressed", state.current?.sample === sample));
  at("strip").replaceChildren(...pictures.map(each => tile(each, each === state.current, select)));
  if (focused >= 0) at("strip").children[focused]?.firstChild.focus();
}

// The heat map

function setHeat(on) {
  state.heat = on;
  at("heat-on").setAttribute("aria-checked", on);
  at("heating").classList.toggle("on", on);
}

function chooseClass(index) {
  state.chosen = index;
  setHeat(true);
  show();
  [...at("bars").querySelectorAll("button")].find(each => each.getAttribute("aria-pressed") === "true")?.focus();
}

function toggleHeat() {
  setHeat(!state.heat);
  const { sample } = state.current;
  if (sample) history.replaceState(null, "", `#sample=${sample.name}${state.heat ? "&heat" : ""}`);
  show();
}

// Code

function showCode() {
  at("code").hidden = !state.model;
  if (!state.model) return;
  const { current: picture, model, models } = state;
  const absolute = path => new URL(path, document.baseURI).href;
  const query = models.length > 1 ? `?model=${encodeURIComponent(model.name)}` : "";
  const name = picture?.name ?? "photo.jpg";
  const download = picture?.sample ? absolute(sampleAddress(picture.sample)) : "";
  const keyed = Boolean(key());
  at("code-note").textContent = (picture ? TEXT.codeFor(name) : TEXT.codeForAny) + (keyed ? TEXT.codeKey : "");
  at("snippet").firstElementChild.textContent = SNIPPETS[state.language]({ url: absolute(`classify${query}`), name, download, keyed });
  for (const button of document.querySelectorAll("[data-language]")) {
    button.setAttribute("aria-pressed", button.dataset.language === state.language);
  }
}

async function copy() {
  const code = at("snippet").firstElementChild;
  try {
    await navigator.clipboard.writeText(code.textContent);
  } catch {
    // Browsers have no clipboard for pages of other machines without TLS.
    getSelection().selectAllChildren(code);
    document.execCommand("copy");
  }
  at("copy").textContent = TEXT.copied;
  setTimeout(() => (at("copy").textContent = TEXT.copy), 1500);
}

// What the user does

function listen() {
  const chosen = event => {
    const files = [...event.target.files];
    event.target.value = "";
    if (files.length) take(files);
  };
  at("files").onchange = at("camera").onchange = chosen;
  at("choose").onclick = () => at("files").click();
  at("shoot").onclick = () => at("camera").click();
  at("invite").onclick = () => at("files").click();
  at("clear").onclick = clear;
  at("photo").onload = drawn;
  at("photo").onerror = undrawn;
  at("model").onchange = event => useModel(state.models.find(({ name }) => name === event.target.value));
  at("heat-on").onclick = toggleHeat;
  at("heat-class").onchange = event => {
    state.chosen = Number(event.target.value);
    setHeat(true);
    show();
  };
  at("strength").oninput = () => showHeat(state.current, state.model, Number(at("heat-class").value));
  at("copy").onclick = copy;
  for (const button of document.querySelectorAll("[data-language]")) {
    button.onclick = () => {
      state.language = button.dataset.language;
      showCode();
    };
  }
  at("key").value = key();
  at("key").onchange = () => {
    keep(at("key").value.trim());
    connect();
  };
  listenToDrops();
  window.onhashchange = fromAddress;
}

function listenToDrops() {
  const over = on => at("stage").classList.toggle("over", on);
  document.onpaste = event => event.target !== at("key") && take(event.clipboardData.files);
  document.ondragover = event => {
    event.preventDefault();
    over(true);
  };
  document.ondragleave = event => event.relatedTarget ?? over(false);
  document.ondrop = event => {
    event.preventDefault();
    over(false);
    take(event.dataTransfer.files);
  };
}

fillTexts();
at("status").textContent = TEXT.connecting;
listen();
show();
connect();
watch();
