"""Lines of predictions: ours are gone on with, what is another's stays, and whose fault a failure is."""

import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest

from cfnsr.errors import InputError
from cfnsr.inference.lines import LinePredictor, open_lines, read_lines
from cfnsr.media.errors import MediaError

LINE = b'{"file": "a.wav", "emotion": "happy"}\n'
BAD = b'{"file": "b.wav", "error": "b.wav does not exist"}\n'


def read(path: Path) -> dict[str, bool]:
    with open_lines(path) as file:
        return read_lines(file)


@pytest.mark.parametrize("left", [*range(len(BAD))])
def test_a_line_that_was_cut_off_is_deleted(tmp_path: Path, left: int) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(LINE + BAD[:left])
    assert read(path) == {"a.wav": True} and path.read_bytes() == LINE
    path.write_bytes(LINE + BAD)
    assert read(path) == {"a.wav": True, "b.wav": False} and path.read_bytes() == LINE + BAD


@pytest.mark.parametrize(
    "content",
    [
        b"notes",
        b"notes\n",
        b"RIFF\0\0\0\0WAVEfmt ",
        b'{"clip": 1}',
        b'{"clip": 1}\n',
        b'{"emotion": "happy", "file": "a.wav"}',
        b"[1]\n",
        b"[" * 100_000 + b"\n",
        LINE + b"notes",
        LINE + b"\n" + LINE,
    ],
)
def test_a_file_of_another_kind_stays_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"lines\.jsonl line \d: expected a prediction .* another --out"):
        read(path)
    assert path.read_bytes() == content


def test_a_file_of_lines_is_written_by_one(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    hold = (
        "import sys; from pathlib import Path; from cfnsr.inference.lines import open_lines\n"
        "with open_lines(Path(sys.argv[1])): print('open', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", hold, path]
    with subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == "open\n"
        with pytest.raises(InputError, match=r"lines\.jsonl is being written by another cfnsr"):
            read(path)
        process.communicate()
    assert read(path) == {}


@pytest.fixture
def line_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], Any]:
    """Gives the line of a file whose prediction raises something."""

    def line(error: Exception) -> Any:
        def fail(*arguments: object, **settings: object) -> None:
            raise error

        monkeypatch.setattr("cfnsr.inference.lines.predict", fail)
        return LinePredictor(lambda: None, {}, lambda file: None)(Path("a.wav"))  # type: ignore[arg-type,return-value]

    return line


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MediaError("broken", "a.wav is broken"), "a.wav is broken"),
        (
            PermissionError(errno.EACCES, "Permission denied", "a.wav"),
            "[Errno 13] Permission denied: 'a.wav'",
        ),
        (cv2.error("it\nis odd"), "a.wav: error: it is odd"),
        (ValueError("odd"), "a.wav: ValueError: odd"),
        (MemoryError(), "a.wav takes more memory than a worker may have"),
    ],
)
def test_what_a_recording_causes_is_its_line(
    line_of: Callable[[Exception], Any], error: Exception, reason: str
) -> None:
    assert line_of(error) == {"file": "a.wav", "error": reason}


@pytest.mark.parametrize(
    "error",
    [
        InputError("the detector's weights are missing"),
        *(OSError(getattr(errno, name), "any") for name in ("ENOSPC", "EDQUOT", "EROFS", "EMFILE")),
    ],
)
def test_what_the_machine_causes_ends_the_run(line_of: Callable[[Exception], Any], error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        line_of(error)
    assert raised.value is error
