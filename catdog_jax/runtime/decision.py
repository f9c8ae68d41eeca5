"""What a model's outputs mean: the class, whether it is sure of it, and whether the photo is of neither. All decide here.

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

STRANGE_KEYS = ("strangeness", "neither")  # of a row, where the model knows strangers
NEITHER = "Neither: it is unlike the photos that this model was trained on."
UNKNOWN = "This model does not say from which probability on it is sure."
_KEYS = ("threshold", "abstain_below")
_STRANGE = "strange_above"  # a further key, of models that know strangers


@dataclass(frozen=True)
class Verdict:
    """What a model says of a photo.

    Attributes:
      name: the class.
      probability: of that class.
      probabilities: by class.
      sure: whether the model decides; None where its file does not say from which probability on it
        does.
      why: the reason in words where it is not sure or the photo is of neither class; else empty.
      strangeness: how unlike the photos of the training it is; None of a model that does not say.
      neither: whether it is so unlike them that the class means nothing; None where that is not known.
    """

    name: str
    probability: float
    probabilities: dict[str, float]
    sure: bool | None
    why: str
    strangeness: float | None = None
    neither: bool | None = None

    def row(self) -> dict[str, Any]:
        """The verdict as it is written: {"class", "probability", "probabilities", "sure", "why"}.

        Of a model that knows strangers, "strangeness" and "neither" too.
        """
        keys = ("probability", "probabilities", "sure", "why", *(() if self.neither is None else STRANGE_KEYS))
        return {"class": self.name, **{key: getattr(self, key) for key in keys}}


@dataclass(frozen=True)
class Rule:
    """How a model's probabilities become a verdict.

    Attributes:
      classes: the names of the two classes, in the order of the probabilities.
      threshold: the probability of the second class from which on a photo is of that class.
      abstain_below: the probability of its class below which a verdict is unsure; None where that
        is not known.
      strange_above: the strangeness above which a photo is of neither class; None of a model that
        knows no strangers.
    """

    classes: tuple[str, str]
    threshold: float = THRESHOLD
    abstain_below: float | None = None
    strange_above: float | None = None

    def decide(self, probabilities: np.ndarray, strangeness: float | np.floating[Any] | None = None) -> Verdict:
        """The verdict on a photo.

        The probabilities are float32 [2], in the order of `classes`; the strangeness is a float32,
        or None where it was not computed.
        """
        pair = np.asarray(probabilities, np.float32)
        # The float with the fewest digits that is still this float32: 0.9, not 0.8999999761581421
        values = [float(np.format_float_scientific(value)) for value in pair]
        label = int(pair[1] >= np.float32(self.threshold))
        name = self.classes[label]
        sure = None if self.abstain_below is None else bool(pair[label] >= np.float32(self.abstain_below))
        strange, neither = self._strange(strangeness)
        why = f"{NEITHER} Of the two, rather {name}." if neither else self._why(name, sure)
        by_class = dict(zip(self.classes, values, strict=True))
        return Verdict(name, values[label], by_class, sure, why, strange, neither)

    def _strange(self, strangeness: float | np.floating[Any] | None) -> tuple[float | None, bool | None]:
        """The strangeness with the digits that it has, and whether it is above the level."""
        if self.strange_above is None or strangeness is None:
            return None, None
        single = np.float32(strangeness)
        return float(np.format_float_scientific(single)), bool(single > np.float32(self.strange_above))

    def _why(self, name: str, sure: bool | None) -> str:
        if sure is None or self.abstain_below is None:
            return UNKNOWN
        # Not the format's rounding, which JavaScript does otherwise
        level = math.floor(1000 * self.abstain_below + 0.5) / 10
        return "" if sure else f"Rather {name}. Below {level:.1f} % this model does not decide."

    def settings(self) -> dict[str, float | None]:
        """The value of the metadata's key `decision`: {"threshold", "abstain_below"}, and "strange_above" where it is known."""
        return {key: getattr(self, key) for key in (*_KEYS, *(() if self.strange_above is None else (_STRANGE,)))}


def said(name: str, sure: bool | None, neither: bool | None = None) -> str:
    """A verdict in a few words: the class; or that the photo is of neither or the model unsure, and what it leans to."""
    if neither:
        return f"neither, rather {name}"
    return f"unsure, rather {name}" if sure is False else name


def read(classes: tuple[str, str], metadata: Mapping[str, str]) -> Rule:
    """The rule of a model file.

    `metadata` is what the file says of itself. The key `decision` counts; without it (in a file
    from before it, and of a head that is not in a file yet) the recipe of the `head` has the levels
    and the threshold, or not at all.

    Raises:
      CatdogError: a value is damaged, or the key has another content than this version knows. The
        message names the key.
    """
    if "decision" not in metadata:
        recipe = _object("head", metadata)
        threshold = _threshold("head", recipe.get("threshold", THRESHOLD))
        strange = _strange_above("head", recipe[_STRANGE]) if _STRANGE in recipe else None
        return Rule(classes, threshold, _level("head", recipe.get("abstain_below")), strange)
    stored = _object("decision", metadata)
    if set(stored) - {_STRANGE} != set(_KEYS):  # a rule with more to it must not be followed by half
        raise CatdogError(f"decision: expected {' and '.join(_KEYS)}, found {', '.join(map(str, stored)) or 'nothing'}")
    strange = _strange_above("decision", stored[_STRANGE]) if _STRANGE in stored else None
    levels = _threshold("decision", stored["threshold"]), _level("decision", stored["abstain_below"])
    return Rule(classes, *levels, strange)


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


def _strange_above(name: str, level: Any) -> float:
    if isinstance(level, bool) or not isinstance(level, int | float) or not 0 <= level < math.inf:  # NaN is refused too
        raise CatdogError(f"{name}: {_STRANGE}: expected a finite number from 0 on, found {json.dumps(level)[:100]}")
    return float(level)


def _level(name: str, level: Any, key: str = "abstain_below") -> float | None:
    if level is None:
        return None
    if isinstance(level, bool) or not isinstance(level, int | float) or not 0 <= level <= 1:  # so that NaN is refused
        raise CatdogError(f"{name}: {key}: expected a number from 0 to 1, found {json.dumps(level)[:100]}")
    return float(level)
