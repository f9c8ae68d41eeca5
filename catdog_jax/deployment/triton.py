"""A Triton model repository around an exported model: its configuration, its labels and the file itself.

Triton (and KServe's Triton runtime) reads DIR/catdog/config.pbtxt and DIR/catdog/1/model.onnx. The
configuration is written from the file's own signature, so the two cannot disagree.
"""

import json
from pathlib import Path
from typing import Any

from catdog_jax.errors import CatdogError
from catdog_jax.files import atomic, atomic_folder
from catdog_jax.runtime import decision, model_file

NAME = "catdog"
MAX_BATCH_SIZE = 16
# A request waits this long for others; VGG16 takes longer than that for one photo on a CPU
QUEUE_DELAY_MICROSECONDS = 2000
_TYPES = {"tensor(uint8)": "TYPE_UINT8", "tensor(float)": "TYPE_FP32"}


def check(directory: Path) -> None:
    """Refuses a repository whose model `catdog` is not one that `write` made; other models in it do not matter.

    Raises:
      CatdogError: as `atomic_folder.check_replaceable`.
    """
    atomic_folder.check_replaceable(directory / NAME, "--triton")


def write(directory: Path, model: bytes) -> Path:
    """Writes the folder of the model `catdog`, whole or not at all; other models in the repository stay as they are.

    Raises:
      CatdogError: the folder cannot be written or holds files of other origin, or a class has no
        name of one line.
    """
    described = model_file.described(model)
    labels = _labels(described.metadata)
    folder = directory / NAME
    with atomic_folder.folder_writer(folder, "--triton") as temporary:
        atomic.write_bytes(temporary / "config.pbtxt", configuration(described).encode())
        atomic.write_bytes(temporary / "labels.txt", labels.encode())
        atomic.write_bytes(temporary / "1" / "model.onnx", model)
    return folder


def configuration(model: model_file.Described) -> str:
    """The text of config.pbtxt (ModelConfig of Triton's model_config.proto); its dims leave out the batch axis.

    Triton cannot abstain and knows no threshold: it labels unsure photos too, each as its more
    probable class. The parameter `decision` lets a client decide.
    """
    inputs, outputs = (",\n".join(map(_tensor, side)) for side in (model.inputs, model.outputs))
    rule = json.dumps(json.dumps(decision.stored(model.metadata).settings()))
    return f"""name: "{NAME}"
backend: "onnxruntime"
max_batch_size: {MAX_BATCH_SIZE}
input [
{inputs}
]
output [
{outputs}
]
dynamic_batching {{ max_queue_delay_microseconds: {QUEUE_DELAY_MICROSECONDS} }}
parameters {{ key: "decision" value: {{ string_value: {rule} }} }}
"""


def _tensor(value: Any) -> str:
    sizes = ", ".join(map(str, value.shape[1:])) or "1"
    # Triton has no tensors without an axis beside the batch: it gives such numbers one
    scalar = "" if value.shape[1:] else "\n    reshape: { shape: [ ] }"
    labels = '\n    label_filename: "labels.txt"' if value.name == "probability" else ""
    return f"""  {{
    name: "{value.name}"
    data_type: {_TYPES[value.type]}
    dims: [ {sizes} ]{scalar}{labels}
  }}"""


def _labels(metadata: dict[str, str]) -> str:
    """The classes, one a line, in the order of the probabilities."""
    classes = json.loads(metadata["classes"])
    for name in classes:
        if name.splitlines() != [name]:
            raise CatdogError(
                f"labels.txt: expected names of classes of one line, found {name!r}. Rename that folder of photos."
            )
    return "".join(f"{name}\n" for name in classes)
