"""Saving and loading a model as a folder: whole, with a card that claims only what is known."""

import hashlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import cfnsr
from cfnsr.emotions import LabelSet
from cfnsr.errors import InputError
from cfnsr.evaluation.card import write_card
from cfnsr.features.preparation import Preparation
from cfnsr.features.spec import ModelSpec
from cfnsr.training.checkpoint import load_model
from cfnsr.training.run import Run

FILES = {"config.json", "model.safetensors", "README.md"}
TWO = LabelSet("two", ("calm", "angry"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def card(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


def head(folder: Path) -> list[str]:
    """The lines of a card's YAML head."""
    empty, yaml, *_ = card(folder).split("---\n")
    assert empty == ""
    return yaml.splitlines()


def untrained(name: str = "audio", labels: LabelSet = TWO, **settings: object) -> torch.nn.Module:
    """A model that was only created, and says what it is."""
    modalities = ("video", "audio", "openface", "speech")
    preparation = Preparation(modalities=modalities, speech_encoder="tiny", speech_sha256="0" * 64)
    settings = {"classes": len(labels), **settings}
    torch.manual_seed(0)
    model = cfnsr.create_model(name, **settings)  # type: ignore[arg-type]
    model.config = ModelSpec(name, settings, labels, preparation=preparation)  # type: ignore[assignment]
    return model.eval()


def states(model: torch.nn.Module) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


def test_a_saved_model_answers_bit_for_bit_the_same(run: Path, synthetic: Path, tmp_path: Path) -> None:
    model = cfnsr.load_model(run)
    folder = cfnsr.save_pretrained(model, tmp_path / "shared")
    assert folder == tmp_path / "shared" and set(contents(folder)) == FILES
    assert {path.name for path in tmp_path.iterdir()} == {"shared"}, "nothing is left beside it"
    for name in ("config.json", "model.safetensors"):
        assert (folder / name).read_bytes() == (run / name).read_bytes()
    file = next(synthetic.glob("Actor_01/*.mp4"))
    expected = cfnsr.predict(model, file).probabilities
    for loaded in (
        cfnsr.from_pretrained(folder),
        cfnsr.from_pretrained(str(folder)),
        cfnsr.load_model(folder),
    ):
        assert not loaded.training and loaded.config == model.config and states(loaded) == states(model)
        assert cfnsr.predict(loaded, file).probabilities == expected


@pytest.mark.parametrize(
    ("name", "settings"),
    [("cfn_sr", {"width": 1 / 8}), ("mcbp", {"width": 1 / 8}), ("cfn_sr_features", {"speech_width": 8})],
)
def test_other_models_survive_it(tmp_path: Path, name: str, settings: dict[str, float]) -> None:
    model = untrained(name, **settings)
    loaded = cfnsr.from_pretrained(cfnsr.save_pretrained(model, tmp_path / "model"))
    assert states(loaded) == states(model) and loaded.config == model.config


def test_the_card_is_that_of_the_run(run: Path, tmp_path: Path) -> None:
    """Its own figures, those of the cross-validation it lies in, and the hash of these very weights."""
    folder = cfnsr.save_pretrained(cfnsr.load_model(run), tmp_path / "shared")
    text, test = card(folder), Run.read(run).test
    accuracy = 100 * np.mean(test.log_probabilities.argmax(axis=1) == test.labels)
    assert f"| accuracy % | {accuracy:.1f} |" in text
    assert hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest() in text
    own, whole = text.split("**The whole cross-validation**")
    assert "2 of 3 folds" in whole and "2 of 3 folds" not in own
    assert "license: other" in head(folder), "the synthetic corpus's is not known"
    assert str(run) not in text and str(tmp_path) not in text


def copied(run: Path, place: Path, **about: object) -> Path:
    """A run of one's own to change; entries replace those of its run.json."""
    shutil.copytree(run, place)
    told = json.loads((place / "run.json").read_text())
    (place / "run.json").write_text(json.dumps({**told, **about}))
    return place


def test_weights_of_ravdess_bear_its_licence(run: Path, tmp_path: Path) -> None:
    """Those of its run, those changed since, and those of a checkpoint that the run keeps in a folder."""
    ravdess = copied(run, tmp_path / "run", corpus={"name": "RAVDESS", "clips": 12})
    shutil.copytree(ravdess, ravdess / "selected", ignore=shutil.ignore_patterns("run.json", "*.csv"))
    model = cfnsr.load_model(ravdess)
    changed = cfnsr.load_model(ravdess)
    with torch.no_grad():
        changed.classify.bias.add_(1)
    for number, each in enumerate((model, changed, cfnsr.load_model(ravdess / "selected"))):
        folder = cfnsr.save_pretrained(each, tmp_path / str(number))
        assert "license: cc-by-nc-sa-4.0" in head(folder), number
        assert "CC BY-NC-SA 4.0" in card(folder)
        assert ("accuracy %" in card(folder)) is (number == 0)


def test_a_card_that_was_written_of_these_weights_is_kept(run: Path, tmp_path: Path) -> None:
    """As `cfnsr train` leaves it beside them; but not one of other weights, or some other text."""
    mine = copied(run, tmp_path / "run")
    write_card(mine)
    written = card(mine) + "\nMine.\n"
    (mine / "README.md").write_text(written)
    assert card(cfnsr.save_pretrained(cfnsr.load_model(mine), tmp_path / "kept")) == written
    again = cfnsr.from_pretrained(tmp_path / "kept")
    assert card(cfnsr.save_pretrained(again, tmp_path / "again")) == written, "and so from hand to hand"
    (mine / "README.md").write_text("My notes.")
    assert "accuracy %" in card(cfnsr.save_pretrained(cfnsr.load_model(mine), tmp_path / "made"))


def test_somebody_elses_card_goes_with_the_weights(tmp_path: Path) -> None:
    """Where there is no run; with changed weights only its licence does."""
    folder = cfnsr.save_pretrained(untrained(), tmp_path / "theirs")
    theirs = "---\nlicense: other\nlicense_name: mine-alone\nlanguage: en\n---\nAccuracy: 99 %\n"
    (folder / "README.md").write_text(theirs)
    model = cfnsr.from_pretrained(folder)
    assert card(cfnsr.save_pretrained(model, tmp_path / "same")) == theirs
    with torch.no_grad():
        model.classify.bias.zero_()
    folder = cfnsr.save_pretrained(model, tmp_path / "changed")
    assert head(folder)[:2] == ["license: other", "license_name: mine-alone"]
    assert "99 %" not in card(folder) and "changed after they were loaded" in card(folder)


def test_an_untrained_model_claims_nothing(tmp_path: Path) -> None:
    folder = cfnsr.save_pretrained(untrained(), tmp_path / "model")
    text = card(folder)
    assert "license: unknown" in head(folder) and "library_name: cfnsr" in head(folder)
    assert "**No figures.** No finished run" in text and "changed" not in text
    assert "ccuracy %" not in text and not re.search(r"\d %", text)
    assert hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest() in text
    assert "Annex III" in text, "what the law says of such systems holds for it too"
    assert card(cfnsr.save_pretrained(cfnsr.from_pretrained(folder), tmp_path / "again")) == text


def one_bit(model: torch.nn.Module) -> None:
    bias = model.classify.bias.data
    bias[0] = torch.nextafter(bias[0], torch.tensor(9.0))


def colder(model: torch.nn.Module) -> None:
    model.config = replace(model.config, temperature=0.5)


@pytest.mark.parametrize("change", [torch.nn.Module.half, one_bit, colder])
def test_the_runs_figures_are_of_its_weights_alone(
    run: Path, tmp_path: Path, change: Callable[[torch.nn.Module], object]
) -> None:
    model = cfnsr.load_model(run)
    change(model)
    folder = cfnsr.save_pretrained(model, tmp_path / "changed")
    assert "accuracy %" not in card(folder) and "the others' figures are not theirs" in card(folder)
    with pytest.raises(InputError, match="holds other weights or settings than the model"):
        cfnsr.save_pretrained(model, tmp_path / "claimed", run=run)
    assert not (tmp_path / "claimed").exists()


def test_weights_that_are_no_numbers_are_the_same_still(run: Path, tmp_path: Path) -> None:
    broken = copied(run, tmp_path / "run")
    weights = load_file(broken / "model.safetensors")
    weights["classify.bias"][0] = float("nan")
    save_file(weights, broken / "model.safetensors")
    assert "accuracy %" in card(cfnsr.save_pretrained(cfnsr.load_model(broken), tmp_path / "shared"))


def test_the_run_can_be_named(run: Path, tmp_path: Path) -> None:
    """For a checkpoint that was copied out of it, or a model that lost its folder."""
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(run / name, alone)
    model = cfnsr.load_model(alone)
    assert model.folder == alone
    assert "No finished run" in card(cfnsr.save_pretrained(model, tmp_path / "without"))
    assert "accuracy %" in card(cfnsr.save_pretrained(model, tmp_path / "with", run=run))
    shutil.rmtree(alone)
    assert "license: unknown" in head(cfnsr.save_pretrained(model, tmp_path / "lost"))


def test_a_run_that_is_not_finished_is_not_shared(run: Path, tmp_path: Path) -> None:
    unfinished = copied(run, tmp_path / "run", finished=False)
    with pytest.raises(InputError, match="is a run that is not finished"):
        cfnsr.save_pretrained(cfnsr.load_model(unfinished), tmp_path / "shared")
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


def test_a_model_must_say_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"does not say what it is: expected one of load_model"):
        cfnsr.save_pretrained(cfnsr.create_model("audio"), tmp_path / "model")
    model = untrained()
    model.config = replace(model.config, settings={"classes": 8})  # type: ignore[assignment]
    with pytest.raises(InputError, match=r"not the audio that its config names: classify.bias is \(2,\)"):
        cfnsr.save_pretrained(model, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_an_earlier_save_is_replaced_as_a_whole(tmp_path: Path) -> None:
    first, second = untrained(), untrained(labels=LabelSet("three", ("calm", "happy", "sad")))
    folder = cfnsr.save_pretrained(first, tmp_path / "model")
    (folder / "README.md").unlink()  # whoever saved it may have done without
    (tmp_path / "link").symlink_to(folder)
    cfnsr.save_pretrained(second, tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and set(contents(folder)) == FILES
    assert states(cfnsr.from_pretrained(folder)) == states(second)
    assert {path.name for path in tmp_path.iterdir()} == {"model", "link"}
    (tmp_path / "empty").mkdir()
    assert set(contents(cfnsr.save_pretrained(first, tmp_path / "empty"))) == FILES
    loaded = cfnsr.from_pretrained(folder)
    assert states(cfnsr.from_pretrained(cfnsr.save_pretrained(loaded, folder))) == states(second)
    folder.rename(tmp_path / ".model.cfnsr-before")  # as a save leaves it that was cut off just there
    assert states(cfnsr.from_pretrained(folder)) == states(second)


@pytest.mark.parametrize(
    ("inside", "message"),
    [
        ({"notes.txt": "mine"}, r"holds notes\.txt: expected a new or empty folder"),
        ({"run.json": "{}", "predictions.csv": ""}, r"holds predictions\.csv and 1 more"),
        ({"README.md": "# Mine"}, r"holds a README\.md that cfnsr did not write"),
        (
            {"config.json": '{"model_type": "bert"}', "model.safetensors": ""},
            r"config\.json that cfnsr did not",
        ),
        ({"config.json": "[" * 100_000}, r"config\.json that cfnsr did not write"),
        ({"README.md/more": "a folder"}, r"holds README\.md: expected"),
    ],
)
def test_what_is_no_save_stays(tmp_path: Path, inside: dict[str, str], message: str) -> None:
    folder = tmp_path / "theirs"
    for name, text in inside.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    with pytest.raises(InputError, match=message) as error:
        cfnsr.save_pretrained(untrained(), folder)
    assert "\n" not in str(error.value)
    found = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert found == inside and [path.name for path in tmp_path.iterdir()] == ["theirs"]


def test_a_run_and_a_file_stay_too(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(run.iterdir())
    with pytest.raises(InputError, match="expected a new or empty folder"):
        cfnsr.save_pretrained(cfnsr.load_model(run), run)
    assert set(run.iterdir()) == before
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="file is a file: expected a folder"):
        cfnsr.save_pretrained(untrained(), tmp_path / "file")
    folder = cfnsr.save_pretrained(untrained(), tmp_path / "here")
    monkeypatch.chdir(folder)
    with pytest.raises(InputError, match="is where you stand"):
        cfnsr.save_pretrained(untrained(), ".")
    assert set(contents(folder)) == FILES


KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from cfnsr.sharing.folder import FILES, replace_folder, whole

folder = Path(sys.argv[1])

def save(text):
    replace_folder(folder, lambda place: [(place / name).write_text(text) for name in FILES])

def dying(real, number):
    calls = []
    def call(*arguments, **options):
        calls.append(1)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)
    return call

save("old")
strokes = {"mkdir": (Path, 1), "write_text": (Path, 3), "rename": (Path, 2), "rmtree": (shutil, 3)}
for what, (home, last) in strokes.items():
    for number in range(1, last + 1):
        if os.fork() == 0:
            setattr(home, what, dying(getattr(home, what), number))
            save("new")
            os._exit(0)
        _, status = os.wait()
        found = whole(folder)
        place = "there" if found == folder else "beside"
        texts = {path.name: path.read_text() for path in found.iterdir()}
        print(what, number, os.WIFSIGNALED(status), place, *set(texts.values()), *sorted(texts), flush=True)
        save("old")
        assert not [path for path in folder.parent.iterdir() if "before" in path.name]  # it clears up
"""


def test_a_kill_leaves_the_old_save_or_the_new_one(tmp_path: Path) -> None:
    """Wherever it strikes: while files are written, between the two renamings, before the old one is gone."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "model")], capture_output=True, text=True, check=True
    )
    found = {tuple(line.split()[:2]): line.split()[2:] for line in done.stdout.splitlines()}
    old = ["True", "there", "old", *sorted(FILES)]
    strokes = [("mkdir", 1), *(("write_text", number) for number in (1, 2, 3)), ("rename", 1)]
    expected = {(what, str(number)): old for what, number in [*strokes, ("rmtree", 1), ("rmtree", 2)]}
    expected["rename", "2"] = ["True", "beside", "old", *sorted(FILES)]  # where `whole` finds it
    expected["rmtree", "3"] = ["True", "there", "new", *sorted(FILES)]  # the old one only to be removed
    assert found == expected


def test_a_disk_that_refuses_leaves_the_old_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cfnsr.save_pretrained(untrained(), tmp_path / "model")
    before = contents(folder)
    real = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.name.endswith(".tmp"):
            raise OSError(28, "No space left on device", str(self))
        return real(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="No space left"):
        cfnsr.save_pretrained(untrained(labels=LabelSet("three", ("a", "b", "c"))), folder)
    assert contents(folder) == before and [path.name for path in tmp_path.iterdir()] == ["model"]


def told(folder: Path, **changes: object) -> None:
    """Change entries of a config.json."""
    value = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**value, **changes}))


def settings(folder: Path, **changes: object) -> None:
    told(folder, settings={**json.loads((folder / "config.json").read_text())["settings"], **changes})


def cut(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


Harm = Callable[[Path], object]
HARMS: Mapping[str, tuple[Harm, str]] = {
    "huge config": (
        lambda folder: (folder / "config.json").write_bytes(b'{"cfnsr": 1, "x": "' + b"x" * 2**21 + b'"}'),
        "is no model of cfnsr",
    ),
    "deep config": (
        lambda folder: (folder / "config.json").write_text("[" * 500_000),
        "is no model of cfnsr",
    ),
    "long number": (
        lambda folder: (folder / "config.json").write_text('{"cfnsr": ' + "9" * 9999 + "}"),
        "is no model of cfnsr",
    ),
    "another library": (
        lambda folder: (folder / "config.json").write_text('{"model_type": "bert"}'),
        "is no model of cfnsr, for its config.json names none",
    ),
    "another format": (
        lambda folder: told(folder, format=99, cfnsr="7.0"),
        r"format 99 \(written by cfnsr 7\.0\): this is cfnsr",
    ),
    "no config": (lambda folder: (folder / "config.json").unlink(), r"config\.json is missing"),
    "unknown model": (lambda folder: told(folder, model="gpt"), "model 'gpt' is unknown"),
    "damaged labels": (lambda folder: told(folder, labels=7), r"config\.json is damaged"),
    "large model": (lambda folder: settings(folder, mfcc_steps=9_000), r"does not fit its config\.json"),
    "huge model": (lambda folder: settings(folder, mfcc_steps=10**12), "damaged .mfcc_steps 1000000000000"),
    "many classes": (lambda folder: settings(folder, classes=10**9), r"damaged \(1000000000 classes"),
    "many frames": (lambda folder: told(folder, frames=10**9), r"damaged \(frames 1000000000"),
    "endless model": (
        lambda folder: (told(folder, model="cfn_sr"), settings(folder, width=float("inf"))),
        r"damaged \(width inf\)",
    ),
    "no such setting": (lambda folder: settings(folder, depth=3), r"does not fit.*unexpected keyword"),
    "words for numbers": (lambda folder: settings(folder, mfcc_steps="many"), "damaged"),
    "a sparse file": (
        lambda folder: os.truncate(folder / "model.safetensors", 2**40),
        "1,099,511,627,776 bytes",
    ),
    "a long header": (
        lambda folder: (folder / "model.safetensors").write_bytes((2**60).to_bytes(8, "little")),
        "a header of 1,152,921,504,606,846,976 bytes",
    ),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "cannot be read as safetensors"),
    "half the weights": (cut, r"model\.safetensors cannot be read as safetensors"),
    "other weights": (
        lambda folder: save_file({"x": torch.zeros(2)}, folder / "model.safetensors"),
        r"does not fit its config\.json \(.* is missing, expected .*; \d+ more\)",
    ),
}

# Of a folder that need not be a saved model.
LOADED = {
    "huge config": "has 2,097,173 bytes: expected at most 1,048,576",
    "deep config": "cannot be read",
    "long number": "cannot be read",
    "another library": "has format None",
}


@pytest.mark.parametrize("harm", HARMS)
def test_folders_that_are_not_loaded(tmp_path: Path, harm: str) -> None:
    """One line, and never the memory that a hostile configuration asks for."""
    folder = cfnsr.save_pretrained(untrained(width=1 / 8, mfcc_steps=212), tmp_path / "model")
    change, message = HARMS[harm]
    change(folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=message) as error:
        cfnsr.from_pretrained(folder)
    with pytest.raises(InputError, match=LOADED.get(harm, message)):
        load_model(folder)
    assert "\n" not in str(error.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_pointers_of_git_lfs_are_named(tmp_path: Path, name: str) -> None:
    folder = cfnsr.save_pretrained(untrained(), tmp_path / "model")
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    for load in (cfnsr.from_pretrained, load_model):
        with pytest.raises(InputError, match="git lfs pull") as error:
            load(folder)
        assert name in str(error.value) and "\n" not in str(error.value)


def test_a_folder_whose_name_is_no_text(latin: Path) -> None:
    folder = cfnsr.save_pretrained(untrained(), latin)
    assert states(cfnsr.from_pretrained(folder)) == states(load_model(folder)) == states(untrained())
    assert set(contents(cfnsr.save_pretrained(cfnsr.from_pretrained(folder), folder))) == FILES


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    """A pickle under the name of the weights is no safetensors; beside them it is not looked at."""

    class Evil:
        def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    folder = cfnsr.save_pretrained(untrained(), tmp_path / "model")
    torch.save(Evil(), folder / "pytorch_model.bin")
    assert states(cfnsr.from_pretrained(folder)) == states(untrained())
    (folder / "pytorch_model.bin").replace(folder / "model.safetensors")
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        cfnsr.from_pretrained(folder)
    assert not (tmp_path / "ran").exists()


def test_the_names_are_public_and_lazy() -> None:
    assert {"save_pretrained", "from_pretrained"} <= set(cfnsr.__all__)
    code = (
        "import sys, cfnsr.sharing.pretrained; late = {'huggingface_hub', 'matplotlib', 'cfnsr.evaluation'}; "
        "print(sorted(late & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
