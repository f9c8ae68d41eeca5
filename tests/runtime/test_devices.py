"""On which device a model runs: what is said where one is not there, does not start, or leaves nodes to the CPU.

The providers that are not installed here are stood in for by sessions that say where they would be."""

import re
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from helpers.models import save_grey, tiny_model

import catdog_jax as cd
from catdog_jax.cli import main
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.runtime import devices
from catdog_jax.runtime.predictor import Predictor

CUDA, OPENVINO, WEBGPU = "CUDAExecutionProvider", "OpenVINOExecutionProvider", "WebGpuExecutionProvider"
PHOTO = np.full((1, 224, 224, 3), 140, np.uint8)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(tiny_model().SerializeToString())
    return path


class Session(ort.InferenceSession):
    """A session on the CPU that says that it is elsewhere, with some nodes left on the CPU."""

    says, taken, left, fails = CUDA, 6, 0, ""

    def __init__(self, model: bytes, options: ort.SessionOptions, providers: Any = None, **_: Any):
        self.asked = providers or [self.says]
        super().__init__(model, options, providers=["CPUExecutionProvider"])

    def get_providers(self) -> list[str]:
        on_device = self.asked[0] != "CPUExecutionProvider" and self.says in self.asked
        return [self.says, "CPUExecutionProvider"] if on_device else ["CPUExecutionProvider"]

    def get_provider_graph_assignment_info(self) -> list[Any]:
        parts = ((self.says, self.taken), ("CPUExecutionProvider", self.left))
        return [types.SimpleNamespace(ep_name=name, get_nodes=lambda count=count: [0] * count) for name, count in parts]

    def run(self, *arguments: Any) -> Any:
        if self.fails and self.asked != ["CPUExecutionProvider"]:
            raise RuntimeError(self.fails)
        return super().run(*arguments)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """ONNX Runtime with further providers, whose sessions are as they are told to be."""

    def install(*names: str, **settings: Any) -> None:
        monkeypatch.setattr(ort, "get_available_providers", lambda: [*names, "CPUExecutionProvider"])
        session = type("Session", (Session,), {"says": names[0], **settings})
        monkeypatch.setattr(ort, "InferenceSession", session)

    return install


def test_by_default_and_by_name_it_is_the_cpu_here(model: Path) -> None:
    for device in ("auto", "cpu"):
        predictor = Predictor(model, device=device)  # type: ignore[arg-type]
        assert predictor.device == "cpu"
        assert repr(predictor).endswith("int8, with heat maps, on cpu)" if predictor.explains else "on cpu)")
    assert devices.installed()[0] == "cpu"


@pytest.mark.parametrize("device", sorted(devices.PROVIDERS.keys() - {"cpu"}))
def test_a_device_that_is_not_there_is_an_error_that_says_what_brings_it(
    device: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(devices, "_plugins", dict)
    provider = devices.PROVIDERS[device]
    with pytest.raises(UsageError) as caught:
        Predictor(model, device=device)  # type: ignore[arg-type]
    assert str(caught.value) == (
        f"--device {device}: expected ONNX Runtime with {provider.names[0]}, found ONNX Runtime {ort.__version__} with cpu. "
        f"{provider.brought_by}."
    )


def test_another_word_is_an_error(model: Path) -> None:
    with pytest.raises(UsageError, match=r"expected one of auto, cpu, cuda, .*, found 'gpu'\. Choose one of these"):
        Predictor(model, device="gpu")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="device: expected"):
        cd.Predictor(model, device="gpu")


def test_auto_takes_an_accelerator_that_runs_the_model(model: Path, stand_in: Callable[..., None]) -> None:
    stand_in(CUDA)
    predictor = Predictor(model)
    assert predictor.device == "cuda"
    assert predictor.placement.said() == "cuda"
    np.testing.assert_array_equal(predictor.probabilities(PHOTO), Predictor(model, device="cpu").probabilities(PHOTO))


def test_nodes_that_are_left_to_the_cpu_are_told(model: Path, stand_in: Callable[..., None]) -> None:
    stand_in(CUDA, taken=110, left=8)
    assert str(Predictor(model, device="cuda").placement) == "cuda but for 8 of 118 nodes, which run on the CPU"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"says": OPENVINO}, "ONNX Runtime opened it on the CPU instead"),  # the provider was dropped without a word
        ({"taken": 0, "left": 9}, "ONNX Runtime opened it on the CPU instead"),  # it is there, and takes nothing
        ({"fails": "CUDNN failure 4: no kernel image"}, "CUDNN failure 4: no kernel image"),
    ],
    ids=["dropped", "takes nothing", "fails"],
)
def test_a_session_that_is_not_on_the_device_is_no_answer(
    settings: dict[str, Any], reason: str, model: Path, stand_in: Callable[..., None]
) -> None:
    stand_in(CUDA, **settings)
    with pytest.raises(UsageError, match=rf"^--device cuda: expected the model to run there, found: {reason}\. Check"):
        Predictor(model, device="cuda")
    predictor = Predictor(model, device="auto")
    assert predictor.device == "cpu"
    assert predictor.placement.said() == f"cpu; passed over: cuda ({reason})"


def test_a_device_that_fails_later_is_an_error_in_a_line(model: Path, stand_in: Callable[..., None]) -> None:
    stand_in(CUDA)
    predictor = Predictor(model, device="cuda")
    predictor._session.fails = "CUDA failure 2: out of memory"
    expected = (
        "expected an answer of --device cuda, found: CUDA failure 2: out of memory. Lower --batch-size, or choose"
    )
    with pytest.raises(CatdogError, match=re.escape(expected)):
        predictor.probabilities(PHOTO)


def test_a_faulty_model_is_no_fault_of_the_device(tmp_path: Path, stand_in: Callable[..., None]) -> None:
    stand_in(CUDA)
    (tmp_path / "m.onnx").write_bytes(tiny_model().SerializeToString()[:200])
    for device in ("cuda", "auto"):
        with pytest.raises(CatdogError, match=r"m\.onnx: expected an ONNX model of `catdog export`"):
            Predictor(tmp_path / "m.onnx", device=device)  # type: ignore[arg-type]


def test_auto_leaves_out_what_is_slow_to_start_or_no_accelerator(model: Path, stand_in: Callable[..., None]) -> None:
    stand_in("TensorrtExecutionProvider")
    assert Predictor(model).placement == devices.Placement("cpu")
    stand_in(OPENVINO)
    assert Predictor(model).device == "cpu"
    assert Predictor(model, device="openvino").device == "openvino"


def hardware(name: str, kind: str) -> Any:
    return types.SimpleNamespace(ep_name=name, device=types.SimpleNamespace(type=types.SimpleNamespace(name=kind)))


@pytest.fixture
def plug_in(monkeypatch: pytest.MonkeyPatch, stand_in: Callable[..., None]) -> Callable[..., list[str]]:
    """ONNX Runtime with a plug-in that finds this hardware; gives the libraries that were registered."""

    def install(name: str, *kinds: str) -> list[str]:
        registered: list[str] = []
        found = [hardware(name, kind) for kind in kinds]
        package = types.ModuleType("onnxruntime_ep_test")
        package.__dict__.update(get_ep_names=lambda: [name], get_library_path=lambda: "/plugin.so")
        stand_in(name)
        monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
        monkeypatch.setattr(devices, "_plugins", lambda: {name: package})
        monkeypatch.setattr(devices, "_register", registered.append)
        monkeypatch.setattr(ort, "get_ep_devices", lambda: found if registered else [])
        chosen = lambda self, devices, options: registered.append(devices[0].device.type.name)  # noqa: E731
        options = type("Options", (ort.SessionOptions,), {"add_provider_for_devices": chosen})
        monkeypatch.setattr(ort, "SessionOptions", options)
        return registered

    return install


@pytest.mark.parametrize(("kinds", "chosen", "auto"), [(("CPU", "GPU"), "GPU", "webgpu"), (("CPU",), "CPU", "cpu")])
def test_a_plug_in_is_registered_and_its_gpu_is_preferred(
    kinds: tuple[str, ...], chosen: str, auto: str, model: Path, plug_in: Callable[..., list[str]]
) -> None:
    registered = plug_in(WEBGPU, *kinds)
    assert devices.installed() == ("cpu", "webgpu")
    assert Predictor(model, device="webgpu").device == "webgpu"
    assert registered == ["onnxruntime_ep_test", chosen]
    assert Predictor(model).device == auto


def test_a_plug_in_without_hardware_says_so(model: Path, plug_in: Callable[..., list[str]]) -> None:
    plug_in(OPENVINO)
    expected = "found: the plug-in onnxruntime_ep_test finds no hardware here that it can use. Check its driver"
    with pytest.raises(UsageError, match=re.escape(expected)):
        Predictor(model, device="openvino")


def test_packages_that_are_plug_ins_are_found_by_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "onnxruntime_ep_good.py").write_text("def get_ep_names(): return ['WebGpuExecutionProvider']")
    (tmp_path / "onnxruntime_ep_bad.py").write_text("raise OSError('broken')")
    monkeypatch.syspath_prepend(tmp_path)
    devices._plugins.cache_clear()
    assert devices._plugins()[WEBGPU].__name__ == "onnxruntime_ep_good"
    devices._plugins.cache_clear()


def test_the_command_line_says_the_device(
    model: Path, tmp_path: Path, capsys: Any, stand_in: Callable[..., None]
) -> None:
    photo = save_grey(tmp_path / "photo.png", 160)
    arguments = ["predict", "--model", str(model), str(photo)]
    assert main([*arguments, "--device", "openvino"]) == 2
    assert "error: --device openvino: expected ONNX Runtime with OpenVINOExecutionProvider" in capsys.readouterr().err
    stand_in(CUDA, taken=7, left=2)
    assert main(arguments) == 0
    told = capsys.readouterr().err
    assert f"{model}: on cuda but for 2 of 9 nodes, which run on the CPU" in told
    assert "1 photos on cuda: 0 cats, 1 dogs" in told
