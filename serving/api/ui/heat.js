// Heat maps: numbers from 0 to 1 on a grid, drawn over the part of the picture that the model sees.

import { TEXT } from "./strings.js";

// Dark to light, as in Matplotlib's inferno: the order is seen without colours, too.
const COLOURS = [[20, 11, 53], [87, 16, 110], [159, 42, 99], [212, 72, 66], [245, 125, 21], [250, 193, 39], [252, 255, 164]];

export function drawHeat(canvas, map, strength) {
  const { width, height } = canvas;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.clearRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(grey(map), 0, 0, width, height);
  const image = context.getImageData(0, 0, width, height);
  for (let i = 0; i < image.data.length; i += 4) {
    const value = image.data[i] / 255;
    image.data.set(colour(value), i);
    image.data[i + 3] = 255 * strength * (0.25 + 0.75 * value);
  }
  context.putImageData(image, 0, 0);
}

function grey(map) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [map[0].length, map.length];
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  map.flat().forEach((value, i) => image.data.set([255 * value, 255 * value, 255 * value, 255], 4 * i));
  context.putImageData(image, 0, 0);
  return canvas;
}

function colour(value) {
  const place = Math.min(1, Math.max(0, value)) * (COLOURS.length - 1);
  const below = Math.min(COLOURS.length - 2, Math.floor(place));
  return COLOURS[below].map((each, i) => each + (place - below) * (COLOURS[below + 1][i] - each));
}

// Where the map is strongest, in words.
export function place(map) {
  const third = (index, count) => Math.min(2, Math.floor((3 * (index + 0.5)) / count));
  const flat = map.flat();
  const best = flat.indexOf(Math.max(...flat));
  const [row, column] = [Math.floor(best / map[0].length), best % map[0].length];
  return TEXT.places[third(row, map.length)][third(column, map[0].length)];
}
