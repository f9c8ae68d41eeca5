"""The figures of the long form of the tests in faults/."""

import json
from pathlib import Path

FIGURES = Path(__file__).parents[2] / "artifacts" / "faults.json"


def record(name: str, figures: dict[str, int], long: bool) -> None:
    print(name, figures)
    if long:
        known = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
        FIGURES.write_text(json.dumps(known | {name: figures}, indent=1, sort_keys=True) + "\n")
