// runtime/decision.py for browsers: what the model's outputs mean.

const NEITHER = "Neither: it is unlike the photos that this model was trained on.";
const UNKNOWN = "This model does not say from which probability on it is sure.";

/**
 * @param {{classes: string[], decision: {threshold: number, abstain_below: ?number, strange_above: (number|undefined)}}}
 *   about what model.json says; `strange_above` is missing where the model knows no strangers.
 * @param {Float32Array} shares the probabilities, in the order of the classes.
 * @param {(number|undefined)} strangeness a single, where the model gives it.
 * @returns {{class: string, probability: number, probabilities: Object<string, number>, sure: ?boolean, why: string}}
 *   and `strangeness` and `neither`, where the model knows strangers.
 * @throws {Error} where they are no numbers.
 */
export function decide({ classes, decision: { threshold, abstain_below: level, strange_above: strange } }, shares, strangeness) {
  if (!shares.every(Number.isFinite)) throw new Error("expected finite probabilities, found NaN");
  const knows = strange !== undefined && strangeness !== undefined;
  if (knows && !Number.isFinite(strangeness)) throw new Error("expected a finite strangeness, found NaN");
  const neither = knows && strangeness > Math.fround(strange);
  const second = Number(shares[1] >= Math.fround(threshold)); // in single precision on both sides, as in Python
  const sure = level === null ? null : shares[second] >= Math.fround(level);
  return {
    class: classes[second],
    probability: shares[second],
    probabilities: Object.fromEntries(classes.map((name, i) => [name, shares[i]])),
    sure,
    why: reason(classes[second], sure, neither, level),
    ...(knows && { strangeness, neither }),
  };
}

function reason(name, sure, neither, level) {
  if (neither) return `${NEITHER} Of the two, rather ${name}.`;
  if (sure !== false) return sure ? "" : UNKNOWN;
  return `Rather ${name}. Below ${(Math.floor(1000 * level + 0.5) / 10).toFixed(1)} % this model does not decide.`;
}
