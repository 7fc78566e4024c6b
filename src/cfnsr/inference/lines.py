"""Predictions of many files as JSON lines, as they come; a second run does what the first has left."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from cfnsr.data.prepare import fault
from cfnsr.errors import InputError
from cfnsr.files import lock
from cfnsr.inference.predict import predict
from cfnsr.inference.recogniser import Recogniser
from cfnsr.processes import restart_limit, time_limit

Line = dict[str, Any]
BEGIN = b'{"file": '  # of each line
PATIENCE = 600.0  # seconds from one window to the next, of which several are prepared at a time


@dataclass
class LinePredictor:
    """Predicts files in any process, which loads the model first; a file it cannot read gives the reason.

    What is no fault of the file, as a full disk or a missing network, is raised.

    Args:
        load: gives the model.
        settings: those of `predict`.
        track: finds a file's OpenFace CSV.
    """

    load: Callable[[], Recogniser]
    settings: Mapping[str, Any]
    track: Callable[[Path], Path | None]

    @cached_property
    def model(self) -> Recogniser:
        """The model, loaded once."""
        return self.load()

    def __call__(self, file: Path) -> Line:
        """Predict a file as `predict --json` does."""
        model, track = self.model, self.track(file)
        try:
            with time_limit(file, track):
                return predict(
                    model,
                    file,
                    openface=track,
                    progress=lambda done, total: restart_limit(PATIENCE),
                    **self.settings,
                ).as_json()
        except Exception as error:
            return failed(file, fault(error, str(file))[1])


def failed(file: Path, reason: str) -> Line:
    """Make the line of a file that could not be predicted."""
    return {"file": str(file), "error": reason}


@contextmanager
def open_lines(path: Path) -> Iterator[BinaryIO]:
    """Open a file of lines, to read it and to add to it alone.

    Raises:
        InputError: another process writes it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        file.seek(0)
        lock(file, path)
        yield file


def append_lines(file: BinaryIO, lines: Iterable[Line]) -> Iterator[Line]:
    """Write lines as they come, and pass them on."""
    for line in lines:
        file.write(json.dumps(line).encode() + b"\n")
        file.flush()
        yield line


def read_lines(file: BinaryIO) -> dict[str, bool]:
    """Read which files have a line, and if it is a prediction; a last line that was cut off is deleted.

    Raises:
        InputError: the file holds something else, which stays as it is.
    """
    found: dict[str, bool] = {}
    whole = 0
    for number, line in enumerate(file, start=1):
        cut = not line.endswith(b"\n")
        if cut and (line.startswith(BEGIN) or BEGIN.startswith(line)):
            file.truncate(whole)
            break
        try:
            described = json.loads(line)
            found[described["file"]] = "error" not in described
        except (ValueError, KeyError, TypeError, RecursionError):
            cut = True
        if cut:
            raise InputError(
                f"{file.name} line {number}: expected a prediction as JSON, as an earlier run wrote it; give "
                "another --out"
            )
        whole += len(line)
    return found
