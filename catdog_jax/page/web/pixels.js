// photos/decoding.py for browsers: the bytes of a photo -> uint8 [size, size, 3] RGB. The browser decodes; Pillow's resize is written out.
// The pixels are Pillow's by version 1 of the recipe, but for greys of 16 bits (off by 1) and WebP files that are to be turned upright
// (they stay as stored). Version 2 reduces large photos first, which no browser does; docs/model-file.md says how near that is.

import { measured } from "./headers.js";
import { drawTurned, leftToTurn, turnedSize } from "./orientation.js";

const MAX_PIXELS = 2 ** 26;
const MAX_BYTES = 2 ** 28;
const STRIP = 2 ** 20; // pixels that are taken from the photo at once; some browsers hold no canvas of a whole one
const PRECISION = 22; // bits of a weight's fraction, as in Pillow
const BITMAP = { colorSpaceConversion: "none", imageOrientation: "from-image", premultiplyAlpha: "none" };
const grouped = (number) => number.toLocaleString("en");

/**
 * @param {Blob} file
 * @param {{width: number, resize: string, fill: ?number[]}} recipe as the model has it.
 * @returns {Promise<Uint8Array>} the photo upright, on white, a square by bicubic interpolation with antialiasing.
 * @throws {Error} with the reason, in the words of decoding.py.
 */
export async function decode(file, recipe) {
  if (file.size > MAX_BYTES) throw new Error(`expected at most ${grouped(MAX_BYTES)} bytes, found more`);
  const bytes = new Uint8Array(await file.arrayBuffer());
  check(...measured(bytes));
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, BITMAP);
  } catch {
    throw new Error("damaged or truncated: this browser cannot decode it");
  }
  try {
    check(bitmap.width, bitmap.height);
    return square(bitmap, leftToTurn(bytes), recipe);
  } finally {
    bitmap.close();
  }
}

function check(width, height) {
  if (width * height >= 1 && width * height <= MAX_PIXELS) return;
  throw new Error(`expected 1 to ${grouped(MAX_PIXELS)} pixels, found ${width} x ${height}`);
}

/** Two passes, as in Pillow 13: one strip of the photo after the other along the first, what comes of them along the second. */
function square(bitmap, turn, recipe) {
  const extent = turnedSize(turn, bitmap.width, bitmap.height);
  const [width, height] = extent;
  const [columns, rows] = placed(extent, recipe);
  const verticalFirst = height > rows.size && height - rows.size > 2 * (width - columns.size);
  const [first, second] = verticalFirst ? [rows, columns] : [columns, rows];
  const [lines, length] = verticalFirst ? [width, height] : [height, width];
  const half = verticalFirst ? blank(width, rows.size) : blank(columns.size, height);
  const thickness = Math.max(1, Math.min(lines, Math.floor(STRIP / length)));
  const canvas = verticalFirst ? new OffscreenCanvas(thickness, height) : new OffscreenCanvas(width, thickness);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  for (let line = 0; line < lines; line += thickness) {
    const strip = taken(context, bitmap, turn, ...(verticalFirst ? [line, 0] : [0, line]));
    resize(strip, half, verticalFirst, line, first);
  }
  const fitted = blank(columns.size, rows.size);
  resize(half, fitted, !verticalFirst, 0, second);
  return filled(fitted, recipe);
}

function blank(width, height) {
  return { width, height, data: new Uint8ClampedArray(4 * width * height) };
}

/** DecodingRecipe's `taken` and `given`: along each axis where the part that is shown begins and ends, and how many pixels it gets. */
function placed(extent, { width: side, resize: way }) {
  const [shorter, longer] = [Math.min(...extent), Math.max(...extent)];
  return extent.map((length) => {
    const taken = Math.min(length, { halfway: Math.sqrt(shorter * longer), crop: shorter }[way] ?? longer);
    const from = (length - taken) / 2;
    const to = from + taken;
    const size = way === "letterbox" ? Math.max(1, Math.floor((2 * side * length + longer) / (2 * longer))) : side;
    return { from, to, size };
  });
}

/** RGBA in the middle of the square -> RGB. */
function filled({ width, height, data }, { width: side, fill = [0, 0, 0] }) {
  const [left, upper] = [Math.floor((side - width) / 2), Math.floor((side - height) / 2)];
  const whole = Uint8Array.from({ length: 3 * side * side }, (_, i) => fill[i % 3]);
  for (let at = 0; at < width * height; at += 1) {
    const to = 3 * ((upper + Math.floor(at / width)) * side + left + (at % width));
    for (let c = 0; c < 3; c += 1) whole[to + c] = data[4 * at + c];
  }
  return whole;
}

/** As much of the photo as the canvas holds, on white. */
function taken(context, bitmap, turn, x, y) {
  const { width, height } = context.canvas;
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.setTransform(1, 0, 0, 1, -x, -y);
  drawTurned(context, bitmap, turn);
  context.resetTransform();
  return context.getImageData(0, 0, width, height);
}

/** Resizes the lines of `from` along one axis, as it is `placed`, into those of `to`, from its line `first` on; A is left alone. */
function resize(from, to, vertical, first, place) {
  const length = vertical ? from.height : from.width;
  const [fromStep, fromLine] = vertical ? [4 * from.width, 4] : [4, 4 * from.width];
  const [toStep, toLine] = vertical ? [4 * to.width, 4] : [4, 4 * to.width];
  const lines = Math.min(vertical ? from.width : from.height, (vertical ? to.width : to.height) - first);
  const windows = place.size === length && place.from === 0 && place.to === length ? null : weights(length, place);
  for (let line = 0; line < lines; line += 1) {
    for (let i = 0; i < place.size; i += 1) {
      const { start, kernel } = windows ? windows[i] : { start: i, kernel: [1 << PRECISION] };
      let [red, green, blue] = [1 << (PRECISION - 1), 1 << (PRECISION - 1), 1 << (PRECISION - 1)];
      for (let k = 0, at = line * fromLine + start * fromStep; k < kernel.length; k += 1, at += fromStep) {
        red += from.data[at] * kernel[k];
        green += from.data[at + 1] * kernel[k];
        blue += from.data[at + 2] * kernel[k];
      }
      const at = (first + line) * toLine + i * toStep;
      to.data[at] = red >> PRECISION; // clamped by the array
      to.data[at + 1] = green >> PRECISION;
      to.data[at + 2] = blue >> PRECISION;
    }
  }
}

/** Pillow's precompute_coeffs and normalize_coeffs_8bpc: for each pixel of the result where it begins to look, and with what weights. */
function weights(length, { from, to, size }) {
  const scale = (to - from) / size;
  const stretch = Math.max(scale, 1);
  const inverse = 1 / stretch;
  const support = 2 * stretch;
  return Array.from({ length: size }, (_, i) => {
    const centre = from + (i + 0.5) * scale;
    const start = Math.max(0, Math.trunc(centre - support + 0.5));
    const end = Math.min(length, Math.trunc(centre + support + 0.5));
    const exact = Array.from({ length: end - start }, (__, k) => bicubic((k + start - centre + 0.5) * inverse));
    const sum = exact.reduce((total, weight) => total + weight, 0);
    const fixed = exact.map((weight) => Math.trunc((weight / sum) * 2 ** PRECISION + (weight < 0 ? -0.5 : 0.5)));
    return { start, kernel: Int32Array.from(fixed) };
  });
}

function bicubic(x) {
  const a = -0.5;
  const far = Math.abs(x);
  if (far < 1) return ((a + 2) * far - (a + 3)) * far * far + 1;
  return far < 2 ? (((far - 5) * far + 8) * far - 4) * a : 0;
}
