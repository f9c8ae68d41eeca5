"""The one decision: from probabilities to a class, sure or not, in Python and in the browser; and a model file's word on it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import browser

from catdog_jax.deployment import browser as browser_build
from catdog_jax.errors import CatdogError
from catdog_jax.runtime import decision
from catdog_jax.runtime.decision import Rule

CLASSES = ("cats", "dogs")
NEXT = float(np.nextafter(np.float32(0.9), np.float32(0)))  # the float32 below 0.9's
RULES = {
    "unknown": Rule(CLASSES),
    "0.9": Rule(CLASSES, abstain_below=0.9),
    # 56.25 %: even in Python's formats, up in JavaScript's
    "a tie of the rounding": Rule(("a", "b"), abstain_below=0.5625),
    "digits": Rule(("ein Hund", "猫"), abstain_below=0.6440516218303524),
    "always": Rule(CLASSES, abstain_below=0.0),
    "never": Rule(CLASSES, abstain_below=1.0),
    "another threshold": Rule(CLASSES, threshold=0.7, abstain_below=0.6),
    "a low threshold": Rule(CLASSES, threshold=0.2, abstain_below=0.25),
    "strangers": Rule(CLASSES, abstain_below=0.6, strange_above=0.4881),
    "strangers, and no level": Rule(CLASSES, strange_above=0.3),
}
STRANGE = (0.0, 0.1, 0.29999998, 0.3, 0.30000004, 0.48809998, 0.4881, 0.48810002, 0.7, 1.2)
SECOND = (
    0.0,
    1e-9,
    0.1,
    0.2,
    0.3,
    0.43749998,
    0.4375,
    0.49999997,
    0.5,
    0.5625,
    0.644,
    0.6440516,
    0.64405164,
    0.7,
    NEXT,
    0.9,
    1.0,
)

chromium = pytest.fixture(scope="module")(browser.chromium)


def pair(second: float) -> np.ndarray:
    return np.array([1 - second, second], np.float32)


# Python


@pytest.mark.parametrize(
    ("second", "level", "expected"),
    [
        (0.95, 0.9, ("dogs", True, "")),
        (0.9, 0.9, ("dogs", True, "")),  # as float32 it is 0.8999999762, and so is the level
        (NEXT, 0.9, ("dogs", False, "Rather dogs. Below 90.0 % this model does not decide.")),
        (0.2, 0.9, ("cats", False, "Rather cats. Below 90.0 % this model does not decide.")),
        (0.5, 0.5, ("dogs", True, "")),
        (0.45, 0.5625, ("cats", False, "Rather cats. Below 56.3 % this model does not decide.")),
        (0.999, None, ("dogs", None, "This model does not say from which probability on it is sure.")),
    ],
)
def test_a_verdict_is_the_class_and_whether_it_is_sure(
    second: float, level: float | None, expected: tuple[Any, ...]
) -> None:
    found = Rule(CLASSES, abstain_below=level).decide(pair(second))
    assert (found.name, found.sure, found.why) == expected
    assert found.probability == found.probabilities[found.name]
    assert list(found.row()) == ["class", "probability", "probabilities", "sure", "why"]


@pytest.mark.parametrize(
    ("strangeness", "neither"),
    [(0.0, False), (0.3, False), (np.nextafter(np.float32(0.3), np.float32(1)), True), (1.5, True)],
)
def test_a_photo_that_is_strange_is_of_neither_class_and_keeps_what_it_leans_to(
    strangeness: float, neither: bool
) -> None:
    found = Rule(CLASSES, abstain_below=0.9, strange_above=0.3).decide(pair(0.8), np.float32(strangeness))
    assert (found.name, found.sure, found.neither) == ("dogs", False, neither)
    assert found.strangeness == pytest.approx(float(strangeness))
    said = "Neither: it is unlike the photos that this model was trained on. Of the two, rather dogs."
    assert found.why == (said if neither else "Rather dogs. Below 90.0 % this model does not decide.")
    assert list(found.row())[5:] == ["strangeness", "neither"]
    assert (
        decision.said(found.name, found.sure, found.neither) == ("neither" if neither else "unsure") + ", rather dogs"
    )


def test_without_a_level_or_a_strangeness_nothing_is_said_of_strangers() -> None:
    for found in (Rule(CLASSES).decide(pair(0.8), np.float32(9)), Rule(CLASSES, strange_above=0.3).decide(pair(0.8))):
        assert found.strangeness is found.neither is None
        assert list(found.row()) == ["class", "probability", "probabilities", "sure", "why"]
    assert "strange_above" not in Rule(CLASSES).settings()


def test_probabilities_are_written_with_the_digits_that_they_have() -> None:
    assert Rule(CLASSES).decide(np.array([0.1, 0.9], np.float32)).probabilities == {"cats": 0.1, "dogs": 0.9}


def test_a_rule_is_read_from_what_is_written() -> None:
    for rule in RULES.values():
        assert decision.read(rule.classes, {"decision": json.dumps(rule.settings())}) == rule


def test_a_file_from_before_has_its_level_in_the_recipe_of_its_head() -> None:
    assert decision.read(CLASSES, {"head": '{"abstain_below": 0.64, "l2": 0.001}'}) == Rule(CLASSES, abstain_below=0.64)
    with_threshold = {"head": '{"abstain_below": 0.64, "threshold": 0.2}'}  # of a head that is not in a file yet
    assert decision.read(CLASSES, with_threshold) == Rule(CLASSES, 0.2, 0.64)
    for metadata in ({}, {"head": "{}"}, {"head": '{"abstain_below": null}'}):
        assert decision.read(CLASSES, metadata) == Rule(CLASSES)
    both = {"head": '{"abstain_below": 0.64}', "decision": '{"threshold": 0.5, "abstain_below": null}'}
    assert decision.read(CLASSES, both) == Rule(CLASSES), "the key decides where it is there"


DAMAGED = {
    "NaN": (
        '{"threshold": 0.5, "abstain_below": NaN}',
        "decision: abstain_below: expected a number from 0 to 1, found NaN",
    ),
    "infinite": ('{"threshold": 0.5, "abstain_below": 1e999}', "decision: abstain_below: expected .*, found Infinity"),
    "above 1": ('{"threshold": 0.5, "abstain_below": 64}', "decision: abstain_below: expected .*, found 64"),
    "negative": ('{"threshold": -0.1, "abstain_below": null}', "decision: threshold: expected .*, found -0.1"),
    "text": ('{"threshold": 0.5, "abstain_below": "often"}', 'decision: abstain_below: expected .*, found "often"'),
    "true": ('{"threshold": 0.5, "abstain_below": true}', "decision: abstain_below: expected .*, found true"),
    "no threshold": ('{"threshold": null, "abstain_below": null}', "decision: threshold: expected .*, found null"),
    "a key too few": ('{"threshold": 0.5}', "decision: expected threshold and abstain_below, found threshold$"),
    "a key of later": (
        '{"threshold": 0.5, "abstain_below": null, "neither": 3}',
        "decision: expected threshold and abstain_below, found threshold, abstain_below, neither",
    ),
    "a strangeness below 0": (
        '{"threshold": 0.5, "abstain_below": null, "strange_above": -0.1}',
        "decision: strange_above: expected a finite number from 0 on, found -0.1",
    ),
    "an infinite strangeness": (
        '{"threshold": 0.5, "abstain_below": null, "strange_above": 1e999}',
        "decision: strange_above: expected .*, found Infinity",
    ),
    "no strangeness": (
        '{"threshold": 0.5, "abstain_below": null, "strange_above": null}',
        "decision: strange_above: expected .*, found null",
    ),
    "strangeness alone": (
        '{"strange_above": 0.5}',
        "decision: expected threshold and abstain_below, found strange_above",
    ),
    "a list": ("[0.5, 0.6]", r"decision: expected a JSON object, found '\[0.5, 0.6\]'"),
    "no JSON": ("0.5,", "decision: expected a JSON object, found '0.5,'"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_value_is_an_error_that_names_its_key(case: str) -> None:
    text, expected = DAMAGED[case]
    with pytest.raises(CatdogError, match=f"^{expected}"):
        decision.read(CLASSES, {"decision": text})


@pytest.mark.parametrize("value", ['"often"', "NaN", "-1", "[]"])
def test_a_damaged_recipe_of_a_head_is_one_too(value: str) -> None:
    with pytest.raises(CatdogError, match=r"^head: abstain_below: expected a number from 0 to 1, found "):
        decision.read(CLASSES, {"head": f'{{"abstain_below": {value}}}'})


# The browser


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("decision")
    source = Path(browser_build.__file__).parents[1] / "page" / "web" / "decision.js"
    (folder / "decision.js").write_bytes(source.read_bytes())
    (folder / "index.html").write_text("<!doctype html><title>decision</title><link rel=icon href=data:,>")
    with browser.hosted(folder) as address:
        yield address


def decided(page: Any, rule: Rule, shares: list[list[Any]], strange: Any = None) -> list[dict[str, Any]] | str:
    script = """const [about, shares, strange, done] = arguments;
        const told = strange === null ? undefined : Float32Array.from(strange, Number);
        import('./decision.js').then(({decide}) => shares.map(
            (pair, i) => decide(about, Float32Array.from(pair, Number), told?.[i])
        )).then(done, (error) => done(error.message))"""
    return page.execute_async_script(script, {"classes": rule.classes, "decision": rule.settings()}, shares, strange)


@pytest.mark.parametrize("name", RULES)
def test_the_browser_decides_as_python(chromium: Any, site: str, name: str) -> None:
    chromium.get(f"{site}/")
    rule, pairs = RULES[name], [pair(second) for second in SECOND]
    found = decided(chromium, rule, [[float(value) for value in one] for one in pairs])
    assert not isinstance(found, str), found
    expected = [rule.decide(one) for one in pairs]
    assert [(one["class"], one["sure"], one["why"]) for one in found] == [
        (one.name, one.sure, one.why) for one in expected
    ]
    for one, python, probabilities in zip(found, expected, pairs, strict=True):
        assert list(one["probabilities"].values()) == probabilities.tolist()
        assert np.float32(one["probability"]) == np.float32(python.probability)
    assert browser.complaints(chromium) == []


@pytest.mark.parametrize("name", RULES)
def test_the_browser_knows_the_same_strangers(chromium: Any, site: str, name: str) -> None:
    chromium.get(f"{site}/")
    rule, strange = RULES[name], np.array(STRANGE, np.float32)
    found = decided(chromium, rule, [[0.25, 0.75]] * len(strange), strange.tolist())
    assert not isinstance(found, str), found
    expected = [rule.decide(pair(0.75), value).row() for value in strange]
    keys = ("class", "sure", "why", "neither")
    assert [[one.get(key) for key in keys] for one in found] == [[one.get(key) for key in keys] for one in expected]
    assert [np.float32(one.get("strangeness", 0)) for one in found] == [
        np.float32(one.get("strangeness", 0)) for one in expected
    ]
    complaint = decided(chromium, RULES["strangers"], [[0.25, 0.75]], ["NaN"])
    assert complaint == "expected a finite strangeness, found NaN"


def test_what_is_no_number_is_no_verdict_in_the_browser_either(chromium: Any, site: str) -> None:
    chromium.get(f"{site}/")
    assert decided(chromium, RULES["0.9"], [["NaN", "Infinity"]]) == "expected finite probabilities, found NaN"
