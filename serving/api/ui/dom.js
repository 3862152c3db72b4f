// Elements made from values: text stays text, whatever it holds.

import { TEXT } from "./strings.js";

export const at = id => document.getElementById(id);

export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

// A screen reader repeats a text that is set again.
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const SVG = "http://www.w3.org/2000/svg";

export function draw(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export function fillTexts() {
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = TEXT[element.dataset.text];
  for (const element of document.querySelectorAll("[data-label]")) element.setAttribute("aria-label", TEXT[element.dataset.label]);
  for (const element of document.querySelectorAll("[data-placeholder]")) element.placeholder = TEXT[element.dataset.placeholder];
}
