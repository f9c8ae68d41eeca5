// The model in this browser, behind the page: the same two names as of the backend that asks a server.

export const privacy = "Photos do not leave this device.";

const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
const waiting = new Map();
let number = 0;
let broken = null;

worker.addEventListener("message", ({ data: { id, progress, answer, error } }) => {
  const { resolve, reject, say } = waiting.get(id);
  if (progress) {
    say(progress);
    return;
  }
  waiting.delete(id);
  if (error) reject(Object.assign(new Error(error.message), { again: error.again }));
  else resolve(answer);
});
worker.addEventListener("error", () => { // it could not even be loaded
  broken = new Error("The program behind this page cannot be loaded. Load the page again, or try a newer browser.");
  for (const { reject } of waiting.values()) reject(broken);
  waiting.clear();
});

/** See the other backend.js; `again` is set where the model could not be fetched. */
export function classify(file, say) {
  return new Promise((resolve, reject) => {
    if (broken) throw broken;
    number += 1;
    waiting.set(number, { resolve, reject, say });
    worker.postMessage({ id: number, file });
  });
}
