"""The Triton model repository: its configuration, parsed by protobuf itself, against the signature of the ONNX file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from helpers.models import strange_model
from onnx import TensorProto, helper

from catdog_jax.deployment import triton
from catdog_jax.errors import CatdogError
from catdog_jax.files import atomic_folder
from catdog_jax.runtime import model_file

TYPES = {"TYPE_UINT8": "tensor(uint8)", "TYPE_FP32": "tensor(float)"}


def small_model(heatmap: bool = True, classes: tuple[str, ...] = ("cats", "dogs")) -> bytes:
    """A model with the signature of an exported one: the probability of the second class is the mean red of the photo."""
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["channels"], axes=[1, 2], keepdims=0),
        helper.make_node("Gather", ["channels", "pair"], ["two"], axis=1),
        helper.make_node("Softmax", ["two"], ["probability"], axis=1),
    ]
    constants = [helper.make_tensor("pair", TensorProto.INT64, [2], [0, 1])]
    outputs = [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["N", 2])]
    if heatmap:
        nodes += [
            helper.make_node("AveragePool", ["rows"], ["cells"], kernel_shape=[32, 32], strides=[32, 32]),
            helper.make_node("ReduceMean", ["cells"], ["heatmap"], axes=[1], keepdims=0),
        ]
        nodes.insert(1, helper.make_node("Transpose", ["pixels"], ["rows"], perm=[0, 3, 1, 2]))
        outputs.append(helper.make_tensor_value_info("heatmap", TensorProto.FLOAT, ["N", 7, 7]))
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 224, 224, 3])
    graph = helper.make_graph(nodes, "catdog", [image], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"classes": json.dumps(classes)})
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def parsed(text: str) -> Any:
    """The configuration as protobuf reads it; names, numbers and types of the fields are those of model_config.proto."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="model_config.proto", package="inference", syntax="proto3")
    data_type = file.enum_type.add(name="DataType")
    for number, name in ((0, "TYPE_INVALID"), (2, "TYPE_UINT8"), (11, "TYPE_FP32")):
        data_type.value.add(name=name, number=number)
    messages = {
        "ModelInput": [("name", 1, 9, 1), ("data_type", 2, ".inference.DataType", 1), ("dims", 4, 3, 3)],
        "ModelOutput": [
            *(
                ("name", 1, 9, 1),
                ("data_type", 2, ".inference.DataType", 1),
                ("dims", 3, 3, 3),
                ("label_filename", 4, 9, 1),
                ("reshape", 5, ".inference.ModelTensorReshape", 1),
            ),
        ],
        "ModelTensorReshape": [("shape", 1, 3, 3)],
        "ModelDynamicBatching": [("preferred_batch_size", 1, 5, 3), ("max_queue_delay_microseconds", 2, 4, 1)],
        "ModelConfig": [
            *(("name", 1, 9, 1), ("max_batch_size", 4, 5, 1), ("input", 5, ".inference.ModelInput", 3)),
            *(
                ("output", 6, ".inference.ModelOutput", 3),
                ("dynamic_batching", 11, ".inference.ModelDynamicBatching", 1),
            ),
            *(("parameters", 14, ".inference.ModelConfig.ParametersEntry", 3), ("backend", 17, 9, 1)),
        ],
        "ModelParameter": [("string_value", 1, 9, 1)],
    }
    for message, fields in messages.items():
        described = file.message_type.add(name=message)
        for name, number, kind, label in fields:
            if isinstance(kind, int):
                described.field.add(name=name, number=number, type=kind, label=label)
            else:
                code = field.TYPE_ENUM if kind.endswith("DataType") else field.TYPE_MESSAGE
                described.field.add(name=name, number=number, type=code, type_name=kind, label=label)
    entry = next(message for message in file.message_type if message.name == "ModelConfig").nested_type.add(
        name="ParametersEntry"
    )
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=9, label=1)
    entry.field.add(name="value", number=2, type=field.TYPE_MESSAGE, type_name=".inference.ModelParameter", label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return text_format.Parse(
        text, message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))()
    )


@pytest.mark.parametrize("heatmap", [True, False], ids=["heat map", "no heat map"])
def test_the_configuration_is_the_signature_of_the_file(tmp_path: Path, heatmap: bool) -> None:
    model = small_model(heatmap)
    folder = triton.write(tmp_path / "models", model)
    assert folder == tmp_path / "models" / "catdog"
    assert (folder / "1" / "model.onnx").read_bytes() == model
    config = parsed((folder / "config.pbtxt").read_text())
    assert (config.name, config.backend) == (folder.name, "onnxruntime")
    session = ort.InferenceSession(str(folder / "1" / "model.onnx"), providers=["CPUExecutionProvider"])
    enum = config.DESCRIPTOR.file.enum_types_by_name["DataType"].values_by_number
    for described, tensors in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        found = [(value.name, TYPES[enum[value.data_type].name], list(value.dims)) for value in described]
        assert found == [(tensor.name, tensor.type, tensor.shape[1:]) for tensor in tensors]
        assert all(isinstance(tensor.shape[0], str) for tensor in tensors), "max_batch_size needs a free batch axis"
    assert config.max_batch_size > 1
    assert config.HasField("dynamic_batching")
    labelled = {value.name: value.label_filename for value in config.output if value.label_filename}
    assert labelled == {"probability": "labels.txt"}
    assert (folder / "labels.txt").read_text() == "cats\ndogs\n"
    assert json.loads(config.parameters["decision"].string_value) == {"threshold": 0.5, "abstain_below": None}
    batch = np.zeros((config.max_batch_size, *config.input[0].dims), np.uint8)
    assert session.run(["probability"], {"image": batch})[0].shape == (config.max_batch_size, *config.output[0].dims)


def test_a_number_a_photo_is_reshaped_and_the_rule_has_its_level() -> None:
    """Triton has no tensor without an axis beside the batch: the file's [N] is answered as [N, 1]."""
    rule = {"threshold": 0.5, "abstain_below": 0.75, "strange_above": 0.5}
    config = parsed(triton.configuration(model_file.described(strange_model().SerializeToString())))
    (strange,) = (value for value in config.output if value.name == "strangeness")
    assert list(strange.dims) == [1]
    assert strange.HasField("reshape")
    assert list(strange.reshape.shape) == []
    assert not any(value.HasField("reshape") for value in config.output if value.name != "strangeness")
    assert json.loads(config.parameters["decision"].string_value) == rule


def test_an_earlier_model_is_replaced_and_other_models_stay(tmp_path: Path) -> None:
    (tmp_path / "resnet").mkdir()
    (tmp_path / "resnet" / "config.pbtxt").write_text("another's")
    triton.write(tmp_path, small_model())
    triton.check(tmp_path)
    triton.write(tmp_path, small_model(heatmap=False))
    assert (tmp_path / "catdog" / "1" / "model.onnx").read_bytes() == small_model(heatmap=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["catdog", "resnet"]


@pytest.mark.parametrize("earlier", [False, True], ids=["of another program", "changed since"])
def test_files_of_other_origin_are_not_touched(tmp_path: Path, earlier: bool) -> None:
    if earlier:
        triton.write(tmp_path, small_model())
    (tmp_path / "catdog").mkdir(exist_ok=True)
    (tmp_path / "catdog" / "config.pbtxt").write_text("tuned by hand")
    for act in (lambda: triton.check(tmp_path), lambda: triton.write(tmp_path, small_model())):
        with pytest.raises(
            CatdogError, match=r"catdog: expected an empty folder .* found config\.pbtxt of other .* --triton"
        ):
            act()
    assert (tmp_path / "catdog" / "config.pbtxt").read_text() == "tuned by hand"


def test_what_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CatdogError, match=r"catdog: cannot be written: Not a directory\. .* --triton"):
        triton.write(tmp_path / "file", small_model())
    (tmp_path / "catdog").write_text("")
    with pytest.raises(CatdogError, match="catdog: expected a folder to write, found something else"):
        triton.check(tmp_path)


def test_a_name_of_two_lines_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(CatdogError, match=r"labels\.txt: expected names of classes of one line, found 'd\\nogs'"):
        triton.write(tmp_path, small_model(classes=("cats", "d\nogs")))
    assert not list(tmp_path.iterdir())


def test_an_interrupted_write_leaves_the_earlier_folder(tmp_path: Path) -> None:
    triton.write(tmp_path, small_model())

    def interrupted() -> None:
        with atomic_folder.folder_writer(tmp_path / "catdog", "--triton") as folder:
            (folder / "config.pbtxt").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [path.name for path in tmp_path.iterdir()] == ["catdog"]
    assert (tmp_path / "catdog" / "1" / "model.onnx").read_bytes() == small_model()
    triton.check(tmp_path)
