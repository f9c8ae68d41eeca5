"""What the benchmark's table compares with what."""

from catdog_jax.console import console
from scripts.benchmarks import benchmark


def shown(sides: dict[str, float | None]) -> dict[str, str]:
    """The ratio that the table of `forward` shows for each side; None stands for an absent one."""
    result = {
        "unit": "photos/s",
        "note": "",
        "sides": {
            name: {"absent": "not installed"} if rate is None else {"median": rate, "low": rate, "high": rate}
            for name, rate in sides.items()
        },
    }
    table = benchmark.table("forward", result)
    names, ratios = (list(table.columns[place].cells) for place in (0, 3))
    with console.capture():
        console.print(table)
    return dict(zip(names, ratios, strict=True))


def test_each_type_is_compared_with_its_own():
    found = shown({"catdog_jax": 30.0, "catdog_jax bfloat16": 100.0, "OpenVINO": 10.0, "OpenVINO bfloat16": 80.0})
    assert found == {"catdog_jax": "", "catdog_jax bfloat16": "", "OpenVINO": "3.00", "OpenVINO bfloat16": "1.25"}


def test_float32_is_compared_with_bfloat16_where_ours_has_none():
    found = shown({"catdog_jax": 30.0, "catdog_jax bfloat16": None, "OpenVINO bfloat16": 20.0, "ncnn": None})
    assert found == {"catdog_jax": "", "catdog_jax bfloat16": "", "OpenVINO bfloat16": "1.50", "ncnn": ""}
