"""A Triton model repository around an exported model: its configuration, its labels and the file itself.

Triton (and KServe's Triton runtime) reads DIR/catdog/config.pbtxt and DIR/catdog/1/model.onnx. The
configuration is written from the file's own signature, so the two cannot disagree.
"""

import json
from pathlib import Path

import onnx
from onnx import TensorProto, ValueInfoProto

from catdog_jax.errors import CatdogError
from catdog_jax.files import atomic, atomic_folder
from catdog_jax.runtime import decision

NAME = "catdog"
MAX_BATCH_SIZE = 16
# A request waits this long for others; VGG16 takes longer than that for one photo on a CPU
QUEUE_DELAY_MICROSECONDS = 2000
_TYPES: dict[int, str] = {TensorProto.UINT8: "TYPE_UINT8", TensorProto.FLOAT: "TYPE_FP32"}


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
    proto = onnx.load_from_string(model)
    labels = _labels({entry.key: entry.value for entry in proto.metadata_props})
    folder = directory / NAME
    with atomic_folder.folder_writer(folder, "--triton") as temporary:
        atomic.write_bytes(temporary / "config.pbtxt", configuration(proto).encode())
        atomic.write_bytes(temporary / "labels.txt", labels.encode())
        atomic.write_bytes(temporary / "1" / "model.onnx", model)
    return folder


def configuration(model: onnx.ModelProto) -> str:
    """The text of config.pbtxt (ModelConfig of Triton's model_config.proto); its dims leave out the batch axis.

    Triton cannot abstain and knows no threshold: it labels unsure photos too, each as its more
    probable class. The parameter `decision` lets a client decide.
    """
    inputs = ",\n".join(_tensor(value) for value in model.graph.input)
    outputs = ",\n".join(_tensor(value) for value in model.graph.output)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    rule = json.dumps(json.dumps(decision.stored(metadata).settings()))
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


def _tensor(value: ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    sizes = ", ".join(str(size.dim_value) for size in tensor.shape.dim[1:]) or "1"
    # Triton has no tensors without an axis beside the batch: it gives such numbers one
    scalar = "" if tensor.shape.dim[1:] else "\n    reshape: { shape: [ ] }"
    labels = '\n    label_filename: "labels.txt"' if value.name == "probability" else ""
    return f"""  {{
    name: "{value.name}"
    data_type: {_TYPES[tensor.elem_type]}
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
