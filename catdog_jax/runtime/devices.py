"""Where a model runs: the execution providers of ONNX Runtime by short names, what is there, and sessions on them.

ONNX Runtime gives a session on the CPU, and raises nothing, where a provider does not start. So a session is
asked where it really is, and one that is not where it was asked for is an error. A provider comes with a build of
ONNX Runtime, or as a plug-in: a package onnxruntime_ep_… with `get_library_path` and `get_ep_names`
(https://onnxruntime.ai/docs/execution-providers/plugin-ep-libraries/packaging.html).
"""

import contextlib
import functools
import importlib
import io
import pkgutil
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, get_args

import numpy as np
import onnxruntime as ort

from catdog_jax.config import Device
from catdog_jax.errors import UsageError

CPU = "CPUExecutionProvider"
_PLUGINS = "onnxruntime_ep_"  # what the modules of plug-ins begin with
_WARNING, _ERROR, _FATAL = 2, 3, 4  # severities of ONNX Runtime's log; the first is its default


class Provider(NamedTuple):
    """An execution provider.

    Attributes:
      names: what ONNX Runtime calls it, in a build of its own or as a plug-in.
      brought_by: the packages that bring it, as one installs them.
      auto: whether `auto` tries it. Not those that compile first, or that come unasked.
    """

    names: tuple[str, ...]
    brought_by: str
    auto: bool = False


PROVIDERS: dict[str, Provider] = {
    "cpu": Provider((CPU,), "Run: pip install onnxruntime"),
    "cuda": Provider(
        ("CUDAExecutionProvider", "CudaPluginExecutionProvider"),
        "Run: pip uninstall onnxruntime; pip install 'onnxruntime-gpu[cuda,cudnn]'",
        auto=True,
    ),
    "tensorrt": Provider(
        ("NvTensorRTRTXExecutionProvider", "TensorrtExecutionProvider"),
        "Run: pip install onnxruntime-ep-nv-tensorrt-rtx; or install onnxruntime-gpu in place of onnxruntime, and TensorRT",
    ),
    "openvino": Provider(
        ("OpenVINOExecutionProvider",),
        "Run: pip install onnxruntime-ep-openvino (Intel), or onnxruntime-openvino in place of onnxruntime (any CPU)",
        auto=True,
    ),
    "coreml": Provider(("CoreMLExecutionProvider",), "The package onnxruntime brings it on macOS alone"),
    "webgpu": Provider(("WebGpuExecutionProvider",), "Run: pip install onnxruntime-ep-webgpu", auto=True),
}
_WITH = {"TensorrtExecutionProvider": ("CUDAExecutionProvider",)}  # what takes the nodes that it leaves


class Placement(NamedTuple):
    """Where a session runs.

    Attributes:
      device: "cpu", "cuda", …, a name of `PROVIDERS`.
      nodes: of the graph, as ONNX Runtime has optimised it; 0 where this version does not say.
      on_cpu: how many of them the device left to the CPU.
      passed_over: what `auto` tried before, and why not, a sentence each.
    """

    device: str
    nodes: int = 0
    on_cpu: int = 0
    passed_over: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.on_cpu:
            return self.device
        return f"{self.device} but for {self.on_cpu:,} of {self.nodes:,} nodes, which run on the CPU"

    def said(self) -> str:
        """The device in words, with what was passed over for it."""
        return "; ".join([str(self), *(f"passed over: {reason}" for reason in self.passed_over)])


class Opened(NamedTuple):
    """A session, and where it runs."""

    session: ort.InferenceSession
    placement: Placement


class _NotThereError(Exception):
    """A device that is not there, or on which the model does not run; the reason in words."""


# What is there


def installed() -> tuple[str, ...]:
    """The devices whose provider ONNX Runtime has, by their names in `PROVIDERS`; they need not work.

    Example:
      >>> "cpu" in installed()
      True
    """
    there = {*ort.get_available_providers(), *_plugins()}
    return tuple(name for name, provider in PROVIDERS.items() if there & {*provider.names})


@functools.cache
def _plugins() -> dict[str, Any]:
    """The plug-in packages that are installed: the provider's name -> its module."""
    found: dict[str, Any] = {}
    for module in pkgutil.iter_modules():
        if module.name.startswith(_PLUGINS):
            with contextlib.suppress(Exception):  # a package that does not keep to the rules is none
                plugin = importlib.import_module(module.name)
                found |= dict.fromkeys(plugin.get_ep_names(), plugin)
    return found


def _registered(name: str) -> list[Any]:
    """The devices of a plug-in's provider, whose library is loaded, once a process.

    Raises:
      _NotThereError: the library cannot be loaded.
    """
    if not hasattr(ort, "get_ep_devices"):
        raise _NotThereError(f"ONNX Runtime {ort.__version__} takes no plug-ins; 1.23 does")
    devices = [device for device in ort.get_ep_devices() if device.ep_name == name]
    if not devices and (plugin := _plugins().get(name)) is not None:
        try:
            _register(plugin.__name__)
        except Exception as error:  # ONNX Runtime's exceptions have no base class of their own
            raise _NotThereError(reason(error)) from None
        devices = [device for device in ort.get_ep_devices() if device.ep_name == name]
    return sorted(devices, key=lambda device: ("GPU", "CPU", "NPU").index(device.device.type.name))


@functools.cache
def _register(module: str) -> None:
    ort.register_execution_provider_library(module, importlib.import_module(module).get_library_path())


# Sessions


def opened(model: bytes, device: str, options: Callable[[], ort.SessionOptions]) -> Opened:
    """A session with a model on a device, which has shown that it computes one photo.

    Args:
      model: the bytes of an ONNX file.
      device: a name of `PROVIDERS`, or "auto": an accelerator that is there and runs the model, else the CPU.
      options: makes the settings of a session, anew for each that is tried.

    Raises:
      UsageError: the device is not known, is not there, or does not run the model.
      Exception: ONNX Runtime's, where the CPU does not load the model either.
    """
    if device == "auto":
        return _best(model, options)
    if device == "cpu":
        return _on_cpu(model, options)
    if device not in PROVIDERS:
        raise UsageError(
            f"--device: expected one of {', '.join(get_args(Device))}, found {device!r}. Choose one of these."
        )
    there, provider = installed(), PROVIDERS[device]
    if device not in there:
        raise UsageError(
            f"--device {device}: expected ONNX Runtime with {provider.names[0]}, found ONNX Runtime {ort.__version__} with "
            f"{', '.join(there)}. {provider.brought_by}."
        )
    try:
        return _on(model, device, options)
    except _NotThereError as error:
        _on_cpu(model, options)  # raises where it is the model's fault
        raise UsageError(
            f"--device {device}: expected the model to run there, found: {error}. Check its driver and libraries, or choose "
            "--device cpu."
        ) from None


def _best(model: bytes, options: Callable[[], ort.SessionOptions]) -> Opened:
    passed_over = []
    for device in installed():
        if PROVIDERS[device].auto:
            try:
                return _on(model, device, options, accelerated=True)
            except _NotThereError as error:
                passed_over.append(f"{device} ({error})")
    session, placement = _on_cpu(model, options)
    return Opened(session, placement._replace(passed_over=tuple(passed_over)))


def _on_cpu(model: bytes, options: Callable[[], ort.SessionOptions]) -> Opened:
    return Opened(ort.InferenceSession(model, options(), providers=[CPU]), Placement("cpu"))


def _on(model: bytes, device: str, options: Callable[[], ort.SessionOptions], accelerated: bool = False) -> Opened:
    """A session on a device; `accelerated`: only where its hardware is known to be no CPU.

    Raises:
      _NotThereError: it is not there, or does not run the model.
    """
    built_in = [name for name in PROVIDERS[device].names if name in ort.get_available_providers()]
    if accelerated and built_in and device == "openvino":  # whose devices this build does not tell
        raise _NotThereError("it computes on the CPU, where it is not known to be faster")
    settings = options()
    _record_nodes(settings)
    arguments: dict[str, Any] = {}
    with _logged() as log:
        if built_in:
            arguments["providers"] = [built_in[0], *_WITH.get(built_in[0], ())]
            _preload(device)
        else:
            chosen = _plugged(device, accelerated)
            settings.add_provider_for_devices([chosen], {})
        try:
            session = ort.InferenceSession(model, settings, enable_fallback=0, **arguments)
            _try(session)
        except Exception as error:  # ONNX Runtime's exceptions have no base class of their own
            raise _NotThereError(reason(error)) from None
    placement = _placement(device, session)
    if placement.device != device:
        raise _NotThereError(log[0] if log else "ONNX Runtime opened it on the CPU instead")
    return Opened(session, placement)


def _try(session: ort.InferenceSession) -> None:
    """Computes one grey photo, where the model takes photos: some devices load what they cannot compute."""
    (taken, *others), outputs = session.get_inputs(), [output.name for output in session.get_outputs()]
    sizes = taken.shape[1:]
    if not others and taken.type == "tensor(uint8)" and all(isinstance(size, int) for size in sizes):
        session.run(outputs[:1], {taken.name: np.full((1, *sizes), 128, np.uint8)})


def _plugged(device: str, accelerated: bool) -> Any:
    """The device of a plug-in's provider that is used: a GPU where it has one.

    Raises:
      _NotThereError: there is none.
    """
    names = [name for name in PROVIDERS[device].names if name in _plugins()]
    found = [one for name in names for one in _registered(name)]
    if not found:
        raise _NotThereError(f"the plug-in {_plugins()[names[0]].__name__} finds no hardware here that it can use")
    if accelerated and found[0].device.type.name != "GPU":
        raise _NotThereError("it finds no GPU")
    return found[0]


def _preload(device: str) -> None:
    """Loads NVIDIA's libraries from the packages that pip installs, which the loader does not find by itself."""
    if device in ("cuda", "tensorrt") and hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):  # what is missing, it prints; the session says so too
            ort.preload_dlls()


def _record_nodes(settings: ort.SessionOptions) -> None:
    if hasattr(ort.InferenceSession, "get_provider_graph_assignment_info"):
        settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")


def _placement(device: str, session: ort.InferenceSession) -> Placement:
    """Where a session says that it is; on the CPU where the provider is missing, or has taken no node."""
    names = {name for other in PROVIDERS[device].names for name in (other, *_WITH.get(other, ()))}
    if not names & {*session.get_providers()}:
        return Placement("cpu")  # the provider did not start
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return Placement(device)
    parts = [(part.ep_name, len(part.get_nodes())) for part in session.get_provider_graph_assignment_info()]
    nodes, taken = sum(count for _, count in parts), sum(count for name, count in parts if name in names)
    return Placement(device if taken else "cpu", nodes, nodes - taken)


@contextlib.contextmanager
def _logged() -> Iterator[list[str]]:
    """ONNX Runtime's errors, which it logs where it does not raise them, in place of stderr; none where it cannot tell."""
    told: list[str] = []
    if hasattr(ort, "set_default_logger_callback"):
        ort.set_default_logger_callback(lambda *of_line: told.append(reason(of_line[-1])), _ERROR)
    else:
        ort.set_default_logger_severity(_FATAL)
    try:
        yield told
    finally:
        if hasattr(ort, "set_default_logger_callback"):
            ort.set_default_logger_callback(None)
        ort.set_default_logger_severity(_WARNING)


def reason(error: object) -> str:
    """An error of ONNX Runtime in a line, without the places of its source that stand before the cause."""
    line = " ".join(str(error).split()).rpartition("with error: ")[2]
    return re.sub(r"^/\S+:\d+ .*?\) ", "", line)[:200].rstrip(". ")
