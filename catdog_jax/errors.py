"""The errors that users meet. Each says where, what was expected, what was found and what to do, in one line."""

import re
from collections.abc import Mapping

_OPTION = re.compile(r"--([a-z][a-z0-9-]*)")
_COMMAND = re.compile(r"(`[^`]*`)")


class CatdogError(Exception):
    """Bad data: the command line prints the message, without a traceback, and exits with status 1."""

    exit_status = 1


class UsageError(CatdogError):
    """Wrong usage (arguments that do not go together, a missing package): exit status 2."""

    exit_status = 2


class ArgumentError(UsageError, ValueError):
    """Wrong usage as a Python caller meets it, who may expect a ValueError.

    Inside the package a `UsageError` is none: whoever reads a file catches ValueError, and would
    take wrong usage for bad data.
    """


def for_python(message: str, names: Mapping[str, str]) -> str:
    """A message of the command line in the words of a Python caller: its options are arguments there.

    Commands between backticks stay as they are.

    `names` has the options whose argument is called otherwise, for example {"data": "photos"}.

    Example:
      >>> for_python("--batch-size: expected 1 or more, found 0. See `catdog run --help`.", {})
      'batch_size: expected 1 or more, found 0. See `catdog run --help`.'
    """

    def argument(option: re.Match[str]) -> str:
        return names.get(option[1], option[1].replace("-", "_"))

    parts = _COMMAND.split(message)
    return "".join(part if part.startswith("`") else _OPTION.sub(argument, part) for part in parts)
