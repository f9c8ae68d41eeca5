"""`catdog STAGE …`: one thin subcommand a stage. A stage's module is imported when it is chosen, and not before."""

import dataclasses
import importlib
import signal
import sys
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Union

import tyro
from rich.text import Text

from catdog_jax import __version__, config, jax_environment, settings_file
from catdog_jax.console import console, discard_stdout, printable
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.ranges import check

STAGES: dict[str, type] = {  # a subcommand -> its settings; what it does is commands/NAME.py
    "run": config.RunConfig,
    "audit": config.AuditConfig,
    "port": config.PortConfig,
    "extract": config.ExtractConfig,
    "train": config.TrainConfig,
    "evaluate": config.EvaluateConfig,
    "export": config.ExportConfig,
    "predict": config.PredictConfig,
    "embed": config.EmbedConfig,
    "similar": config.SimilarConfig,
    "serve": config.ServeConfig,
    "verify": config.VerifyConfig,
    "doctor": config.DoctorConfig,
}
_DESCRIPTION = f"""Photos of two kinds of thing -> a classifier in one deployable ONNX file. Version {__version__}.

`catdog run --data FOLDER` does everything, and --data demo on drawn photos; the other stages do one part each, on the files of
the stage before. `catdog STAGE --help` lists a stage's options, and --config FILE reads them."""
_CONFIG = Annotated[
    Path | None,
    tyro.conf.arg(
        help="Read settings from this .json or .toml file, by the names of the options; those given here win. The config.json "
        "of a run trains it again."
    ),
]
# A package -> the extra that brings it to who needs no JAX; all others come with JAX
_BRINGS = {
    "sklearn": "[evaluate]'",
    **dict.fromkeys(("prometheus_client", "python_multipart", "starlette", "uvicorn"), "[serve]'"),
}
INTERRUPTED = 130  # 128 + SIGINT, as shells report it
BROKEN_PIPE = 141  # 128 + SIGPIPE: the reader of stdout went away


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit status: 0, 1 for bad data, 2 for wrong usage, 130 when interrupted.

    It is 141 when the reader of stdout went away. A stage may return a status of its own, as
    `catdog audit --strict` does with 3 when it has found something.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments == ["--version"]:
        print(f"catdog_jax {__version__}")
        return 0
    # Its remarks on damage; what matters comes back as an ImageError
    warnings.filterwarnings("ignore", module=r"PIL\.")
    if threading.current_thread() is threading.main_thread():  # a preempted machine's last word ends like Ctrl-C
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    name = ""
    try:
        name, settings = _parse(arguments or ["--help"])
        check(settings)
        jax_environment.prepare()
        result = _stage(name)(settings)
        return result if isinstance(result, int) else 0
    except CatdogError as error:
        return _failed(error)
    except ModuleNotFoundError as error:
        return _failed(_missing(name, error))
    except BrokenPipeError:  # `| head` has seen enough
        discard_stdout()
        return BROKEN_PIPE
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        console.print(Text.assemble(("error: ", "bold red"), f"{where}{error.strerror or error}"), soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        kept = "The shards that were finished are kept: run the same command again to go on from there."
        console.print(
            "interrupted. " + (kept if name in ("run", "extract") else "Files of earlier runs are as they were."),
            soft_wrap=True,
        )
        return INTERRUPTED


def _parse(arguments: list[str]) -> tuple[str, Any]:
    read = _settings_file(arguments)
    options = {name: _with_config(stage) for name, stage in STAGES.items()}
    commands = tuple(
        Annotated[settings, tyro.conf.subcommand(name, prefix_name=False, **_defaults(name, arguments, settings, read))]
        for name, settings in options.items()
    )
    any_stage: Any = Union[commands]  # noqa: UP007 - built at run time
    parsed = tyro.cli(
        any_stage,
        args=arguments,
        prog="catdog",
        description=_DESCRIPTION,
        # A flag that a file sets can be taken back on the command line
        config=(tyro.conf.HelptextFromCommentsOff, *(() if read else (tyro.conf.FlagCreatePairsOff,))),
    )
    name = next(name for name, stage in options.items() if stage is type(parsed))
    values = {field.name: getattr(parsed, field.name) for field in dataclasses.fields(STAGES[name])}
    return name, STAGES[name](**values)


def _with_config(settings: type) -> type:
    """A stage's settings and the option --config, which is none of them."""
    option = dataclasses.field(default=None, kw_only=True)
    return dataclasses.make_dataclass(
        settings.__name__,
        [("config", _CONFIG, option)],
        bases=(settings,),
        frozen=True,
        namespace={"__doc__": settings.__doc__},
    )


def _settings_file(arguments: Sequence[str]) -> Path | None:
    """The file that --config names, before anything else is parsed: it changes the defaults."""
    for place, word in enumerate(arguments):
        if word == "--config" and place + 1 < len(arguments):
            return Path(arguments[place + 1])
        if word.startswith("--config="):
            return Path(word.partition("=")[2])
    return None


def _defaults(name: str, arguments: Sequence[str], settings: Any, read: Path | None) -> dict[str, Any]:
    """The defaults of the stage that is chosen, where a file changes them."""
    if read is None or name != arguments[0]:
        return {}
    required = (one.name for one in dataclasses.fields(settings) if one.default is dataclasses.MISSING)
    given = dict.fromkeys(required, tyro.MISSING) | settings_file.read(read, name, STAGES[name])
    return {"default": settings(**given)}


def _stage(name: str) -> Any:
    """The function of a stage. Raises ModuleNotFoundError where a package that it needs is not installed."""
    return getattr(importlib.import_module(f"catdog_jax.commands.{name}"), name)


def _failed(error: CatdogError) -> int:
    console.print(Text.assemble(("error: ", "bold red"), printable(str(error))), soft_wrap=True)
    return error.exit_status


def _missing(name: str, error: ModuleNotFoundError) -> UsageError:
    """What to install for a stage, or for these settings of it, whose package is not there."""
    package = str(error.name).partition(".")[0]
    extras = _BRINGS.get(package, "[cpu,weights]' (or cuda13, or tpu, in place of cpu)")
    return UsageError(
        f"catdog {name}: expected the package {package}, found that it is not installed. "
        f"Run: pip install 'catdog-jax{extras}."
    )
