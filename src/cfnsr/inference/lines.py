"""Predictions of many files as JSON lines, as they come; a second run does what the first has left."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cfnsr.errors import InputError
from cfnsr.inference.predict import predict
from cfnsr.inference.recogniser import Recogniser

Line = dict[str, Any]


@dataclass
class LinePredictor:
    """Predicts files in any process, which loads the model first; a file it cannot read gives the reason.

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
        model = self.model
        try:
            return predict(model, file, openface=self.track(file), **self.settings).as_json()
        except (InputError, OSError) as error:
            return failed(file, str(error))


def failed(file: Path, reason: str) -> Line:
    """Make the line of a file that could not be predicted."""
    return {"file": str(file), "error": reason}


def append_lines(path: Path, lines: Iterable[Line]) -> Iterator[Line]:
    """Write lines as they come, and pass them on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as out:
        for line in lines:
            out.write(json.dumps(line) + "\n")
            out.flush()
            yield line


def read_lines(path: Path) -> dict[str, bool]:
    """Read which files have a line, and if it is a prediction; a last line that was cut off is deleted.

    Raises:
        InputError: the file holds something else.
    """
    found: dict[str, bool] = {}
    if not path.exists():
        return found
    with path.open("r+b") as file:
        whole = 0
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break
            try:
                described = json.loads(line)
                found[described["file"]] = "error" not in described
            except (ValueError, KeyError, TypeError):
                raise InputError(
                    f"{path} line {number}: expected a prediction as JSON, as an earlier run wrote it; give "
                    "another --out"
                ) from None
            whole += len(line)
        file.truncate(whole)
    return found
