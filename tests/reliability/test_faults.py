"""A disk that is full or read-only on the way, recordings that change, and a clock that is set back."""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cfnsr.corpus.scan import scan
from cfnsr.data import clip as clips
from cfnsr.data.prepare import prepare_corpus
from cfnsr.data.store import Store
from cfnsr.features.preparation import Preparation

Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]
ENOUGH = 64 * 1024  # KiB
AUDIO = Preparation(modalities=("audio",))


@dataclass
class Disk:
    """A small file system."""

    folder: Path

    def resize(self, kib: int) -> None:
        self._remount(f"size={kib}k")

    def leave(self, kib: int) -> None:
        """Leave so much room beside what is there."""
        found = os.statvfs(self.folder)
        self.resize((found.f_blocks - found.f_bfree) * found.f_frsize // 1024 + kib)

    def protect(self) -> None:
        """Make it read-only for every file that is opened from now on, though one may be open for writing."""
        subprocess.run(["mount", "--bind", self.folder, self.folder], check=True)
        self._remount("ro,bind")

    def release(self) -> None:
        subprocess.run(["umount", "--lazy", self.folder], check=True)

    def _remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", self.folder], check=True)

    def files(self) -> dict[str, bytes]:
        found = (path for path in self.folder.rglob("*") if path.is_file())
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in found}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={ENOUGH}k", "tmpfs", folder]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root mounts a small disk")
    yield Disk(folder)
    subprocess.run(["umount", "--lazy", folder], check=True)


def one_line(done: Done) -> str:
    """The only message of a command that was refused."""
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("cfnsr: ")]
    assert len(lines) == 1 and "Traceback" not in done.stderr, done.stderr
    return lines[0]


TINY = "--preset small --epochs 1 --folds 1"
VERBS = {  # verb -> arguments, the output as {}; KiB of room at which it is stopped early and on the way
    "prepare": ("{synthetic} {} --modalities audio --workers 1", (4, 200)),
    "crossval": ("audio --data {prepared} --out {} --resume " + TINY, (4, 100)),
    "report": ("{}", (4, 60)),
    "predict": ("{checkpoint} {film} --write {}/timeline.csv", (0,)),
    "export": ("{checkpoint} {}/model.onnx", (0, 400)),
    "synthesize": ("{} --actors 1 --workers 1", (4, 400)),
}


@pytest.mark.long
@pytest.mark.parametrize("verb", VERBS)
def test_a_full_disk(verb: str, disk: Disk, cfnsr: Run, yunet: Path, request: pytest.FixtureRequest) -> None:
    """One line, no half file, and the same command ends the work once there is room."""
    arguments, sizes = VERBS[verb]
    places = {name: request.getfixturevalue(name) for name in ("synthetic", "prepared", "runs", "checkpoint")}
    places["film"] = next(places["synthetic"].rglob("*.mp4"))

    def command(out: Path) -> list[str]:
        return [verb, *(each.format(out, **places) for each in arguments.split())]

    out = disk.folder / "out"
    (disk.folder / "filler").write_bytes(bytes(64 * 1024))  # a disk of size 0 would have no limit
    if verb == "report":  # which writes beside the runs
        shutil.copytree(places["runs"], out, ignore=shutil.ignore_patterns("report.html"))
    for size in sizes:
        disk.leave(size)
        said = one_line(cfnsr(*command(out)))
        assert "disk" in said and "full" in said, said
        assert not [name for name in disk.files() if name.endswith(".tmp")]
        disk.resize(ENOUGH)
    done = cfnsr(*command(out))
    assert done.returncode == 0, done.stderr
    assert [name for name in disk.files() if name.startswith("out/")]


def test_a_folder_that_becomes_read_only_on_the_way(disk: Disk, synthetic: Path, cfnsr: Run) -> None:
    out = disk.folder / "out"
    command = ["prepare", synthetic, out, "--modalities", "audio", "--workers", 1]

    def protect() -> None:
        while not [*out.glob("clips/*.safetensors")]:
            time.sleep(0.001)
        disk.protect()

    watch = threading.Thread(target=protect)
    watch.start()
    done = cfnsr(*command)
    watch.join()
    assert done.returncode == 2 and "Read-only file system" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    disk.release()
    made = len([*out.glob("clips/*.safetensors")])
    done = cfnsr(*command)
    assert done.returncode == 0 and f"{12 - made} clips made, {made} kept, 0 failed" in done.stdout
    assert not [name for name in disk.files() if name.endswith(".tmp")]


def test_a_recording_that_changes_while_it_is_read(
    synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clip would be of the old sound and under the new file's checksum, so nobody would make it anew."""
    corpus = tmp_path / "corpus"
    for source in sorted(synthetic.rglob("*.mp4"))[:2]:
        target = corpus / source.relative_to(synthetic)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    scanned = scan(corpus)
    first = scanned.takes[0].video
    assert first is not None
    real = clips.Windows

    def change(take: Any, *arguments: Any, **options: Any) -> Any:
        windows = real(take, *arguments, **options)
        if take.name == first.stem:
            os.utime(first, ns=(1, 1))
        return windows

    monkeypatch.setattr(clips, "Windows", change)
    store = Store.create(tmp_path / "store", scanned.name, scanned.labels, AUDIO.as_json())
    outcome = prepare_corpus(scanned.takes, store, AUDIO, workers=0)
    assert [failure.name for failure in outcome.failures] == [first.stem]
    assert "changed while it was read: run the same command again" in outcome.failures[0].message
    monkeypatch.setattr(clips, "Windows", real)
    outcome = prepare_corpus(scanned.takes, store, AUDIO, workers=0)
    assert outcome.made == [first.stem] and len(outcome.kept) == 1


def test_a_clock_that_is_set_back(synthetic: Path, tmp_path: Path, cfnsr: Run) -> None:
    """A recording that is replaced by another of the same size counts as changed, whatever its time."""
    corpus = tmp_path / "corpus"
    source = sorted(synthetic.rglob("*.mp4"))[0]
    target = corpus / source.relative_to(synthetic)
    target.parent.mkdir(parents=True)
    target.write_bytes(source.read_bytes())
    command = ["prepare", corpus, tmp_path / "out", "--modalities", "audio", "--workers", 1]
    assert "1 clips made" in cfnsr(*command).stdout
    clip = next((tmp_path / "out" / "clips").glob("*.safetensors"))
    for path in (target, clip):  # as if all had been made in the future
        os.utime(path, (time.time() + 10**6,) * 2)
    assert "0 clips made, 1 kept" in cfnsr(*command).stdout
    content = bytearray(source.read_bytes())
    content[len(content) // 2] ^= 1
    target.write_bytes(content)  # now, so before the time that was noted
    assert "1 clips made, 0 kept" in cfnsr(*command).stdout


def test_seconds_are_measured_by_a_clock_that_is_never_set() -> None:
    """`time.time` would count a training's seconds wrong, or a limit never end."""
    root = Path(sys.modules["cfnsr"].__file__ or "").parent
    found = [path.name for path in root.rglob("*.py") if "time.time()" in path.read_text(encoding="utf-8")]
    assert found == ["uploads.py"], "where the age of a file is asked for"
