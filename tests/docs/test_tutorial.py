"""docs/tutorial.ipynb runs, and gives outputs of the kinds that it was committed with."""

from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient", reason="needs the package nbclient: pip install 'catdog-jax[dev]'")
import nbformat  # noqa: E402 - nbclient brings it

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.ipynb"


def kinds(notebook: nbformat.NotebookNode) -> list[list[list[str]]]:
    """Of each code cell's outputs: the stream's name, or the types of the data; a picture is kept as JPEG alone."""
    cells = (cell for cell in notebook.cells if cell.cell_type == "code")
    return [
        [
            [output.name] if "name" in output else sorted(set(output.get("data", {})) - {"image/png"})
            for output in cell.outputs
        ]
        for cell in cells
    ]


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:jupyter_client|jupyter_core|zmq|ipykernel")
def test_the_tutorial_runs(real_weights, tmp_path):
    pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")
    kept, run = (nbformat.read(TUTORIAL, as_version=4) for _ in range(2))
    folder = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(run, timeout=600, resources=folder).execute()  # raises where a cell does
    assert kinds(run) == kinds(kept)
    assert (tmp_path / "run" / "model.onnx").is_file()


def test_the_tutorial_keeps_its_outputs():
    notebook = nbformat.read(TUTORIAL, as_version=4)
    nbformat.validate(notebook)
    assert all(of_cell for of_cell in kinds(notebook)[1:])
    assert TUTORIAL.stat().st_size < 1_000_000
