"""The script that measures an accelerator in one call, on the CPU and without the packages that it does not need."""

import json
import os
import subprocess
import sys

import pytest

from scripts.benchmarks import accelerator, compiled, sections, stand_ins

HIDES = """
import importlib.machinery
import sys


class Finder(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {hidden} else super().find_spec(name, path, target)


sys.meta_path[:] = [Finder if finder is importlib.machinery.PathFinder else finder for finder in sys.meta_path]
"""


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """Processes that are started find none of the packages that may be missing, and one CPU device."""
    (tmp_path / "sitecustomize.py").write_text(HIDES.format(hidden=repr(set(stand_ins.PACKAGES))))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]]))
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")


def python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_the_package_can_be_imported_without_what_it_is_not_used_for(bare):
    assert "No module named 'tyro'" in python("import catdog_jax.config").stderr
    code = "from scripts.benchmarks import stand_ins; print(stand_ins.install()); import catdog_jax.heads.search as search; "
    done = python(code + "from catdog_jax.config import Recipe; print(Recipe().hidden)")
    assert done.stdout == f"{[*stand_ins.PACKAGES]}\n(1024,)\n", done.stderr
    used = python(code + "from sklearn.metrics import f1_score; f1_score([1], [1])")
    assert "sklearn.metrics.f1_score: not installed on this machine" in used.stderr


def test_figures_are_written_as_they_come(bare, tmp_path, capsys):
    given = ["--sections", "about", "evaluate", "fit", "--tiny", "--turn", "0.01", "--out", str(tmp_path / "out")]
    status = accelerator.main([*given, "--seconds", "300"])
    found = json.loads((tmp_path / "out" / "accelerator-cpu.json").read_text())
    assert status == 0, found
    assert found["stand-ins"] == []  # of this process; those that it started have them
    names = {section: [row["name"] for row in rows] for section, rows in found["sections"].items()}
    assert names == {
        "about": ["devices"],
        "evaluate": ["probabilities of a head"],
        "fit": ["fit, first time", "fit, second time"],
    }
    assert all(row["value"] > 0 for rows in found["sections"].values() for row in rows)
    assert capsys.readouterr().out.count("\n") == 4


def test_a_section_that_fails_or_lasts_costs_itself_alone(tmp_path, monkeypatch):
    (late,) = accelerator.run("fit", ["--tiny"], 0.05)
    assert late == {"error": "stopped after 0 seconds"}
    (wrong,) = accelerator.run("nothing", [], 60)
    assert "invalid choice: 'nothing'" in wrong["error"]
    monkeypatch.setattr(accelerator, "run", lambda section, *_: iter([{"error": section}, {"device": "A card"}]))
    assert accelerator.main(["--sections", "limits", "forward", "--out", str(tmp_path)]) == 1
    found = json.loads((tmp_path / "accelerator-a-card.json").read_text())
    assert found["sections"]["forward"] == [{"error": "forward"}, {"device": "A card"}]
    assert accelerator.main(["--sections", "limits", "--seconds", "0", "--out", str(tmp_path / "none")]) == 1


@pytest.mark.parametrize(("right", "status"), [(1, 0), (0, 1)])
def test_a_wrong_result_is_a_failure(tmp_path, monkeypatch, right, status):
    row = sections.figure("pooling", right, "right", said="", off_by=0.1)
    monkeypatch.setattr(accelerator, "run", lambda *_: iter([row]))
    assert accelerator.main(["--sections", "sanity", "--out", str(tmp_path)]) == status


def test_every_section_can_be_asked_for():
    assert accelerator.SECTIONS.keys() == sections.SECTIONS.keys()


def test_a_missing_plugin_is_named(monkeypatch):
    monkeypatch.setattr(compiled, "_version", lambda _: "")
    with pytest.raises(SystemExit, match=r"^error: not installed\. Run: pip install libtpu \(of the version of jax\)$"):
        compiled.prepare(compiled.CompiledConfig(targets=("tpu-v5e",)))
