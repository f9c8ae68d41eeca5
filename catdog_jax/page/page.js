import { classify } from "./backend.js";

const LEAST_SCALE = 12.25; // as in heatmaps.py, whose overlays look like these
const MAX_AT_ONCE = 2;
const at = (id) => document.getElementById(id);
const waiting = [];
let running = 0;

function make(tag, className, text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

function paint(canvas, cells, sign) {
  canvas.width = canvas.height = 7;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(7, 7);
  const top = Math.max(LEAST_SCALE, ...cells.flat().map(Math.abs));
  cells.flat().forEach((cell, i) => {
    const strength = Math.max(0, sign * cell) / top;
    pixels.data.set([255, Math.round(200 - 160 * strength), 0, Math.round(165 * strength)], 4 * i);
  });
  context.putImageData(pixels, 0, 0);
}

function add(file) {
  const item = make("li", "");
  const figure = make("figure", "");
  const photo = make("div", "photo");
  const caption = make("figcaption", "");
  const image = make("img", "");
  image.alt = file.name || "pasted photo";
  image.src = URL.createObjectURL(file);
  image.onload = () => URL.revokeObjectURL(image.src);
  image.onerror = () => { URL.revokeObjectURL(image.src); photo.remove(); };
  photo.append(image);
  caption.append(make("span", "verdict", "Waiting …"), make("span", "name", file.name));
  figure.append(photo, caption);
  item.append(figure);
  item.setAttribute("aria-busy", "true");
  at("results").prepend(item);
  waiting.push({ file, item, photo, verdict: caption.firstChild });
}

async function judge({ file, item, photo, verdict }) {
  try {
    const answer = await classify(file);
    verdict.textContent = `${answer.class}, ${(100 * answer.probability).toFixed(1)} %`;
    if (answer.heatmap) {
      at("toggle").hidden = false; // there is nothing to switch while no model has shown its evidence
      const canvas = make("canvas", "");
      canvas.setAttribute("aria-hidden", "true");
      paint(canvas, answer.heatmap, answer.class === answer.classes[1] ? 1 : -1);
      photo.append(canvas);
    }
  } catch (error) {
    verdict.classList.add("error");
    verdict.textContent = error.message;
  }
  item.removeAttribute("aria-busy");
  at("status").textContent = `${file.name || "Pasted photo"}: ${verdict.textContent}`;
}

function next() {
  while (running < MAX_AT_ONCE && waiting.length) {
    running += 1;
    judge(waiting.shift()).finally(() => { running -= 1; next(); });
  }
}

function take(files) {
  [...files].forEach(add);
  next();
}

at("files").addEventListener("change", (event) => { take(event.target.files); event.target.value = ""; });
at("heat").addEventListener("change", (event) => at("results").classList.toggle("cold", !event.target.checked));
addEventListener("paste", (event) => take(event.clipboardData.files));
addEventListener("dragover", (event) => { event.preventDefault(); at("drop").classList.add("over"); });
addEventListener("dragleave", () => at("drop").classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  take(event.dataTransfer.files);
});
