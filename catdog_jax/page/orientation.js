// Which way up a photo is where its XMP alone says so. Browsers follow EXIF only; decoding.py asks XMP where EXIF does not say.

const ORIENTATION = 0x0112;
const MATRICES = { // of canvases, for the numbers of EXIF: what turns a stored picture of w x h upright
  1: () => [1, 0, 0, 1, 0, 0],
  2: (w) => [-1, 0, 0, 1, w, 0],
  3: (w, h) => [-1, 0, 0, -1, w, h],
  4: (w, h) => [1, 0, 0, -1, 0, h],
  5: () => [0, 1, 1, 0, 0, 0],
  6: (w, h) => [0, 1, -1, 0, h, 0],
  7: (w, h) => [0, -1, -1, 0, h, w],
  8: (w) => [0, -1, 1, 0, 0, w],
};

/**
 * @param {Uint8Array} bytes of a whole file.
 * @returns {number} 1 to 8, as EXIF counts: how the picture still lies once the browser has followed EXIF.
 */
export function leftToTurn(bytes) {
  try {
    const { exif, xmp } = blocks(new DataView(bytes.buffer), bytes);
    if (!xmp || (exif && saysOrientation(exif))) return 1;
    const turn = Number(/tiff:Orientation(?:="|>)([0-9])/.exec(latin(xmp))?.[1]);
    return turn in MATRICES ? turn : 1;
  } catch { // beyond the end: broken metadata say nothing
    return 1;
  }
}

/** @returns {[number, number]} width and height of a picture of `width` x `height` once it is turned. */
export function turnedSize(turn, width, height) {
  return turn > 4 ? [height, width] : [width, height];
}

/** Draws a picture upright. */
export function drawTurned(context, bitmap, turn) {
  context.save();
  context.transform(...MATRICES[turn](bitmap.width, bitmap.height));
  context.drawImage(bitmap, 0, 0);
  context.restore();
}

/** The segments of a JPEG up to its first scan: each its marker, and where its content begins and ends. */
export function* segments(view) {
  for (let at = 2, marker = 0; marker !== 0xda;) {
    while (view.getUint8(at) !== 0xff) at += 1;
    while (view.getUint8(at) === 0xff) at += 1;
    marker = view.getUint8(at);
    const alone = marker <= 0x01 || (marker >= 0xd0 && marker <= 0xd8);
    const end = at + 1 + (alone ? 0 : view.getUint16(at + 1));
    yield { marker, start: at + 3, end };
    at = end;
  }
}

export function begins(bytes, text, at = 0) {
  return [...text].every((letter, i) => bytes[at + i] === letter.charCodeAt());
}

function blocks(view, bytes) {
  if (begins(bytes, "\xff\xd8")) return ofJpeg(view, bytes);
  if (begins(bytes, "\x89PNG")) return ofPng(view, bytes);
  return begins(bytes, "RIFF") ? ofWebp(view, bytes) : {};
}

function ofJpeg(view, bytes) {
  const [exif, xmp] = ["Exif\0\0", "http://ns.adobe.com/xap/1.0/\0"];
  const found = {};
  for (const { marker, start, end } of segments(view)) {
    if (marker !== 0xe1) continue;
    if (begins(bytes, exif, start)) found.exif ??= bytes.subarray(start + exif.length, end);
    if (begins(bytes, xmp, start)) found.xmp = bytes.subarray(start + xmp.length, end);
  }
  return found;
}

function ofPng(view, bytes) {
  const xmp = "iTXtXML:com.adobe.xmp\0\0"; // uncompressed, as the XMP specification has it
  const found = {};
  for (let at = 8, end; at + 8 <= bytes.length; at = end + 4) {
    end = at + 8 + view.getUint32(at);
    if (begins(bytes, "eXIf", at + 4)) found.exif = bytes.subarray(at + 8, end);
    if (begins(bytes, xmp, at + 4)) found.xmp = bytes.subarray(at + 4 + xmp.length, end);
  }
  return found;
}

function ofWebp(view, bytes) {
  const found = {};
  for (let at = 12, size; at + 8 <= bytes.length; at += 8 + size + (size % 2)) {
    size = view.getUint32(at + 4, true);
    const content = bytes.subarray(at + 8, at + 8 + size);
    if (begins(bytes, "EXIF", at)) found.exif = content.subarray(begins(content, "Exif\0\0") ? 6 : 0);
    if (begins(bytes, "XMP ", at)) found.xmp = content;
  }
  return found;
}

/** Whether the first directory of EXIF, which is TIFF, has an entry of the orientation, whatever it says. */
function saysOrientation(exif) {
  const view = new DataView(exif.buffer, exif.byteOffset, exif.byteLength);
  const little = view.getUint16(0) === 0x4949;
  if (view.getUint16(2, little) !== 42) throw new RangeError("no TIFF");
  const first = view.getUint32(4, little);
  const places = Array.from({ length: view.getUint16(first, little) }, (_, i) => first + 2 + 12 * i);
  return places.some((at) => view.getUint16(at, little) === ORIENTATION);
}

function latin(bytes) {
  return new TextDecoder("latin1").decode(bytes);
}
