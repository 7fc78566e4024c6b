"""The one kind of error that is the user's to mend, and how it is worded."""

from collections.abc import Sequence
from importlib.util import find_spec

LONGEST = 1500  # characters of a message


class InputError(ValueError):
    """Bad input: one line that says what was given, what was expected and what to do.

    The command line prints it on stderr and exits with code 2; no traceback without `--debug`. What a file
    holds may stand in it at any length: its middle is left out.
    """

    def __init__(self, message: str) -> None:
        if len(message) > LONGEST:
            message = f"{message[: LONGEST // 2]} ... {message[-LONGEST // 3 :]}"
        super().__init__(message)


def listed(names: Sequence[object], most: int = 3, between: str = ", ") -> str:
    """Join the first of some names, and count the others.

    >>> listed("abcde"), listed("ab", between="; ")
    ('a, b, c and 2 more', 'a; b')
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return between.join(map(str, names[:most])) + more


def is_installed(package: str) -> bool:
    """Look whether a package can be imported, without importing it."""
    return find_spec(package) is not None


def require(extra: str, *packages: str) -> None:
    """Refuse work whose packages, by the names they are imported by, are missing: an extra brings them.

    Raises:
        InputError: names those missing and the command that installs them.
    """
    if missing := [package.replace("_", "-") for package in packages if not is_installed(package)]:
        raise InputError(
            f"{', '.join(missing)} is not installed: run pip install 'cfnsr[{extra}]', then the same command"
        )
