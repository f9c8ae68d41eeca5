"""The errors that users meet. Each says where, what was expected, what was found and what to do, in one line."""


class CatdogError(Exception):
    """Bad data: the command line prints the message, without a traceback, and exits with status 1."""

    exit_status = 1


class UsageError(CatdogError):
    """Wrong usage (options that do not go together, a missing package): exit status 2."""

    exit_status = 2
