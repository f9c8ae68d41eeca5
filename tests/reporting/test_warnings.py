"""What figures do not tell, word for word, and where the words begin."""

import pytest

from catdog_jax.reporting import warnings

CLASSES = ("cats", "dogs")


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([[987, 13], [13, 987]], []),
        (
            [[7, 0], [0, 6]],
            ["13 test photos: with no mistake among them, the share of mistakes may still be up to 23 %."],
        ),
        (
            [[28, 2], [1, 29]],
            ["60 test photos: with 3 mistakes among them, the share of mistakes may be anything from 2 to 14 %."],
        ),
        (
            [[995, 2], [0, 3]],
            ["3 test photos of dogs: with no mistake among them, the share of mistakes may still be up to 56 %."],
        ),
        (
            [[40, 0], [1, 1]],
            [
                "42 test photos: with 1 mistake among them, the share of mistakes may be anything from 0 to 12 %.",
                "2 test photos of dogs: with 1 mistake among them, the share of mistakes may be anything from 9 to 91 %.",
            ],
        ),
    ],
)
def test_few_photos_are_said_to_be_few(counts: list, expected: list):
    assert warnings.few(counts, ("cats", "dogs"), "test") == expected


def test_the_words_begin_where_the_interval_gets_wide():
    without_mistake = [warnings.few([[n - n // 2, 0], [0, n // 2]], ("a", "b"), "test") for n in (72, 73)]
    # Wilson's interval of 0 in n is z² / (n + z²) wide: 5 points at 73
    assert [len(one) for one in without_mistake] == [1, 0]


@pytest.mark.parametrize(
    ("totals", "said"),
    [
        ([100, 100], ""),
        ([299, 100], ""),
        ([300, 100], "3 test photos of cats for each of dogs"),
        ([100, 345], "3.5 test photos of dogs for each of cats"),
        ([10, 12_345], "1,234 test photos of dogs for each of cats"),
        ([0, 50], ""),
    ],
)
def test_lopsided_photos_are_said_to_be_lopsided(totals: list[int], said: str):
    rest = f": look at balanced accuracy, because accuracy hardly counts {CLASSES[totals[1] < totals[0]]}."
    assert warnings.lopsided(totals, CLASSES, "test") == (said and said + rest)


def test_no_better_than_the_baseline():
    assert warnings.no_better([[0, 10], [0, 100]], CLASSES) == (
        "The accuracy, 90.9 % (84.1 – 95.0 %), may be no better than the baseline: always answering “dogs” is right for "
        "90.9 % of these photos."
    )
    assert warnings.no_better([[5, 5], [2, 98]], CLASSES)  # 93.6 %, but from 87.4 % on
    assert warnings.no_better([[95, 5], [2, 98]], CLASSES) == ""


def test_so_good_a_figure_is_suspicious():
    expected = (
        "No mistake among 200 test photos is suspiciously good: are some of them copies of photos that the head was "
    )
    assert warnings.perfect([[100, 0], [0, 100]], "test") == f"{expected}trained on? `catdog audit` finds copies."
    assert "cross-validated photos" in warnings.perfect([[100, 0], [0, 100]], "folds")
    for counts, split in (
        ([[100, 0], [0, 99]], "test"),
        ([[100, 0], [1, 900]], "test"),
        ([[900, 0], [0, 900]], "train"),
    ):
        assert warnings.perfect(counts, split) == ""


def test_all_that_is_to_be_said_of_a_head_that_always_says_dogs():
    said = warnings.of_counts([[0, 30], [0, 900]], CLASSES, "test")
    assert [one.split()[0] for one in said] == ["30", "30", "The"]
    assert said[1].endswith(
        "`--class-weight balanced` or `--decide-by balanced_accuracy` in the training count both alike."
    )
    assert "--class-weight" not in " ".join(warnings.of_counts([[0, 30], [0, 900]], CLASSES, "test", balanced=True))
    assert warnings.of_counts([[987, 13], [13, 987]], CLASSES, "test") == []


def test_a_threshold_is_flattered_by_the_photos_that_chose_it():
    assert warnings.chosen_here("folds") == (
        "The threshold was chosen on these cross-validated photos, which flatters the figures that depend on it."
    )
    assert "these validation photos" in warnings.chosen_here("validation")
    assert warnings.chosen_here("test") == ""
