// runtime/decision.py for browsers: what the model's probabilities mean.

const UNKNOWN = "This model does not say from which probability on it is sure.";

/**
 * @param {{classes: string[], decision: {threshold: number, abstain_below: ?number}}} about what model.json says.
 * @param {Float32Array} shares the probabilities, in the order of the classes.
 * @returns {{class: string, probability: number, probabilities: Object<string, number>, sure: ?boolean, why: string}}
 * @throws {Error} where they are no numbers.
 */
export function decide({ classes, decision: { threshold, abstain_below: level } }, shares) {
  if (!shares.every(Number.isFinite)) throw new Error("expected finite probabilities, found NaN");
  const second = Number(shares[1] >= Math.fround(threshold)); // in single precision on both sides, as in Python
  const sure = level === null ? null : shares[second] >= Math.fround(level);
  return {
    class: classes[second],
    probability: shares[second],
    probabilities: Object.fromEntries(classes.map((name, i) => [name, shares[i]])),
    sure,
    why: sure === null ? UNKNOWN : sure ? "" : reason(classes[second], level),
  };
}

function reason(name, level) {
  return `Rather ${name}. Below ${(Math.floor(1000 * level + 0.5) / 10).toFixed(1)} % this model does not decide.`;
}
