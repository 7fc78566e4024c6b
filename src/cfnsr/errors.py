"""The one kind of error that is the user's to mend, and how it is worded."""

from importlib.util import find_spec


class InputError(ValueError):
    """Bad input: one line that says what was given, what was expected and what to do.

    The command line prints it on stderr and exits with code 2; no traceback without `--debug`.
    """


def require(extra: str, *packages: str) -> None:
    """Refuse work whose packages are not installed."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise InputError(
            f"{', '.join(missing)} is not installed: run pip install 'cfnsr[{extra}]', then the same command"
        )
