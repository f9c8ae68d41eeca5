// The server behind the page. Another backend replaces this file; it exports the same one function.

/**
 * @param {File} file
 * @returns {Promise<{classes: string[], probabilities: Object<string, number>, class: string, probability: number,
 *   heatmap: ?number[][]}>} the heat map is 7 x 7, each cell's share of the logit of the second class.
 * @throws {Error} with a message for the reader.
 */
export async function classify(file) {
  const form = new FormData();
  form.append("file", file, file.name || "photo");
  let response;
  try {
    response = await fetch("predict", { method: "POST", body: form });
  } catch {
    throw new Error("The server does not answer. Try again in a moment.");
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok && !answer.predictions) throw new Error(answer.error || `The server answered ${response.status}.`);
  const [prediction] = answer.predictions;
  if (prediction.error) throw new Error(prediction.error);
  return { classes: answer.classes, heatmap: null, ...prediction };
}
