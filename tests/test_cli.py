"""The command line as a person uses it: every verb, and one line with exit code 2 for bad input."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cfnsr import __version__
from cfnsr.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[1]

Run = Callable[..., subprocess.CompletedProcess[str]]


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """One line on stderr that holds the words, exit code 2, no traceback."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("cfnsr: ")]
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in lines[0], lines[0]


def write_table(path: Path, synthetic: Path, *labels: str) -> Path:
    """A CSV of the synthetic takes, labelled in turn."""
    takes = sorted(synthetic.glob("Actor_*/*.mp4"))
    rows = [f"{take},{labels[at % len(labels)]},{take.parent.name}" for at, take in enumerate(takes)]
    path.write_text("\n".join(["path,label,speaker", *rows]) + "\n")
    return path


def test_help_of_every_verb_has_an_example(cfnsr: Run) -> None:
    top = cfnsr("--help").stdout
    verbs = re.findall(r"^│ ([a-z][a-z-]+) ", top, re.MULTILINE)
    assert {"demo", "prepare", "check-split", "crossval", "predict", "serve", "export"} <= set(verbs)
    for verb in verbs:
        shown = cfnsr(verb, "--help")
        assert shown.returncode == 0 and re.search(f"Examples?: cfnsr {verb}", shown.stdout)


def test_version_and_models(cfnsr: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from cfnsr.models import listing

    counted = list(listing.rows())  # once for the three forms: seconds
    monkeypatch.setattr(listing, "rows", lambda: iter(counted))
    assert cfnsr("--version").stdout.strip() == f"cfnsr {__version__}"
    rows = json.loads(cfnsr("models", "--json").stdout)
    assert rows[0] == {
        "name": "video",
        "params": 25882056,
        "paper_params": 25.88,
        "paper_accuracy": 0.6299,
        "fusion": "none",
        "trained_params": 25882056,
    }
    assert "26,301,417" in cfnsr("models").stdout
    names = [row["name"] for row in rows]
    assert names[names.index("cfn_sr_features") + 1 :][:4] == ["lda_video", "lda_audio", "lda", "lda_late"]
    page = (REPOSITORY / "docs" / "models.md").read_text()
    assert cfnsr("models", "--markdown").stdout.strip() in page, "the page is generated"


def test_import_is_light() -> None:
    """`import cfnsr` and `cfnsr --help` load neither torch nor a codec."""
    code = (
        "import sys, cfnsr, cfnsr.cli; "
        "heavy = {'torch', 'av', 'cv2', 'matplotlib', 'pandas', 'sklearn', 'scipy'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_a_process_of_its_own(shell: Run, cfnsr: Run, tmp_path: Path) -> None:
    """Exit code and one line on stderr; with --debug the error itself."""
    refused(shell("report", tmp_path), str(tmp_path))
    with pytest.raises(InputError, match="has no finished run"):
        cfnsr("report", tmp_path, "--debug")


def test_report_and_results(cfnsr: Run, runs: Path, quick: None) -> None:
    done = cfnsr("report", runs, "--compare", "video,audio", "--compare", "cfn_sr,audio", "--margin", 3)
    assert done.returncode == 0, done.stderr
    results = json.loads((runs / "results.json").read_text())
    assert [row["model"] for row in results["rows"]] == ["video", "audio", "cfn_sr"]
    row = results["rows"][2]
    assert row["params"] < 26_301_417 and row["paper"] == {"accuracy": 0.7576, "params": 26.30}
    assert "not comparable" in (runs / "report.html").read_text()
    assert (runs / "tables.md").exists()
    assert "no interval (fewer than 8 actors" in done.stdout
    pairs = [(each["a"], each["b"]) for each in results["comparisons"]]
    assert pairs == [("video", "audio"), ("cfn_sr", "audio")]
    assert "\nvideo less audio, nested protocol: not compared: " in done.stdout  # of a single fold
    refused(cfnsr("report", runs, "--compare", "video"), "--compare video: expected two models")
    refused(cfnsr("report", runs, "--margin", 0), "a margin of 0 points")


def test_predict_with_landmarks(cfnsr: Run, checkpoint: Path, synthetic: Path) -> None:
    file = next(synthetic.glob("Actor_01/*.mp4"))
    done = cfnsr("predict", checkpoint, file, "--openface", synthetic / "landmarks", "--json")
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)
    assert set(result) == {"file", "emotion", "probabilities", "timeline"}
    assert result["file"] == str(file)
    assert result["emotion"] == max(result["probabilities"], key=result["probabilities"].get)
    assert sum(result["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    (window,) = result["timeline"]
    assert set(window) == {"start", "end", "probabilities", "face", "speech", "uses"}
    assert window["uses"] == ["video", "audio"] and window["face"] is window["speech"] is True
    assert 2.5 < window["end"] < 4


@pytest.mark.long
def test_predict_real_clips(cfnsr: Run, checkpoint: Path, shared: Path, yunet: Path) -> None:
    files = sorted((shared / "clips").rglob("*.mp4")) + sorted((shared / "clips").rglob("*.flv"))
    assert len(files) == 6
    done = cfnsr("predict", checkpoint, *files)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(".mp4: ") == 3 and done.stdout.count(".flv: ") == 3


@pytest.mark.long
def test_prepare_real_clips_finds_a_face_wherever_it_looks(
    cfnsr: Run, shared: Path, yunet: Path, tmp_path: Path
) -> None:
    from cfnsr.data.store import Store

    for corpus in ("ravdess", "cremad"):
        done = cfnsr("prepare", shared / "clips" / corpus, tmp_path / corpus)
        assert done.returncode == 0, done.stderr
        store = Store(tmp_path / corpus)
        headers = store.headers()
        assert len(headers) == 3
        for header in headers:  # two to three seconds, four searches in each
            found = store.load(header.name, ["face"])["face"]
            assert header.face == {"source": "detector"} and 8 <= found.sum() <= 16 and found[[0, -1]].all()


def test_table_of_takes_with_labels_of_its_own(
    cfnsr: Run, synthetic: Path, tmp_path: Path, quick: None
) -> None:
    write_table(tmp_path / "takes.csv", synthetic, "awake", "bored")
    out, runs = tmp_path / "out", tmp_path / "runs"
    done = cfnsr("prepare", tmp_path / "takes.csv", out, "--modalities", "audio", "--workers", 1)
    assert done.returncode == 0, done.stderr
    done = cfnsr("crossval", "audio", "--data", out, "--out", runs, "--preset", "small", "--epochs", 1)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((runs / "results.json").read_text())["rows"]
    assert row["folds"][0]["test_actors"] == ["Actor_01"]


@pytest.mark.long
def test_protocols_side_by_side(cfnsr: Run, prepared: Path, tmp_path: Path) -> None:
    """Two protocols, two processes, one report that labels what flatters."""
    common = ("--data", prepared, "--preset", "small", "--epochs", 1, "--out", tmp_path)
    done = cfnsr("crossval", "audio", *common, "--protocol", "nested,shared_actors", "--workers", 2)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    caveats = {row["protocol"]: row["caveat"] for row in rows}
    assert caveats["nested"] == "" and "actors shared" in caveats["shared_actors"]
    again = cfnsr("crossval", "audio", *common, "--protocol", "nested", "--resume")
    assert again.returncode == 0, again.stderr


@pytest.mark.long
def test_a_plugin_model_from_crossval_to_prediction(
    cfnsr: Run, shell: Run, synthetic: Path, tmp_path: Path
) -> None:
    plugin = tmp_path / "twice.py"
    plugin.write_text(
        "from cfnsr.models.zoo import entry\nfrom cfnsr.models.exchanges.mmtm import MMTM\n"
        "@entry('twice', fusion='model')\ndef twice(settings):\n    return settings.fuse(MMTM, MMTM)\n"
    )
    prepared, runs = tmp_path / "prepared", tmp_path / "runs"
    done = cfnsr("prepare", synthetic, prepared, "--size", 64, "--frames", 8)
    assert done.returncode == 0, done.stderr
    tiny = ("--data", prepared, "--out", runs, "--preset", "small", "--epochs", 1, "--folds", "1,2")
    done = shell("--plugin", plugin, "crossval", "twice", *tiny, "--workers", 2)
    assert done.returncode == 0, done.stderr
    assert "twice" in (runs / "tables.md").read_text()
    checkpoint, file = runs / "nested" / "twice" / "seed_0" / "fold_1", next(synthetic.glob("Actor_01/*.mp4"))
    landmarks = ("--openface", synthetic / "landmarks")
    assert shell("--plugin", plugin, "predict", checkpoint, file, *landmarks).returncode == 0
    refused(cfnsr("predict", checkpoint, file, *landmarks), "'twice' is unknown", "cfnsr --plugin FILE.py")


def test_check_split_by_its_exit_code(cfnsr: Run, synthetic: Path, tmp_path: Path) -> None:
    files = sorted(synthetic.glob("Actor_*/*.mp4"))
    table = tmp_path / "split.csv"

    def write(part_of: Callable[[Path], str]) -> None:
        lines = [f"{path},{part_of(path)}" for path in files]
        table.write_text("\n".join(["path,split", *lines]) + "\n")

    parts = {"Actor_01": "test", "Actor_02": "val", "Actor_03": "train"}
    write(lambda path: parts[path.parent.name])
    clean = cfnsr("check-split", table)
    assert clean.returncode == 0 and "no leak" in clean.stdout, clean.stdout + clean.stderr
    write(lambda path: "test" if path == files[0] else "train")
    leaking = cfnsr("check-split", table, "--json")
    assert leaking.returncode == 1
    found = json.loads(leaking.stdout)
    assert not found["clean"] and "shared actors" in {leak["kind"] for leak in found["leaks"]}
    refused(cfnsr("check-split", tmp_path / "none.csv"), "none.csv")
    table.write_text(table.read_text().replace("path,split", "file,part"))
    refused(cfnsr("check-split", table), "no column path among file, part", "--column path=")
    refused(cfnsr("check-split", table, "--column", "file"), "expected name=their_name")
    assert cfnsr("check-split", table, "--column", "path=file", "--column", "split=part").returncode == 1


# --- bad input: one line, exit code 2, nothing lost ---


def test_missing_and_empty_folders(cfnsr: Run, synthetic: Path, tmp_path: Path) -> None:
    refused(cfnsr("prepare", tmp_path / "nowhere", tmp_path / "out"), "nowhere")
    (tmp_path / "empty").mkdir()
    refused(cfnsr("prepare", tmp_path / "empty", tmp_path / "out"), "empty", "expected")
    assert not (tmp_path / "out").exists()
    refused(cfnsr("crossval", "audio", "--data", tmp_path / "empty", "--out", tmp_path / "r"), "corpus.json")
    file = next(synthetic.glob("Actor_01/*.mp4"))
    refused(cfnsr("predict", tmp_path / "nowhere", file), "config.json", "is missing")
    refused(cfnsr("predict", tmp_path / "nowhere", tmp_path / "x.mp4"), "x.mp4 does not exist")


def test_bad_recordings_in_a_corpus(cfnsr: Run, synthetic: Path, tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    shutil.copytree(synthetic, folder)
    good = sorted(folder.glob("Actor_01/*.mp4"))
    good[0].write_text("no video")
    good[1].write_bytes(good[1].read_bytes()[:9000])
    command = ("prepare", folder, tmp_path / "out", "--modalities", "audio", "--workers", 1)
    done = cfnsr(*command)
    assert done.returncode == 2
    assert "10 clips made, 0 kept, 2 failed" in done.stdout
    assert sum(line.startswith("failed, ") for line in done.stderr.splitlines()) == 2
    assert "0 clips made, 10 kept, 2 failed" in cfnsr(*command).stdout


def test_bad_files_do_not_hide_the_good_ones(
    cfnsr: Run, checkpoint: Path, yunet: Path, synthetic: Path, tmp_path: Path
) -> None:
    from cfnsr.media.encode import write_video

    good = sorted(synthetic.glob("Actor_01/*.mp4"))[:2]
    text, zero, truncated, mute = bad = [tmp_path / f"{number}.mp4" for number in range(4)]
    text.write_text("this is text\n")
    zero.touch()
    truncated.write_bytes(good[0].read_bytes()[:50_000])
    write_video(mute, np.random.default_rng(0).integers(0, 255, (60, 96, 96, 3), dtype=np.uint8), 30)
    done = cfnsr("predict", checkpoint, good[0], *bad, good[1], "--json")
    assert done.returncode == 2
    assert [result["file"] for result in json.loads(done.stdout)] == [str(path) for path in good]
    said = done.stderr.splitlines()
    for line, path in zip(said, bad, strict=True):
        assert line.startswith(f"cfnsr: {path}")
    assert "no sound" in said[-1]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("crossval audio --folds 9", ["fold 9 does not exist: expected 1 to 3"]),
        ("crossval audio --seeds a", ["seeds 'a'"]),
        ("crossval audio --video openface", ["audio has no video"]),
        ("crossval audio --audio speech", ["without speech", "audio+speech needs it"]),
        ("crossval audio --epochs 0", ["epochs is 0"]),
        ("crossval", ["no model is named", "--table 1 or 2"]),
        ("crossval --table 3", ["table 3", "1 or 2"]),
        ("crossval --table 1 --protocol nested", ["without log_mel", "eranns"]),
        ("crossval audio --modality-dropout 2", ["modality_dropout is 2"]),
        ("crossval audio --workers 0", ["--workers is 0"]),
        ("crossval audio --speaker-normalisation --protocol paper", ["'paper' has no speaker norm"]),
        ("train audio --speaker-normalisation --protocol mine", ["'mine' is unknown"]),
        ("--plugin no.py train audio", ["no.py", "expected a Python file"]),
        ("crossval audio --engine dask", ["--engine dask: expected local or ray"]),
        ("crossval audio --engine ray --workers 2", ["--workers 2 does not go with --engine ray"]),
        ("crossval audio --gpus-per-run 0.5", ["--gpus-per-run 0.5 does not go with --engine local"]),
        ("crossval audio --address 10.0.0.1:6379", ["--address 10.0.0.1:6379 does not go with --engine loc"]),
    ],
)
def test_choices_that_cannot_be(
    cfnsr: Run, prepared: Path, tmp_path: Path, command: str, words: list[str]
) -> None:
    given = ("--data", prepared, "--out", tmp_path / "runs", "--preset", "small")
    refused(cfnsr(*command.split(), *given), *words)
    assert not (tmp_path / "runs").exists()


def test_the_engine_of_an_extra_that_is_not_installed(
    cfnsr: Run, synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cfnsr.errors.is_installed", lambda package: package != "ray")
    done = cfnsr("prepare", synthetic, tmp_path / "out", "--engine", "ray")
    refused(done, "ray is not installed: run pip install 'cfnsr[ray]'")


def test_labels_outside_the_set_of_a_table(cfnsr: Run, synthetic: Path, tmp_path: Path) -> None:
    table = write_table(tmp_path / "takes.csv", synthetic, "happy", "hapy", "sad", "calm")
    command = ("prepare", table, tmp_path / "out", "--modalities", "audio", "--workers", 1)
    refused(cfnsr(*command), "'hapy' is outside the set", "--labels")
    refused(cfnsr(*command, "--labels", "happy,sad,calm"), "'hapy' is outside")
    assert not (tmp_path / "out").exists()
    done = cfnsr(*command, "--labels", "sad,happy,hapy,calm")
    assert done.returncode == 0, done.stderr
    described = json.loads((tmp_path / "out" / "corpus.json").read_text())
    assert described["labels"]["emotions"] == ["sad", "happy", "hapy", "calm"]


def test_modalities_that_are_not_there_or_not_known(
    cfnsr: Run, prepared: Path, synthetic: Path, shared: Path, tmp_path: Path
) -> None:
    sound = shared / "ravdess" / "audio" / "Actor_01"
    refused(cfnsr("prepare", sound, tmp_path / "out", "--modalities", "video"), "no take with video")
    refused(cfnsr("prepare", sound, tmp_path / "out", "--modalities", "smell"), "smell", "video, audio")
    table = write_table(tmp_path / "takes.csv", synthetic, "bored", "awake")
    before = sorted(path.name for path in (prepared / "clips").iterdir())
    refused(cfnsr("prepare", synthetic, prepared, "--modalities", "audio"), "holds clips made with", "folder")
    refused(cfnsr("prepare", table, prepared, "--size", 64, "--frames", 8), "corpus synthetic (now takes)")
    assert sorted(path.name for path in (prepared / "clips").iterdir()) == before


def test_train_one_fold(cfnsr: Run, prepared: Path, tmp_path: Path) -> None:
    out = tmp_path / "fold"
    common = ("--data", prepared, "--preset", "small", "--epochs", 1, "--out", out)
    done = cfnsr("train", "cfn_sr", *common, "--fold", 2)
    assert done.returncode == 0 and f"checkpoint: {out}" in done.stdout, done.stderr
    for folder in (out, out / "pretrained" / "video", out / "pretrained" / "audio"):
        assert (folder / "model.safetensors").exists()
    refused(cfnsr("train", "cfn_sr", *common, "--fold", 2), "has a run already: add --resume")
    assert cfnsr("train", "cfn_sr", *common, "--fold", 2, "--resume").returncode == 0
    refused(cfnsr("train", "cfn_sr", *common, "--fold", 1, "--resume"), "of other settings", "fold")


def test_a_recipe_from_a_file(cfnsr: Run, prepared: Path, tmp_path: Path) -> None:
    """What is printed can be fed back, needs neither a model nor data, and is what the run says it had."""
    file = tmp_path / "recipe.toml"
    shown = cfnsr("train", "--show-config", "--preset", "small", "--set", "accumulate=2", "--epochs", 1)
    assert shown.returncode == 0 and 'preset = "small"\n' in shown.stdout, shown.stderr
    file.write_text(shown.stdout)
    assert cfnsr("train", "--show-config", "--config", file).stdout == shown.stdout
    out = tmp_path / "fold"
    common = ("train", "audio", "--data", prepared, "--out", out, "--config", file)
    done = cfnsr(*common, "--set", "select_by=uar", "--batch-size", 4)
    assert done.returncode == 0, done.stderr
    settings = json.loads((out / "run.json").read_text())["settings"]
    assert settings == tomllib.loads(shown.stdout) | {
        "fused_learning_rate": None,
        "openface_epochs": None,
        "clip_gradient": None,
        "video_weights": None,
        "select_by": "uar",
        "batch_size": 4,
    }
    file.write_text("epoch = 3\n")
    refused(cfnsr(*common), "recipe.toml: epoch is unknown: expected some of preset, frames")
    refused(cfnsr("crossval", *common[1:-1], tmp_path / "no.toml"), "no.toml cannot be read")
    refused(cfnsr("train", "audio"), "train needs a model, --data and --out")


def test_disk_full_while_preparing(cfnsr: Run, synthetic: Path, tmp_path: Path) -> None:
    """A real full disk: a file system of 1 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        command = ("prepare", synthetic, disk / "out", "--modalities", "audio", "--workers")
        done = cfnsr(*command, 2)
        refused(done, "full")
        clips = list((disk / "out" / "clips").iterdir())
        assert clips and not [path for path in clips if path.name.startswith(".")]
        before = {path.name: path.read_bytes() for path in clips}
        subprocess.run(["mount", "-o", "remount,size=40m", disk], check=True)
        done = cfnsr(*command, 1)
        assert done.returncode == 0 and f"{12 - len(before)} clips made, {len(before)} kept" in done.stdout
    finally:
        subprocess.run(["umount", disk], check=True)
