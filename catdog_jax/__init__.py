"""Photos of two kinds of thing, for example cats and dogs, to a classifier in one ONNX file.

    import catdog_jax as cd

    photos = cd.load_photos("photos")                # a folder, a list, a TFDS data set, or "demo"
    findings = cd.audit(photos)                      # broken files, copies, wrong labels
    features = cd.extract(photos, "run/features")    # VGG16's features, resumed where they are there
    head = cd.train(features)                        # a small head on them
    result = cd.evaluate(head, features)             # metrics with intervals, on the test split
    cd.export(head, "run/model.onnx", photos=photos)
    model = cd.Predictor("run/model.onnx")           # ONNX Runtime, no JAX
    model("cat.jpg")

Objects go in and come out; nothing is written unless a path is given. A room is imported when a
name of it is asked for, and not before: `import catdog_jax` brings neither JAX nor ONNX Runtime.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# ONNX Runtime reports to Microsoft unless this is set before it is imported. It is set here because
# no module of the package, and no process that it starts, comes before this line. Who sets the
# variable, to 0 for instance, is obeyed.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from catdog_jax.auditing.audit import audit as audit
    from catdog_jax.auditing.findings import Findings as Findings
    from catdog_jax.auditing.similar import similar as similar
    from catdog_jax.console import show_progress as show_progress
    from catdog_jax.deployment.onnx_file import export as export
    from catdog_jax.errors import CatdogError as CatdogError
    from catdog_jax.errors import UsageError as UsageError
    from catdog_jax.evaluation.evaluate import evaluate as evaluate
    from catdog_jax.evaluation.result import Evaluation as Evaluation
    from catdog_jax.features.cache import FeatureCache as FeatureCache
    from catdog_jax.features.extraction import extract as extract
    from catdog_jax.features.extractor import Extractor as Extractor
    from catdog_jax.heads.head import FittedHead as FittedHead
    from catdog_jax.heads.head import load as load_head  # noqa: F401
    from catdog_jax.heads.training import train as train
    from catdog_jax.photos.dataset import Dataset as Dataset
    from catdog_jax.photos.sources import load_photos as load_photos
    from catdog_jax.runtime.prediction import Prediction as Prediction
    from catdog_jax.runtime.predictor import Predictor as Predictor

# A public name -> its module, its name there where it is another, and the options of the command
# line whose argument has another name here.
_PUBLIC: dict[str, tuple[str, str, dict[str, str]]] = {
    "CatdogError": ("errors", "", {}),
    "Dataset": ("photos.dataset", "", {}),
    "Evaluation": ("evaluation.result", "", {}),
    "Extractor": ("features.extractor", "", {}),
    "FeatureCache": ("features.cache", "", {}),
    "Findings": ("auditing.findings", "", {}),
    "FittedHead": ("heads.head", "", {}),
    "Prediction": ("runtime.prediction", "", {}),
    "Predictor": ("runtime.predictor", "", {"model": "path"}),
    "UsageError": ("errors", "", {}),
    "audit": ("auditing.audit", "", {"data": "photos"}),
    "evaluate": ("evaluation.evaluate", "", {"data": "photos"}),
    "export": ("deployment.onnx_file", "", {"data": "photos", "out": "path"}),
    "extract": ("features.extraction", "", {"data": "photos"}),
    "load_head": ("heads.head", "load", {}),
    "load_photos": ("photos.sources", "", {"data": "source"}),
    "show_progress": ("console", "", {}),
    "similar": ("auditing.similar", "", {}),
    "train": ("heads.training", "", {}),
}
_CALLS = {
    "Extractor",
    "Predictor",
    "audit",
    "evaluate",
    "export",
    "extract",
    "load_head",
    "load_photos",
    "similar",
    "train",
}
_WITHOUT_JAX = {"errors", "console", "photos", "runtime"}  # of the rooms that have public names
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'catdog_jax' has no attribute {name!r}")
    module, there, renamed = _PUBLIC[name]
    if module.partition(".")[0] not in _WITHOUT_JAX:
        from catdog_jax import jax_environment

        jax_environment.prepare()
    thing = getattr(importlib.import_module(f"catdog_jax.{module}"), there or name)
    if name in _CALLS:
        from catdog_jax.front_door import public

        thing = public(thing, renamed)
    globals()[name] = thing
    return thing


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
