// photos/decoding.py for browsers: the bytes of a photo -> uint8 [224, 224, 3] RGB. The browser decodes; Pillow's resize is written out.
// The pixels are Pillow's, but for greys of 16 bits (off by 1) and WebP files that are to be turned upright (they stay as stored).

import { measured } from "./headers.js";
import { drawTurned, leftToTurn, turnedSize } from "./orientation.js";

export const SIZE = 224;
const MAX_PIXELS = 2 ** 26;
const MAX_BYTES = 2 ** 28;
const STRIP = 2 ** 20; // pixels that are taken from the photo at once; some browsers hold no canvas of a whole one
const PRECISION = 22; // bits of a weight's fraction, as in Pillow
const BITMAP = { colorSpaceConversion: "none", imageOrientation: "from-image", premultiplyAlpha: "none" };
const grouped = (number) => number.toLocaleString("en");

/**
 * @param {Blob} file
 * @returns {Promise<Uint8Array>} the photo upright, on white, squashed by bicubic interpolation with antialiasing.
 * @throws {Error} with the reason, in the words of decoding.py.
 */
export async function decode(file) {
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
    return squashed(bitmap, leftToTurn(bytes));
  } finally {
    bitmap.close();
  }
}

function check(width, height) {
  if (width * height >= 1 && width * height <= MAX_PIXELS) return;
  throw new Error(`expected 1 to ${grouped(MAX_PIXELS)} pixels, found ${width} x ${height}`);
}

/** Two passes, as in Pillow 13: one strip of the photo after the other along the first, what comes of them along the second. */
function squashed(bitmap, turn) {
  const [width, height] = turnedSize(turn, bitmap.width, bitmap.height);
  const verticalFirst = height > SIZE && height - SIZE > 2 * (width - SIZE);
  const [lines, length] = verticalFirst ? [width, height] : [height, width];
  const half = { width: verticalFirst ? width : SIZE, height: verticalFirst ? SIZE : height };
  half.data = new Uint8ClampedArray(4 * half.width * half.height);
  const thickness = Math.max(1, Math.min(lines, Math.floor(STRIP / length)));
  const canvas = verticalFirst ? new OffscreenCanvas(thickness, height) : new OffscreenCanvas(width, thickness);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  for (let first = 0; first < lines; first += thickness) {
    const strip = taken(context, bitmap, turn, ...(verticalFirst ? [first, 0] : [0, first]));
    resize(strip, half, verticalFirst, first);
  }
  const whole = { width: SIZE, height: SIZE, data: new Uint8ClampedArray(4 * SIZE * SIZE) };
  resize(half, whole, !verticalFirst, 0);
  return Uint8Array.from({ length: 3 * SIZE * SIZE }, (_, i) => whole.data[4 * Math.floor(i / 3) + (i % 3)]);
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

/** Resizes the lines of `from` along one axis into those of `to`, from its line `first` on; RGBA, of which A is left alone. */
function resize(from, to, vertical, first) {
  const length = vertical ? from.height : from.width;
  const [fromStep, fromLine] = vertical ? [4 * from.width, 4] : [4, 4 * from.width];
  const [toStep, toLine] = vertical ? [4 * to.width, 4] : [4, 4 * to.width];
  const lines = Math.min(vertical ? from.width : from.height, (vertical ? to.width : to.height) - first);
  const windows = length === SIZE ? null : weights(length);
  for (let line = 0; line < lines; line += 1) {
    for (let i = 0; i < SIZE; i += 1) {
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
function weights(length) {
  const scale = length / SIZE;
  const stretch = Math.max(scale, 1);
  const inverse = 1 / stretch;
  const support = 2 * stretch;
  return Array.from({ length: SIZE }, (_, i) => {
    const centre = (i + 0.5) * scale;
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
