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


def test_help_of_every_verb_has_an_example(cfnsr: Run) -> None:
    verbs = ["demo", "synthesize", "download", "prepare", "models", "train", "crossval", "report", "predict"]
    verbs += ["check-split"]
    top = cfnsr("--help").stdout
    for verb in verbs:
        assert f" {verb} " in top
        shown = cfnsr(verb, "--help")
        assert shown.returncode == 0 and re.search(f"Examples?: cfnsr {verb}", shown.stdout)


def test_version_and_models(cfnsr: Run) -> None:
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


def test_the_docs_have_the_list_of_models(cfnsr: Run) -> None:
    """Generated: `cfnsr models --markdown`."""
    assert cfnsr("models", "--markdown").stdout.strip() in (REPOSITORY / "docs" / "models.md").read_text()


def test_import_is_light() -> None:
    """`import cfnsr` and `cfnsr --help` load neither torch nor a codec."""
    code = (
        "import sys, cfnsr, cfnsr.cli; "
        "heavy = {'torch', 'av', 'cv2', 'matplotlib', 'pandas', 'sklearn', 'scipy'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_report_and_results(cfnsr: Run, runs: Path) -> None:
    done = cfnsr("report", runs)
    assert done.returncode == 0, done.stderr
    results = json.loads((runs / "results.json").read_text())
    assert [row["model"] for row in results["rows"]] == ["video", "audio", "cfn_sr"]
    row = results["rows"][2]
    assert row["params"] < 26_301_417 and row["paper"] == {"accuracy": 0.7576, "params": 26.30}
    assert "not comparable" in (runs / "report.html").read_text()
    assert (runs / "tables.md").exists()
    assert "no interval (fewer than 8 actors" in done.stdout


def test_report_compares_the_rows_that_are_asked_for(cfnsr: Run, runs: Path) -> None:
    done = cfnsr("report", runs, "--compare", "video,audio", "--compare", "cfn_sr,audio", "--margin", 3)
    assert done.returncode == 0, done.stderr
    found = json.loads((runs / "results.json").read_text())["comparisons"]
    assert [(each["a"], each["b"]) for each in found] == [("video", "audio"), ("cfn_sr", "audio")]
    assert "\nvideo less audio, nested protocol: not compared: " in done.stdout  # of a single fold
    for wrong, says in (("video", "--compare video: expected two models"), ("video,gate", "no run of gate")):
        refused(cfnsr("report", runs, "--compare", wrong), says)
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
    assert (
        window["uses"] == ["video", "audio"]
        and window["face"] is True
        and window["speech"] is True
        and 2.5 < window["end"] < 4
    )


def test_predict_real_clips(cfnsr: Run, checkpoint: Path, shared: Path, yunet: Path) -> None:
    files = sorted((shared / "clips").rglob("*.mp4")) + sorted((shared / "clips").rglob("*.flv"))
    assert len(files) == 6
    done = cfnsr("predict", checkpoint, *files, CFNSR_YUNET=str(yunet))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(".mp4: ") == 3 and done.stdout.count(".flv: ") == 3


def test_prepare_real_clips_finds_a_face_in_every_frame(
    cfnsr: Run, shared: Path, yunet: Path, tmp_path: Path
) -> None:
    from cfnsr.data.store import Store

    for corpus in ("ravdess", "cremad"):
        done = cfnsr("prepare", shared / "clips" / corpus, tmp_path / corpus, CFNSR_YUNET=str(yunet))
        assert done.returncode == 0, done.stderr
        headers = Store(tmp_path / corpus).headers()
        assert len(headers) == 3
        assert all(header.face == {"source": "detector", "found": 30, "frames": 30} for header in headers)


def test_table_of_takes_with_labels_of_its_own(cfnsr: Run, synthetic: Path, tmp_path: Path) -> None:
    table = tmp_path / "takes.csv"
    rows = ["path,label,speaker,openface"]
    for index, path in enumerate(sorted(synthetic.glob("Actor_*/*.mp4"))):
        landmarks = synthetic / "landmarks" / f"{path.stem}.csv"
        rows.append(f"{path},{('awake', 'bored')[index % 2]},{path.parent.name},{landmarks}")
    table.write_text("\n".join(rows) + "\n")
    done = cfnsr("prepare", table, tmp_path / "out", "--size", 64, "--frames", 8)
    assert done.returncode == 0, done.stderr
    done = cfnsr(
        *("crossval", "audio", "--data", tmp_path / "out", "--out", tmp_path / "runs", "--preset", "small"),
        *("--epochs", 1),
    )
    assert done.returncode == 0, done.stderr
    rows_ = json.loads((tmp_path / "runs" / "results.json").read_text())["rows"]
    assert rows_[0]["folds"][0]["test_actors"] == ["Actor_01"]


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
def test_a_plugin_model_from_crossval_to_prediction(cfnsr: Run, synthetic: Path, tmp_path: Path) -> None:
    plugin = tmp_path / "twice.py"
    plugin.write_text(
        "from cfnsr.models.zoo import entry\nfrom cfnsr.models.exchanges.mmtm import MMTM\n"
        "@entry('twice', fusion='model')\ndef twice(settings):\n    return settings.fuse(MMTM, MMTM)\n"
    )
    prepared, runs = tmp_path / "prepared", tmp_path / "runs"
    done = cfnsr("prepare", synthetic, prepared, "--size", 64, "--frames", 8)
    assert done.returncode == 0, done.stderr
    common = (
        "twice",
        "--data",
        prepared,
        "--out",
        runs,
        "--preset",
        "small",
        "--epochs",
        1,
        "--folds",
        "1,2",
    )
    done = cfnsr("--plugin", plugin, "crossval", *common, "--workers", 2)
    assert done.returncode == 0, done.stderr
    assert "twice" in (runs / "tables.md").read_text()
    checkpoint, file = runs / "nested" / "twice" / "seed_0" / "fold_1", next(synthetic.glob("Actor_01/*.mp4"))
    landmarks = ("--openface", synthetic / "landmarks")
    assert cfnsr("--plugin", plugin, "predict", checkpoint, file, *landmarks).returncode == 0
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


def test_missing_and_empty_folders(cfnsr: Run, tmp_path: Path) -> None:
    refused(cfnsr("prepare", tmp_path / "nowhere", tmp_path / "out"), "nowhere")
    (tmp_path / "empty").mkdir()
    refused(cfnsr("prepare", tmp_path / "empty", tmp_path / "out"), "empty", "expected")
    assert not (tmp_path / "out").exists()
    refused(cfnsr("crossval", "audio", "--data", tmp_path / "empty", "--out", tmp_path / "r"), "corpus.json")
    refused(cfnsr("report", tmp_path / "empty"), "empty")
    refused(cfnsr("predict", tmp_path / "nowhere", "x.mp4"), "config.json", "is missing")


def test_bad_recordings_in_a_corpus(cfnsr: Run, synthetic: Path, tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    shutil.copytree(synthetic, folder)
    good = sorted(folder.glob("Actor_01/*.mp4"))
    good[0].write_text("no video")
    good[1].write_bytes(good[1].read_bytes()[:9000])
    done = cfnsr("prepare", folder, tmp_path / "out", "--size", 64, "--frames", 8)
    assert done.returncode == 2
    assert "10 clips made, 0 kept, 2 failed" in done.stdout
    assert sum(line.startswith("failed, ") for line in done.stderr.splitlines()) == 2
    assert "Traceback" not in done.stderr
    again = cfnsr("prepare", folder, tmp_path / "out", "--size", 64, "--frames", 8)
    assert "0 clips made, 10 kept, 2 failed" in again.stdout


@pytest.fixture(scope="session")
def bad_files(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from cfnsr.media.decode import decode
    from cfnsr.media.encode import write_video

    folder = tmp_path_factory.mktemp("bad")
    good = next(synthetic.glob("Actor_01/*.mp4"))
    files = {
        name: folder / f"{name}.mp4" for name in ("text", "truncated", "mute", "faceless", "short", "zero")
    }
    files["text"].write_text("this is text\n")
    files["zero"].touch()
    files["truncated"].write_bytes(good.read_bytes()[:50_000])
    frames = np.random.default_rng(0).integers(0, 255, (60, 96, 96, 3), dtype=np.uint8)
    tone = np.sin(np.arange(96_000) / 20).astype(np.float32) / 4
    write_video(files["mute"], frames, 30)
    write_video(files["faceless"], frames, 30, tone, 48_000)
    picture = decode(good, frames=1).frames
    assert picture is not None
    write_video(files["short"], picture.repeat(9, axis=0), 30, tone[:14_400], 48_000)  # with a face
    return files


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("text", "text.mp4"),
        ("zero", "zero.mp4"),
        ("truncated", "truncated.mp4"),
        ("mute", "no sound"),
    ],
)
def test_bad_files_to_predict(
    cfnsr: Run, checkpoint: Path, bad_files: dict[str, Path], yunet: Path, name: str, word: str
) -> None:
    refused(cfnsr("predict", checkpoint, bad_files[name], CFNSR_YUNET=str(yunet)), word)


def test_files_in_which_too_little_is_seen_or_heard_have_no_answer(
    cfnsr: Run, checkpoint: Path, bad_files: dict[str, Path], yunet: Path
) -> None:
    """Nobody in one: that is told, and no emotion is made up. A third of a second in the other: refused."""
    done = cfnsr("predict", checkpoint, bad_files["faceless"], CFNSR_YUNET=str(yunet))
    assert done.returncode == 0, done.stderr
    assert "faceless.mp4: no face: no answer" in done.stdout
    files = bad_files["short"], bad_files["faceless"]
    done = cfnsr("predict", checkpoint, *files, "--json", CFNSR_YUNET=str(yunet))
    assert done.returncode == 2 and "short.mp4 has 0.32 s of sound: expected at least 1 s" in done.stderr
    (told,) = json.loads(done.stdout)
    assert told["file"].endswith("faceless.mp4") and told["emotion"] is told["probabilities"] is None
    (window,) = told["timeline"]
    assert (window["face"], window["speech"], window["uses"]) == (False, True, [])


def test_a_bad_file_does_not_hide_the_good_ones(
    cfnsr: Run, checkpoint: Path, bad_files: dict[str, Path], synthetic: Path
) -> None:
    good = sorted(synthetic.glob("Actor_01/*.mp4"))[:2]
    done = cfnsr(
        "predict",
        checkpoint,
        good[0],
        bad_files["text"],
        good[1],
        "--openface",
        synthetic / "landmarks",
        "--json",
    )
    assert done.returncode == 2
    assert [result["file"] for result in json.loads(done.stdout)] == [str(path) for path in good]


def test_checkpoint_of_another_version(cfnsr: Run, checkpoint: Path, tmp_path: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "format": 0, "cfnsr": "0.0.1"}))
    refused(cfnsr("predict", tmp_path, "x.mp4"), "format 0", "0.0.1", "reads format 4")


def test_folds_and_names_that_do_not_exist(cfnsr: Run, prepared: Path, tmp_path: Path) -> None:
    common = ("--data", prepared, "--out", tmp_path / "runs", "--preset", "small")
    refused(cfnsr("crossval", "audio", *common, "--folds", 9), "fold 9 does not exist: expected 1 to 3")
    refused(cfnsr("crossval", "nothing", *common), "'nothing' is unknown", "cfn_sr")
    refused(cfnsr("crossval", "audio", *common, "--protocol", "mine"), "'mine' is unknown")
    refused(cfnsr("crossval", "audio", *common, "--protocol", "paper"), "3 actors", "at least 5")
    refused(cfnsr("crossval", "audio", *common, "--seeds", "a"), "seeds 'a'")
    refused(cfnsr("crossval", "audio", *common, "--video", "openface"), "audio has no video")
    refused(cfnsr("train", "cfn_sr", *common[:4], "--audio", "mp3"), "'mp3' is unknown", "mfcc or speech")
    refused(
        cfnsr("crossval", "audio", *common, "--audio", "speech"), "without speech", "audio+speech needs it"
    )
    normalised = (*common, "--speaker-normalisation")
    refused(cfnsr("crossval", "audio", *normalised, "--protocol", "paper"), "'paper' has no speaker norm")
    refused(cfnsr("train", "audio", *normalised, "--protocol", "mine"), "'mine' is unknown")
    refused(cfnsr("train", "audio", *common[:4], "--preset", "huge"), "'huge' is unknown")
    refused(cfnsr("crossval", "audio", *common, "--epochs", 0), "epochs is 0")
    refused(cfnsr("crossval", *common), "no model is named", "--table 1 or 2")
    refused(cfnsr("crossval", *common, "--table", 3), "table 3", "1 or 2")
    refused(cfnsr("crossval", *common, "--table", 1, "--protocol", "nested"), "without log_mel", "eranns")
    refused(cfnsr("crossval", "audio", *common, "--modality-dropout", 2), "modality_dropout is 2")
    refused(cfnsr("crossval", "audio", *common, "--workers", 0), "--workers is 0")
    refused(cfnsr("--plugin", tmp_path / "no.py", "models"), "no.py", "expected a Python file")
    assert not (tmp_path / "runs").exists()


def test_labels_outside_the_set_of_a_table(cfnsr: Run, synthetic: Path, tmp_path: Path) -> None:
    paths = sorted(synthetic.glob("Actor_*/*.mp4"))
    table = tmp_path / "takes.csv"
    labels = ["happy", "hapy", "sad", "calm"]
    lines = [f"{path},{labels[place % 4]},{path.parent.name}" for place, path in enumerate(paths)]
    table.write_text("\n".join(["path,label,speaker", *lines]) + "\n")
    out = ("--size", 64, "--frames", 8, "--modalities", "audio")
    refused(cfnsr("prepare", table, tmp_path / "out", *out), "'hapy' is outside the set", "--labels")
    refused(
        cfnsr("prepare", table, tmp_path / "out", *out, "--labels", "happy,sad,calm"), "'hapy' is outside"
    )
    assert not (tmp_path / "out").exists()
    done = cfnsr("prepare", table, tmp_path / "out", *out, "--labels", "sad,happy,hapy,calm")
    assert done.returncode == 0, done.stderr
    described = json.loads((tmp_path / "out" / "corpus.json").read_text())
    assert described["labels"]["emotions"] == ["sad", "happy", "hapy", "calm"]


def test_modalities_that_are_not_there_or_not_known(
    cfnsr: Run, prepared: Path, synthetic: Path, shared: Path, tmp_path: Path
) -> None:
    sound = shared / "ravdess" / "audio" / "Actor_01"
    refused(cfnsr("prepare", sound, tmp_path / "out", "--modalities", "video"), "no take with video")
    refused(cfnsr("prepare", sound, tmp_path / "out", "--modalities", "smell"), "smell", "video, audio")
    refused(cfnsr("prepare", synthetic, prepared, "--modalities", "audio"), "holds clips made with", "folder")
    assert len(list((prepared / "clips").iterdir())) == 12


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
    refused(cfnsr(*common, "--set", "colour=1"), "--set: colour is unknown", "colour_jitter")
    file.write_text("epoch = 3\n")
    refused(cfnsr(*common), "recipe.toml: epoch is unknown: expected some of preset, frames")
    refused(cfnsr("crossval", *common[1:-1], tmp_path / "no.toml"), "no.toml cannot be read")
    refused(cfnsr("train", "audio"), "train needs a model, --data and --out")


def test_labels_outside_the_set(cfnsr: Run, prepared: Path, synthetic: Path, tmp_path: Path) -> None:
    """A corpus of other labels does not mix into a store; nothing in it is lost."""
    table = tmp_path / "takes.csv"
    paths = sorted(synthetic.glob("Actor_01/*.mp4"))
    table.write_text(
        "path,label,speaker\n" + "".join(f"{p},{('bored', 'awake')[i % 2]},1\n" for i, p in enumerate(paths))
    )
    before = sorted(path.name for path in (prepared / "clips").iterdir())
    refused(cfnsr("prepare", table, prepared, "--size", 64, "--frames", 8), "the corpus 'synthetic'", "takes")
    assert sorted(path.name for path in (prepared / "clips").iterdir()) == before


def test_disk_full_while_preparing(cfnsr: Run, synthetic: Path, tmp_path: Path) -> None:
    """A real full disk: a file system of 400 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", disk], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        done = cfnsr("prepare", synthetic, disk / "out", "--size", 64, "--frames", 8, "--workers", 2)
        refused(done, "full")
        clips = list((disk / "out" / "clips").iterdir())
        assert clips and not [path for path in clips if path.name.startswith(".")]
        before = {path.name: path.read_bytes() for path in clips}
        subprocess.run(["mount", "-o", "remount,size=40m", disk], check=True)
        done = cfnsr("prepare", synthetic, disk / "out", "--size", 64, "--frames", 8, "--workers", 2)
        assert done.returncode == 0 and f"{12 - len(before)} clips made, {len(before)} kept" in done.stdout
    finally:
        subprocess.run(["umount", disk], check=True)


def test_debug_shows_the_traceback(cfnsr: Run, tmp_path: Path) -> None:
    done = cfnsr("report", tmp_path, "--debug")
    assert done.returncode == 1 and "Traceback" in done.stderr and "InputError" in done.stderr
