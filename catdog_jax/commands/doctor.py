"""`catdog doctor`: what was found, measured and advised, as tables and sentences."""

import importlib.util
import os

from rich.table import Table
from rich.text import Text

from catdog_jax.config import DoctorConfig
from catdog_jax.console import console, printable, show
from catdog_jax.errors import CatdogError
from catdog_jax.ranges import check_arguments
from catdog_jax.runtime import device_rates, devices
from catdog_jax.runtime.default_model import find_model


def doctor(config: DoctorConfig) -> int:
    """Prints what was found, measured and advised: of JAX, where it is installed, and of ONNX Runtime.

    Returns:
      The exit status: 0, or 1 if there is a problem: an accelerator that JAX does not use, no
        weights, or wrong numbers.

    Raises:
      CatdogError: `--model` cannot be used.
      UsageError: `--seconds` is not positive, or JAX has no device.
    """
    check_arguments(DoctorConfig, seconds=config.seconds)
    problem = False
    if importlib.util.find_spec("jax") is None:
        show("JAX is not installed. Training needs it: pip install 'catdog-jax[cpu,weights]' (or cuda13, or tpu).")
    else:
        from catdog_jax.commands import doctor_of_jax

        problem = doctor_of_jax.report(config)
    show(_of_onnx_runtime(config))
    return int(problem)


def _of_onnx_runtime(config: DoctorConfig) -> Table:
    """The devices of ONNX Runtime, with what a model reaches on each."""
    model, why = None, ""
    try:
        model = find_model(config.model)
    except CatdogError as error:  # none is named, and none is here, or the published one is damaged
        why = str(error)
    table = Table(
        title=f"ONNX Runtime {devices.ort.__version__}", show_header=False, title_justify="left", title_style="bold"
    )
    table.add_row("model", Text(printable(why or str(model))))
    if model is None:
        for device in devices.installed():
            table.add_row(device, "not tried")
    else:
        with console.status("timing the model on each device"):
            reached = device_rates.reached(model, config.seconds)
        for one in reached:
            off = "" if one.device == "cpu" else f", probabilities within {one.difference:.1g} of the CPU's"
            figures = f"{one.rate:,.1f} photos/s{off}" if one.works else f"does not work: {one.said}"
            table.add_row(Text(one.said if one.works else one.device), Text(printable(figures)))
    table.add_row("telemetry", Text(device_rates.telemetry(os.environ)))
    return table
