// The server behind the page. Another backend takes this file's place; it exports the same two names.

export const privacy = "Photos are sent to this server, and forgotten with the answer.";

/**
 * @param {File} file
 * @param {function(string)} say takes what is being done.
 * @param {{max_bytes: ?number, heatmaps: ?boolean}} about what model.json says.
 * @returns {Promise<{classes: string[], class: string, probability: number, sure: ?boolean, why: string,
 *   neither: (boolean|undefined), heatmap: ?number[][]}>} whether the model is sure of the class, null where it does not know,
 *   and why it is not; whether the photo is of neither class; the heat map is a square of cells, each cell's share of the
 *   logit of the second class.
 * @throws {Error} with a message for the reader; its `again` says whether it is worth another try.
 */
export async function classify(file, say, { max_bytes: most = Infinity, heatmaps = false }) {
  const grouped = (number) => number.toLocaleString("en");
  if (file.size > most) throw new Error(`expected at most ${grouped(most)} bytes, found ${grouped(file.size)}`);
  say("Judging");
  const address = new URL(`predict${heatmaps ? "?include=heatmap" : ""}`, import.meta.url);
  let response;
  try {
    response = await fetch(address, { method: "POST", body: file, headers: { "content-type": "application/octet-stream" } });
  } catch {
    throw Object.assign(new Error("The server does not answer, or the file cannot be read."), { again: true });
  }
  const answer = await response.json().catch(() => ({}));
  if (!answer.predictions) {
    const again = [408, 429, 500, 502, 503, 504].includes(response.status);
    throw Object.assign(new Error(answer.error || `The server answered ${response.status}.`), { again });
  }
  const [prediction] = answer.predictions;
  if (prediction.error) throw new Error(prediction.error);
  return { classes: answer.classes, heatmap: null, ...prediction };
}
