import { classify, privacy } from "./backend.js";
import { drawTurned, leftToTurn, turnedSize } from "./orientation.js";

const LEAST_SCALE = 12.25; // as in heatmaps.py, whose overlays look like these
const HEAT_SIDE = 448; // pixels of a heat map's longer side
const TURNED_SIDE = 1024; // pixels of the longer side of a preview that no browser turns by itself
const MAX_AT_ONCE = 2;
const at = (id) => document.getElementById(id);
const model = fetch(new URL("model.json", import.meta.url)).then((answer) => answer.json()).catch(() => ({})); // no names, but verdicts all the same
const waiting = [];
let running = 0;
let cards = [];
let names = []; // of the classes, once they are known

function make(tag, className, text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

/** One photo on the page, in the states waiting, working, judged and failed. */
class Card {
  constructor(file) {
    this.file = file;
    this.outcome = ""; // how the summary counts it, once there is a verdict or none to be had
    this.item = make("li", "");
    this.photo = make("div", "photo");
    this.image = make("img", "");
    this.verdict = make("div", "verdict");
    this.meter = make("div", "meter");
    this.remark = make("div", "remark");
    this.caption = make("figcaption", "");
    const name = make("div", "name", file.name || "pasted photo");
    name.title = name.textContent;
    this.meter.append(make("i", ""));
    this.caption.append(this.verdict, this.meter, this.remark, name);
    const figure = make("figure", "");
    figure.append(this.photo, this.caption);
    this.item.append(figure);
    this.show(name.textContent);
  }

  show(name) {
    Object.assign(this.image, { alt: name, loading: "lazy", decoding: "async" });
    this.display(this.file);
    this.image.onerror = () => {
      this.image.remove();
      this.photo.dataset.missing = "No preview";
    };
    this.photo.append(this.image);
    this.say("Waiting", "waiting");
  }

  display(blob) {
    URL.revokeObjectURL(this.image.src);
    this.image.src = URL.createObjectURL(blob);
    this.shown = new Promise((resolve) => { this.image.onload = resolve; }); // once it is scrolled to
  }

  /** What is being done. */
  say(text, state = "") {
    this.item.className = state;
    this.item.setAttribute("aria-busy", "true");
    this.verdict.textContent = text;
    this.remark.textContent = "";
    this.meter.hidden = false;
  }

  settle(outcome, state, texts, remark) {
    this.outcome = outcome;
    this.item.className = state;
    this.item.removeAttribute("aria-busy");
    this.verdict.replaceChildren(...texts.map((text, i) => make("span", i ? "share" : "", text)));
    this.remark.textContent = remark;
  }

  judged(answer, recipe) {
    const { class: name, probability, sure, why, heatmap, neither = false } = answer; // old models know no strangers
    names = answer.classes;
    const second = name === names[1];
    const unsure = sure === false; // null where the model does not know; then `why` says so
    const state = neither || unsure ? "unsure" : second ? "second" : "first";
    const outcome = neither ? "neither" : unsure ? "unsure" : name;
    const said = { neither: "Neither", unsure: "Unsure" }[neither || unsure ? outcome : ""] ?? name;
    this.settle(outcome, state, neither ? [said] : [said, percent(probability)], why);
    this.meter.hidden = neither;
    this.meter.firstChild.style.width = `${100 * probability}%`;
    if (!heatmap) return;
    at("toggle").hidden = false; // there is nothing to switch while no model has shown its evidence
    this.shown.then(() => this.photo.append(paint(heatmap, second ? 1 : -1, this.image, recipe)));
  }

  failed(error) {
    this.settle("not judged", "failed", ["Not judged"], error.message);
    this.meter.hidden = true;
    if (!error.again) return;
    const retry = make("button", "", "Try again");
    retry.addEventListener("click", () => {
      retry.remove();
      this.outcome = "";
      this.say("Waiting", "waiting");
      enqueue([this]);
      at("files").focus();
    });
    this.caption.append(retry);
  }
}

function percent(share) {
  return share >= 0.9995 ? "> 99.9 %" : `${(100 * share).toFixed(1)} %`;
}

/** The heat map in the shape of the photo, so that the same `object-fit` puts it over the photo; placed as heatmaps.py places it. */
function paint(cells, sign, { naturalWidth: width, naturalHeight: height }, { resize = "squash" } = {}) {
  const small = new OffscreenCanvas(cells.length, cells.length);
  const pixels = new ImageData(cells.length, cells.length);
  const top = Math.max(LEAST_SCALE, ...cells.flat().map(Math.abs));
  cells.flat().forEach((cell, i) => {
    const strength = Math.max(0, sign * cell) / top;
    pixels.data.set([255, Math.round(200 - 160 * strength), 0, Math.round(165 * strength)], 4 * i);
  });
  small.getContext("2d").putImageData(pixels, 0, 0);
  const canvas = make("canvas", "");
  const scale = HEAT_SIDE / Math.max(width, height);
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  canvas.setAttribute("aria-hidden", "true");
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  const sides = [canvas.width, canvas.height];
  const [shorter, longer] = [Math.min(...sides), Math.max(...sides)];
  const longest = { halfway: Math.sqrt(shorter * longer), crop: shorter }[resize] ?? longer;
  const [across, down] = sides.map((side) => (resize === "letterbox" ? longer : Math.min(side, longest)));
  context.drawImage(small, (canvas.width - across) / 2, (canvas.height - down) / 2, across, down);
  return canvas;
}

/** A small copy of the photo, turned; null where the browser shows it upright, or cannot show it. */
async function turned(file) {
  const turn = leftToTurn(new Uint8Array(await file.arrayBuffer()));
  if (turn === 1) return null;
  const bitmap = await createImageBitmap(file);
  const scale = Math.min(1, TURNED_SIDE / Math.max(bitmap.width, bitmap.height));
  const size = turnedSize(turn, bitmap.width, bitmap.height).map((side) => Math.max(1, Math.round(side * scale)));
  const canvas = new OffscreenCanvas(...size);
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  drawTurned(context, bitmap, turn);
  bitmap.close();
  return canvas.convertToBlob();
}

async function judge(card) {
  try {
    const about = await model;
    const answer = await classify(card.file, (text) => card.say(text), about);
    const upright = await turned(card.file).catch(() => null);
    if (upright) card.display(upright);
    card.judged(answer, about.recipe);
  } catch (error) {
    card.failed(error);
  }
}

function summary() {
  const parts = [...names, "unsure", "neither", "not judged", "to go"].flatMap((word) => {
    const count = cards.filter(({ outcome }) => (outcome || "to go") === word).length;
    return count ? [`${count} ${word}`] : [];
  });
  const total = `${cards.length} ${cards.length === 1 ? "photo" : "photos"}`;
  at("tray").hidden = !cards.length;
  at("status").textContent = cards.length ? `${total}: ${parts.join(", ")}` : "";
}

function next() {
  while (running < MAX_AT_ONCE && waiting.length) {
    running += 1;
    judge(waiting.shift()).finally(() => { running -= 1; summary(); next(); });
  }
}

function enqueue(added) {
  waiting.push(...added);
  summary();
  next();
}

function take(files) {
  const added = [...files].map((file) => new Card(file));
  cards = [...added, ...cards];
  at("results").prepend(...added.map((card) => card.item));
  enqueue(added);
}

function clear() {
  waiting.length = 0;
  for (const card of cards) URL.revokeObjectURL(card.image.src);
  cards = [];
  at("results").replaceChildren();
  summary();
  at("files").focus();
}

at("privacy").textContent = privacy;
at("privacy").className = "";
at("files").addEventListener("change", (event) => { take(event.target.files); event.target.value = ""; });
at("heat").addEventListener("change", (event) => at("results").classList.toggle("cold", !event.target.checked));
at("clear").addEventListener("click", clear);
addEventListener("paste", (event) => take(event.clipboardData.files));
addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("over"); });
addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("over"); });
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  take(event.dataTransfer.files);
});
model.then(({ classes = [] }) => {
  if (!classes.length) return;
  names = classes;
  at("title").textContent = `${names.join(" or ")}?`;
  document.title = `catdog: ${at("title").textContent}`;
});
