"""Models of a user's own: a Python file outside the package that registers entries of the zoo."""

import importlib.util
import sys
from pathlib import Path
from traceback import extract_tb

from cfnsr.errors import InputError

_loaded: dict[Path, None] = {}


def loaded() -> tuple[Path, ...]:
    """Plugins of this process, in order; its worker processes need them too."""
    return tuple(_loaded)


def blamed(error: BaseException) -> str:
    """Name the plugin that an error passed through, and the line; empty where it passed through none."""
    return next((f"{path}{line}" for path in _loaded if (line := _line(error, path))), "")


def load_plugin(path: Path) -> None:
    """Run a Python file, so that the entries it registers can be named like the package's own.

    The file is run as the user who gave it, like any script of theirs: nothing else ever names one.

    Raises:
        InputError: when the file is missing, is no Python, or fails; with the line where it does.
    """
    path = path.resolve()
    if not path.is_file() or path.suffix != ".py":
        raise InputError(f"plugin {path}: expected a Python file, such as gate.py, that registers a model")
    name = f"cfnsr_plugin_{len(_loaded)}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"plugin {path} cannot be read as Python: expected a .py file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses and the like look for their module
    try:
        spec.loader.exec_module(module)
    except InputError as error:
        raise InputError(f"plugin {path}: {error}") from error
    except (Exception, SystemExit) as error:
        raise InputError(
            f"plugin {path}{_line(error, path)} fails with {type(error).__name__}: {error}; mend it, or see "
            "the traceback with --debug"
        ) from error
    _loaded[path] = None


def _line(error: BaseException, path: Path) -> str:
    """Line of the plugin at which it failed: the deepest frame that lies in it."""
    if isinstance(error, SyntaxError):
        return f" line {error.lineno}" if error.lineno else ""
    frames = extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return f" line {lines[-1]}" if lines else ""
