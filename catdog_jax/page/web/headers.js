// What the first bytes of a photo say of it, so that a bomb is refused before it is decoded.

import { begins, segments } from "./orientation.js";

const FORMATS = "JPEG, PNG, WEBP, BMP, GIF";

/**
 * @param {Uint8Array} bytes of a whole file.
 * @returns {[number, number]} the stored width and height.
 * @throws {Error} where the file is empty, of no format that is taken, or ends in its header.
 */
export function measured(bytes) {
  if (!bytes.length) throw new Error("expected a photo, found an empty file");
  const read = FIRST_BYTES.find(([start]) => begins(bytes, start))?.[1];
  if (!read || (read === webp && !begins(bytes, "WEBP", 8))) throw new Error(`expected ${FORMATS}, found ${described(bytes)}`);
  try {
    return read(new DataView(bytes.buffer), bytes);
  } catch { // beyond the end
    throw new Error("damaged or truncated: its header cannot be read");
  }
}

const FIRST_BYTES = [
  ["\xff\xd8\xff", jpeg],
  ["\x89PNG\r\n\x1a\n", (view) => [view.getUint32(16), view.getUint32(20)]],
  ["GIF8", (view) => [view.getUint16(6, true), view.getUint16(8, true)]],
  ["BM", (view) => [view.getInt32(18, true), Math.abs(view.getInt32(22, true))]],
  ["RIFF", webp],
];

/** The frame header is the first marker of SOF0 to SOF15 that is not DHT, JPG or DAC. */
function jpeg(view) {
  for (const { marker, start } of segments(view)) {
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) return [view.getUint16(start + 3), view.getUint16(start + 1)];
  }
  throw new RangeError("no frame header");
}

function webp(view, bytes) {
  if (begins(bytes, "VP8X", 12)) return [24, 27].map((at) => 1 + view.getUint16(at, true) + (view.getUint8(at + 2) << 16));
  if (!begins(bytes, "VP8L", 12)) return [26, 28].map((at) => view.getUint16(at, true) & 0x3fff);
  const packed = view.getUint32(21, true);
  return [1 + (packed & 0x3fff), 1 + ((packed >> 14) & 0x3fff)];
}

function described(bytes) {
  const text = new TextDecoder().decode(bytes.subarray(0, 100)).trimStart();
  return text.startsWith("<") ? "what looks like HTML, XML or SVG" : "unknown content";
}
