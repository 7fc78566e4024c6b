"""Files of any name, and text of any content."""

import csv
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cfnsr.data.store import Header, Store
from cfnsr.emotions import LabelSet
from cfnsr.errors import InputError
from cfnsr.files import escaped, is_pointer, read_json, write_json, write_text
from cfnsr.inference.plot import plot
from cfnsr.inference.timeline import Prediction, Window
from cfnsr.inference.writers import write
from cfnsr.media.encode import write_video
from cfnsr.media.errors import MediaError
from cfnsr.media.scan import scan_packets

Run = Callable[..., subprocess.CompletedProcess[str]]


def film(path: Path) -> Path:
    pictures = iter([np.zeros((48, 64, 3), np.uint8)] * 5)
    return write_video(path, pictures, 25, np.zeros(8820, np.float32), 44_100) or path


def test_what_cannot_be_written_is_escaped() -> None:
    names = os.fsdecode(b"M\xfcller"), os.fsdecode("Müller".encode()), "\ud800"
    assert [escaped(name) for name in names] == [r"M\xfcller", "Müller", r"\ud800"]


def test_text_of_any_name_is_written(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "é " + os.fsdecode(b"\xe9") + "\n")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "é \\xe9\n"
    write_json(tmp_path / "a.json", {"file": os.fsdecode(b"\xe9")})


@pytest.mark.parametrize("suffix", [".csv", ".json", ".txt", ".srt", ".vtt", ".png", ".svg", ".pdf", ".mp4"])
def test_outputs_of_any_name(latin: Path, suffix: str) -> None:
    path = latin / os.fsdecode(b"r\xe9sum\xe9" + suffix.encode())
    window = Window(0.0, 1.0, {"calm": 0.6, "sad": 0.4}, None, True, ("audio",))
    told = Prediction(str(path), "calm", {"calm": 0.6, "sad": 0.4}, (window,), None, faces=np.zeros((0, 4)))
    if suffix == ".mp4":
        film(path)
        assert scan_packets(path).frame_count == 5
    else:
        (plot if suffix in (".png", ".svg", ".pdf") else write)(told, path)
    assert path.stat().st_size > 0 and list(latin.iterdir()) == [path]


def test_names_as_long_as_a_file_system_allows(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 120 + ".mp4")
    film(path)
    write_text(path.with_suffix(".txt"), "all")
    assert sorted(tmp_path.iterdir()) == sorted([path, path.with_suffix(".txt")])


def test_clips_of_any_name_lie_apart(tmp_path: Path) -> None:
    store = Store.create(tmp_path, "made-up", LabelSet("two", ("calm", "angry")), {})
    names = [
        "Ж" * 120,
        "Ж" * 121,
        "Ж" * 119 + "x",
        os.fsdecode(b"\xe9"),
        "é",
        r"\xe9",
        "..",
        "../x",
        "/x",
        "a/x",
    ]
    for place, name in enumerate(names):
        store.write(Header(name, "calm", 1, None, {}, {}, {}), {"place": np.array([place])})
    assert [int(store.load(name)["place"][0]) for name in names] == list(range(len(names)))
    assert {header.name for header in store.headers()} == set(names)
    assert {path.parent for path in tmp_path.rglob("*.safetensors")} == {tmp_path / "clips"}


def test_a_pointer_of_git_lfs_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 72862\n")
    assert is_pointer(path) and not is_pointer(tmp_path) and not is_pointer(tmp_path / "none")
    with pytest.raises(MediaError, match="git lfs pull") as caught:
        scan_packets(path)
    assert caught.value.reason == "not media"


def test_a_corpus_of_any_names_is_prepared(shell: Run, latin: Path, tmp_path: Path) -> None:
    """Outputs too: the failures name the file as it can be shown."""
    silent = latin / "1001_DFA_ANG_XX.mp4"
    film(silent)
    film(latin / os.fsdecode(b"M\xfcller.mp4"))
    out = tmp_path / os.fsdecode(b"\xfcber")
    done = shell("prepare", latin, out, "--modalities", "audio", "--workers", 1)
    assert done.returncode == 2, done.stderr
    assert r"caf\xe9" in done.stderr and r"M\xfcller.mp4" in done.stderr and r"\xfcber" in done.stdout
    rows = list(csv.DictReader(io.StringIO((out / "failures.csv").read_text(encoding="utf-8"))))
    assert [row["file"] for row in rows] == [escaped(str(silent))]
    assert r"M\xfcller.mp4" in (out / "left_out.txt").read_text(encoding="utf-8")


def test_names_in_messages_are_shown_on_one_line(cfnsr: Run, tmp_path: Path) -> None:
    """A terminal obeys nothing of them; failures of a corpus and refusals alike."""
    folder = tmp_path / os.fsdecode(b"a\nb\x1b[31mc\xe2\x80\xaed\xe9")
    folder.mkdir()
    (folder / "1001_DFA_ANG_XX.wav").write_bytes(b"no sound")
    for arguments in (
        ("prepare", folder, tmp_path / "out", "--modalities", "audio", "--workers", 1),
        ("report", folder),
    ):
        done = cfnsr(*arguments)
        assert done.returncode == 2
        assert any(r"a\nb\x1b[31mc\u202ed\xe9" in line and ": " in line for line in done.stderr.splitlines())
        assert "\x1b" not in done.stderr and "\u202e" not in done.stderr


@pytest.mark.parametrize(("argument", "both"), [("train --show-config", False), ("--help", True)])
def test_a_reader_who_leaves_ends_it_silently(argument: str, both: bool) -> None:
    """With the exit code that a shell tells of a program that SIGPIPE ended."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-c", "from cfnsr.cli import main; main()", *argument.split()]
    try:
        done = subprocess.run(command, check=False, stdout=writer, stderr=writer if both else subprocess.PIPE)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr or b"") == (141, b"")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_text("[" * 10**5), "cannot be read"),
        (lambda path: path.write_text("9" * 10**4), "cannot be read"),
        (lambda path: path.write_text("[]"), "holds no JSON object"),
        (lambda path: os.truncate(path.touch() or path, 2**40), "has 1,099,511,627,776 bytes"),
        (os.mkfifo, "is no file"),
        (lambda path: path.symlink_to("/dev/zero"), "is no file"),
        (Path.mkdir, "cannot be read"),
    ],
)
def test_json_that_is_none_or_has_no_end(tmp_path: Path, write: Any, message: str) -> None:
    write(tmp_path / "a.json")
    with pytest.raises(InputError, match=message):
        read_json(tmp_path / "a.json", "what cfnsr wrote")
