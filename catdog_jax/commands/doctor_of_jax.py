"""The part of `catdog doctor` that JAX is needed for: training's devices, rates and advice."""

import jax
from rich.table import Table
from rich.text import Text

from catdog_jax.config import DoctorConfig
from catdog_jax.console import console, show
from catdog_jax.doctor import Facts, advise, examine

_EXAMPLE = 25_000  # photos of the whole Dogs vs Cats set, for the estimate of time


def report(config: DoctorConfig) -> bool:
    """Prints what was found of JAX, measured and advised; whether something is broken.

    Raises:
      UsageError: JAX has no device.
    """
    with console.status("measuring for a few seconds; compiling comes first"):
        facts = examine(source=config.weights, seconds=config.seconds)
    show(_table(facts))
    advice = advise(facts)
    for item in advice:
        label, style = ("problem", "bold red") if item.problem else ("advice", "bold yellow")
        show(Text.assemble((f"{label}: ", style), item.text))
    if not advice:
        show(Text("Nothing to improve was found.", "green"))
    return any(item.problem for item in advice)


def _table(facts: Facts) -> Table:
    table = Table(
        title=f"JAX {jax.__version__} on {facts.backend}", show_header=False, title_justify="left", title_style="bold"
    )
    kinds = ", ".join(f"{facts.devices.count(kind)} × {kind}" for kind in dict.fromkeys(facts.devices))
    table.add_row(
        "devices", f"{kinds}" + (" (a core each)" if facts.backend == "cpu" and len(facts.devices) > 1 else "")
    )
    table.add_row("cores", f"{facts.cores}")
    if facts.memory:
        table.add_row(
            "memory", f"{facts.memory / 2**30:.1f} GiB" + (", taken at the start" if facts.preallocates else "")
        )
    table.add_row("convolutions", f"{facts.conv}, {facts.precision}")
    table.add_row("numbers", "wrong" if facts.wrong else "as NumPy computes them in float64")
    table.add_row("compiled programs", Text(facts.compile_cache or "not kept"))
    table.add_row("weights", Text(facts.weights))
    table.add_section()
    table.add_row("decoding", f"{facts.decode_rate:,.1f} photos/s")
    table.add_row("convolutions", f"{facts.forward_rate:,.1f} photos/s")
    slower = min(facts.decode_rate, facts.forward_rate)
    table.add_row(f"{_EXAMPLE:,} photos take about", _duration(_EXAMPLE / slower))
    return table


def _duration(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds < 120 else f"{seconds / 60:,.0f} min"
