"""What a model's probabilities mean: the class, and whether the model is sure of it. Every surface decides here.

The rule travels in the model's file, as the key `decision` of its metadata. `page/web/decision.js`
is the same in the browser.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from catdog_jax.config import THRESHOLD
from catdog_jax.errors import CatdogError

UNKNOWN = "This model does not say from which probability on it is sure."
_KEYS = ("threshold", "abstain_below")


@dataclass(frozen=True)
class Verdict:
    """What a model says of a photo.

    Attributes:
      name: the class.
      probability: of that class.
      probabilities: by class.
      sure: whether the model decides; None where its file does not say from which probability on it
        does.
      why: the reason in words where it is not sure; empty where it is.
    """

    name: str
    probability: float
    probabilities: dict[str, float]
    sure: bool | None
    why: str

    def row(self) -> dict[str, Any]:
        """The verdict as it is written: {"class", "probability", "probabilities", "sure", "why"}."""
        return {
            "class": self.name,
            **{key: getattr(self, key) for key in ("probability", "probabilities", "sure", "why")},
        }


@dataclass(frozen=True)
class Rule:
    """How a model's probabilities become a verdict.

    Attributes:
      classes: the names of the two classes, in the order of the probabilities.
      threshold: the probability of the second class from which on a photo is of that class.
      abstain_below: the probability of its class below which a verdict is unsure; None where that
        is not known.
    """

    classes: tuple[str, str]
    threshold: float = THRESHOLD
    abstain_below: float | None = None

    def decide(self, probabilities: np.ndarray) -> Verdict:
        """The verdict on a photo.

        The probabilities are float32 [2], in the order of `classes`.
        """
        pair = np.asarray(probabilities, np.float32)
        # The float with the fewest digits that is still this float32: 0.9, not 0.8999999761581421
        values = [float(np.format_float_scientific(value)) for value in pair]
        label = int(pair[1] >= np.float32(self.threshold))
        name = self.classes[label]
        sure = None if self.abstain_below is None else bool(pair[label] >= np.float32(self.abstain_below))
        return Verdict(name, values[label], dict(zip(self.classes, values, strict=True)), sure, self._why(name, sure))

    def _why(self, name: str, sure: bool | None) -> str:
        if sure is None or self.abstain_below is None:
            return UNKNOWN
        # Not the format's rounding, which JavaScript does otherwise
        level = math.floor(1000 * self.abstain_below + 0.5) / 10
        return "" if sure else f"Rather {name}. Below {level:.1f} % this model does not decide."

    def settings(self) -> dict[str, float | None]:
        """The value of the metadata's key `decision`: {"threshold", "abstain_below"}."""
        return {key: getattr(self, key) for key in _KEYS}


def said(name: str, sure: bool | None) -> str:
    """A verdict in a few words: the class, or that the model is unsure and what it leans to."""
    return f"unsure, rather {name}" if sure is False else name


def read(classes: tuple[str, str], metadata: Mapping[str, str]) -> Rule:
    """The rule of a model file.

    `metadata` is what the file says of itself. The key `decision` counts; without it (in a file
    from before it, and of a head that is not in a file yet) the recipe of the `head` has the level
    to abstain at and the threshold, or not at all.

    Raises:
      CatdogError: a value is damaged, or the key has another content than this version knows. The
        message names the key.
    """
    if "decision" not in metadata:
        recipe = _object("head", metadata)
        threshold = _threshold("head", recipe.get("threshold", THRESHOLD))
        return Rule(classes, threshold, _level("head", recipe.get("abstain_below")))
    stored = _object("decision", metadata)
    if set(stored) != set(_KEYS):  # a rule with more to it must not be followed by half
        raise CatdogError(f"decision: expected {' and '.join(_KEYS)}, found {', '.join(map(str, stored)) or 'nothing'}")
    return Rule(classes, _threshold("decision", stored["threshold"]), _level("decision", stored["abstain_below"]))


def stored(metadata: Mapping[str, str]) -> Rule:
    """The rule of a file of `catdog export`, whose classes are in its metadata. Raises as `read`."""
    first, second = json.loads(metadata["classes"])
    return read((first, second), metadata)


def _object(name: str, metadata: Mapping[str, str]) -> dict[str, Any]:
    text = metadata.get(name, "{}")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise CatdogError(f"{name}: expected a JSON object, found {text[:100]!r}")
    return value


def _threshold(name: str, value: Any) -> float:
    threshold = _level(name, value, key="threshold")
    if threshold is None:
        raise CatdogError(f"{name}: threshold: expected a number from 0 to 1, found null")
    return threshold


def _level(name: str, level: Any, key: str = "abstain_below") -> float | None:
    if level is None:
        return None
    if isinstance(level, bool) or not isinstance(level, int | float) or not 0 <= level <= 1:  # so that NaN is refused
        raise CatdogError(f"{name}: {key}: expected a number from 0 to 1, found {json.dumps(level)[:100]}")
    return float(level)
