// Off the page's thread: photos are decoded, and the model computes them one after the other.

import { InferenceSession, Tensor, env } from "./ort.js";
import { decide } from "./decision.js";
import { decode } from "./pixels.js";

const MB = 1e6;
let model = null; // of the first photo on; none again where it could not be fetched
let queue = Promise.resolve();

self.addEventListener("message", ({ data: { id, file } }) => {
  const say = (progress) => self.postMessage({ id, progress });
  queue = queue.then(() => judge(file, say)).then(
    (answer) => self.postMessage({ id, answer }),
    ({ message, again }) => self.postMessage({ id, error: { message, again } }),
  );
});

async function judge(file, say) {
  model ??= load(say);
  const { about, session } = await model.catch((error) => {
    model = null;
    throw Object.assign(new Error(`The model cannot be loaded: ${error.message}`), { again: true });
  });
  say("Judging");
  const image = new Tensor("uint8", await decode(file, about.recipe), [1, about.recipe.height, about.recipe.width, 3]);
  const { probability: { data: shares }, heatmap, strangeness } = await session.run({ image });
  const side = heatmap?.dims[2];
  const rows = heatmap && Array.from({ length: side }, (_, i) => Array.from(heatmap.data.slice(side * i, side * i + side)));
  return { classes: about.classes, ...decide(about, shares, strangeness?.data[0]), heatmap: rows ?? null };
}

async function load(say) {
  const names = ["ort.wasm", "model.onnx"];
  const parts = names.map(() => ({ come: 0, total: 0 }));
  const told = () => {
    const [come, total] = ["come", "total"].map((key) => (parts.reduce((sum, part) => sum + part[key], 0) / MB).toFixed());
    say(parts.every((part) => part.total) ? `Loading the model, ${come} of ${total} MB` : `Loading the model, ${come} MB`);
  };
  const [about, runtime, bytes] = await Promise.all([
    fetched("model.json").then((answer) => answer.json()),
    ...names.map((name, i) => received(name, (come, total) => { parts[i] = { come, total }; told(); })),
  ]);
  env.wasm.numThreads = 1; // more need headers that not every host of files can send
  env.wasm.wasmBinary = runtime; // so that no media type of the host's matters
  say("Starting the model");
  return { about, session: await InferenceSession.create(bytes, { executionProviders: ["wasm"] }) };
}

async function fetched(name) {
  const answer = await fetch(name);
  if (!answer.ok) throw new Error(`${name}: the server answered ${answer.status}`);
  return answer;
}

/** The bytes of a file; `told` hears how many have come, of how many (0 where the host does not say, or compresses). */
async function received(name, told) {
  const answer = await fetched(name);
  const total = answer.headers.has("content-encoding") ? 0 : Number(answer.headers.get("content-length"));
  const chunks = [];
  let come = 0;
  for (const reader = answer.body.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) break;
    chunks.push(value);
    come += value.length;
    told(come, total);
  }
  return new Uint8Array(await new Blob(chunks).arrayBuffer());
}
