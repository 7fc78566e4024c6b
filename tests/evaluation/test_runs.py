"""Runs read back, and everything that must stop a report."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cfnsr.data.conditions import CONDITIONS as NAMES
from cfnsr.data.folds import OPTIMISTIC
from cfnsr.errors import InputError
from cfnsr.evaluation.runs import read_runs, unfinished_runs
from cfnsr.models.entries import ENTRIES
from cfnsr.training.run import CONDITIONS, HISTORY, LEAKY, PREDICTIONS, Run

Fabricate = Callable[..., Path]
SMALL = {"takes": 8, "epochs": 3}
BEFORE = {"caveat": ..., "leaky": ...}


def amend(folder: Path, **entries: Any) -> None:
    """Change entries of a run's description, or take them away by `...`."""
    path = folder / "run.json"
    about = json.loads(path.read_text()) | entries
    path.write_text(json.dumps({name: value for name, value in about.items() if value is not ...}))


def change(path: Path, old: str, new: str) -> None:
    text, times = re.subn(old, new, path.read_text(), count=1)
    assert times == 1
    path.write_text(text)


def refused(runs: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_runs(runs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_run_is_read_as_it_was_written(tmp_path: Path, fabricate: Fabricate) -> None:
    (run,) = read_runs(fabricate(tmp_path, fold=2, **SMALL).parents[3])
    assert (run.model, run.protocol, run.fold, run.folds, run.seed) == ("cfn_sr", "nested", 2, 6, 0)
    assert run.params == run.trained_params == 26_301_417, "one of an earlier version kept but one number"
    assert run.corpus == "ravdess" and run.clips == 1440
    assert not run.optimistic and run.selected_on == "validation"
    assert run.test_actors == (5, 6, 7, 8) and set(run.test.actors) == {5, 6, 7, 8}
    assert set(run.validation.actors) == {9, 10, 11, 12}
    assert run.test.log_probabilities.shape == (32, 8) and run.test.labels[:3].tolist() == [0, 1, 2]
    assert np.allclose(np.exp(run.test.log_probabilities).sum(axis=1), 1)
    assert len(run.history) == 3 and run.settings["batch"] == 16 and run.versions["torch"] == "2.13.0"


def test_a_model_is_called_as_the_zoo_would_let_it(tmp_path: Path, fabricate: Fabricate) -> None:
    from cfnsr.models import zoo

    folder = fabricate(tmp_path, **SMALL)
    for name in ("cfn_sr", "My-own_2", "3d"):
        amend(folder, model=name)
        assert read_runs(tmp_path)[0].model == name
        if name not in ENTRIES:
            zoo.entry(name, fusion="none")(ENTRIES["audio"].build)
            del ENTRIES[name]
    for name in ("<b>", "a b", "[x](y)", "a|b", "a\n", "", "_a", "-a", "é", "../x"):
        amend(folder, model=name)
        assert "expected letters, digits, _ and -" in refused(tmp_path)
        with pytest.raises(InputError, match="expected letters, digits, _ and -"):
            zoo.entry(name, fusion="none")(ENTRIES["audio"].build)


def test_the_runs_of_a_row_are_of_one_source(tmp_path: Path, fabricate: Fabricate) -> None:
    first = fabricate(tmp_path, "my_own", fold=1, **SMALL)
    assert Run.read(first).source == ""  # written before there were sources
    amend(first, source="0f" * 32)
    second = fabricate(tmp_path, "my_own", fold=2, source="0f" * 32, **SMALL)
    assert {run.source for run in read_runs(tmp_path)} == {"0f" * 32}
    amend(second, source="")
    assert "differ in source" in refused(tmp_path)


def test_runs_are_found_by_their_file_wherever_they_lie(tmp_path: Path, fabricate: Fabricate) -> None:
    fabricate(tmp_path, fold=2, place="anywhere/deep/b", **SMALL)
    fabricate(tmp_path, fold=1, place="a", **SMALL)
    assert [run.fold for run in read_runs(tmp_path)] == [1, 2]


def test_actors_may_be_names(tmp_path: Path, fabricate: Fabricate) -> None:
    folder = fabricate(tmp_path, **SMALL)
    path = folder / PREDICTIONS
    path.write_text(path.read_text().replace(",1,test,", ",NA,test,"))
    amend(folder, test_actors=["NA", 2, 3, 4])
    assert set(Run.read(folder).test.actors) == {"NA", 2, 3, 4}


def test_unfinished_runs_are_listed_and_not_counted(tmp_path: Path, fabricate: Fabricate) -> None:
    fabricate(tmp_path, fold=1, **SMALL)
    amend(fabricate(tmp_path, fold=2, **SMALL), finished=False)
    (fabricate(tmp_path, fold=3, **SMALL) / "run.json").unlink()
    (tmp_path / "nested/cfn_sr/seed_0/fold_4/state").mkdir(parents=True)
    assert [run.fold for run in read_runs(tmp_path)] == [1]
    found = {run.folder.as_posix(): run.reason for run in unfinished_runs(tmp_path)}
    assert list(found) == [f"nested/cfn_sr/seed_0/fold_{fold}" for fold in (2, 3, 4)]
    assert "not finished" in found["nested/cfn_sr/seed_0/fold_2"]
    assert "no run.json" in found["nested/cfn_sr/seed_0/fold_3"]


@pytest.mark.parametrize("place", ["missing", "empty", "file", "unfinished"])
def test_a_folder_without_a_finished_run_is_refused(tmp_path: Path, fabricate: Fabricate, place: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("no folder")
    fabricate(tmp_path / "unfinished", finished=False, **SMALL)
    assert place in refused(tmp_path / place)


def test_leaks_and_wrong_descriptions_are_refused(tmp_path: Path, fabricate: Fabricate) -> None:
    folder = fabricate(tmp_path, **SMALL)
    before = (folder / "run.json").read_text()
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"train_actors": [1, 9, 10]}, "in both"),
        ({"train_actors": ["1", 9, 10]}, "in both"),  # the same actor, written as text
        ({"validation_actors": [5, 6, 7, 8, 2]}, "in both"),
        ({"train_actors": [5, 9, 10]}, "in both"),  # the epoch would be chosen on an actor that trained
        ({"test_actors": [1, 2, 3]}, "actor 4, not among the test actors"),
        ({"labels": None}, "run.json is not a description of a run"),
        ({"epoch": None}, "run.json is not a description of a run"),
        ({"seed": "x"}, "run.json is not a description of a run"),
        ({"fold": 9}, "run.json is fold 9 of 6"),
        ({"epoch": 80}, "run.json chose epoch 80"),
        ({"seed": ...}, "run.json has no entry 'seed'"),
    )
    for entries, says in wrong:
        (folder / "run.json").write_text(before)
        amend(folder, **entries)
        assert says in refused(tmp_path), entries


def test_an_actor_tested_in_two_folds_is_refused(tmp_path: Path, fabricate: Fabricate) -> None:
    fabricate(tmp_path, fold=1, **SMALL)
    amend(fabricate(tmp_path, fold=1, place="again", **SMALL), fold=2)
    assert "actor 1 is tested in both" in refused(tmp_path)


def test_the_same_fold_twice(tmp_path: Path, fabricate: Fabricate) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(fabricate(tmp_path, **SMALL), copy)
    amend(copy, seconds=1.0, versions={"torch": "2.12.0"})
    assert len(read_runs(tmp_path)) == 1  # the same training again is passed over
    amend(copy, epoch=1)
    assert "both fold 1 of cfn_sr" in refused(tmp_path)


def test_folds_that_do_not_belong_together_are_refused(tmp_path: Path, fabricate: Fabricate) -> None:
    fabricate(tmp_path, fold=1, **SMALL)
    about = fabricate(tmp_path, fold=2, **SMALL) / "run.json"
    before = about.read_text()
    for name, value in {
        "preset": "small",
        "params": 7,
        "folds": 5,
        "corpus": {"name": "x", "clips": 9},
    }.items():
        about.write_text(before)
        amend(about.parent, **{name: value})
        assert f"differ in {name}" in refused(tmp_path)


@pytest.mark.parametrize("name", ["run.json", HISTORY, PREDICTIONS])
def test_broken_and_missing_files_are_refused(tmp_path: Path, fabricate: Fabricate, name: str) -> None:
    fabricate(tmp_path, fold=2, **SMALL)
    path = fabricate(tmp_path, **SMALL) / name
    for content in (b"", b'{"epoch": 1, "tr', b"[1]", b"\xff\xfe\x00garbage"):
        path.write_bytes(content)
        assert name in refused(tmp_path)
    if name != "run.json":  # without that it is no finished run
        path.unlink()
        assert name in refused(tmp_path)


FIRST = "01-00,1,test,neutral"


def test_wrong_predictions_are_refused(tmp_path: Path, fabricate: Fabricate) -> None:
    path = fabricate(tmp_path, **SMALL) / PREDICTIONS
    before = path.read_text()
    for old, new, says in (
        (FIRST, "01-00,1,test,bored", "'bored' is outside"),
        ("01-00,1,test", "01-00,1,train", "split 'train'"),
        ("01-01,1,test", "01-00,1,test", "'01-00' twice"),
        ("neutral,calm,happy", "calm,neutral,happy", "expected clip,actor,split,label,neutral,calm"),
        (f"{FIRST},-", f"{FIRST},nan,-", "no table of predictions"),
        (rf"{FIRST},[^,]*", f"{FIRST},nan", "prediction 33 has NaN"),
        (f"{FIRST},-", f"{FIRST},x-", "no table of predictions"),
        (f"{FIRST},-", f"{FIRST},-9", "sum to"),
        (r"(01-00,1,test,.*),.*", r"\1,", "could not convert string to float: ''"),
        (r"(?s)01-00,1,test,.*", "", "no test clip"),
    ):
        path.write_text(before)
        change(path, old, new)
        message = refused(tmp_path)
        assert PREDICTIONS in message and says in message, new


def test_predictions_cut_short_are_refused(tmp_path: Path, fabricate: Fabricate) -> None:
    folder = fabricate(tmp_path, **SMALL)
    path = folder / PREDICTIONS
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    amend(folder, predicted=len(lines) - 1)
    assert len(read_runs(tmp_path)) == 1
    path.write_text("".join(lines[:-2]), encoding="utf-8")
    assert f"{len(lines) - 3} clips, {len(lines) - 1} were predicted" in refused(tmp_path)


@pytest.mark.parametrize("name", [PREDICTIONS, CONDITIONS])
def test_a_table_cut_within_its_last_number_is_refused(
    tmp_path: Path, fabricate: Fabricate, name: str
) -> None:
    path = fabricate(tmp_path, conditions=True, **SMALL) / name
    whole = path.read_bytes()
    for cut in (1, 3):  # without its line's end alone, and within the last digits
        path.write_bytes(whole[:-cut])
        message = refused(tmp_path)
        assert name in message and "cut off" in message


@pytest.mark.parametrize("loss", ['"<script>"', "[]", "{}", "[" * 10**5])
def test_a_history_of_other_than_numbers_is_refused(tmp_path: Path, fabricate: Fabricate, loss: str) -> None:
    folder = fabricate(tmp_path, epochs=1)
    (folder / "history.jsonl").write_text(f'{{"epoch": 1, "train_loss": {loss}}}')
    with pytest.raises(
        InputError, match=r"history\.jsonl (has train_loss .*: expected a number|cannot be read)"
    ):
        Run.read(folder)


def test_a_history_of_other_epochs_is_refused(tmp_path: Path, fabricate: Fabricate) -> None:
    path = fabricate(tmp_path, **SMALL) / HISTORY
    lines = [*path.read_text().splitlines(keepends=True), '{"epoch": 4}\n']
    for kept in (0, 2, 4):
        path.write_text("".join(lines[:kept]))
        assert f"{HISTORY} has {kept} epochs: expected those from 1 to 3" in refused(tmp_path)


@pytest.mark.parametrize(
    ("protocol", "about", "caveat"),
    [
        ("nested", {}, ""),
        ("paper", {}, OPTIMISTIC),
        ("best_epoch_on_test", {}, OPTIMISTIC),
        ("shared_actors", {}, LEAKY),
        # Choosing on test and leaking never go without a caveat.
        ("nested", {"selected_on": "test"}, OPTIMISTIC),
        ("nested", {"leaky": True}, LEAKY),
        ("nested", {"selected_on": "test", "leaky": True, "caveat": "leaky: so"}, f"leaky: so; {OPTIMISTIC}"),
        # Runs of before there were caveats.
        ("nested", BEFORE, ""),
        ("nested", {"selected_on": "test", **BEFORE}, OPTIMISTIC),
        ("paper", BEFORE, OPTIMISTIC),
    ],
)
def test_a_run_says_what_flatters_it(
    tmp_path: Path, fabricate: Fabricate, protocol: str, about: dict[str, Any], caveat: str
) -> None:
    folder = fabricate(tmp_path, protocol=protocol, **SMALL)
    amend(folder, **about)
    run = Run.read(folder)
    assert run.caveat == caveat and run.leaky is caveat.startswith("leaky")
    assert run.optimistic is (OPTIMISTIC in caveat)


@pytest.mark.parametrize("protocol", ["shared_actors", "repeated_takes"])
def test_what_leaks_on_purpose_is_read(tmp_path: Path, fabricate_all: Fabricate, protocol: str) -> None:
    fabricate_all(tmp_path, ("audio",), (protocol,), **SMALL)
    runs = read_runs(tmp_path)
    assert len(runs) == 6 and all(set(run.train_actors) & set(run.test_actors) for run in runs)
    tested = [clip for run in runs for clip in run.test.clips]
    assert len(tested) == len(set(tested)) == 24 * 8 * (2 if protocol == "repeated_takes" else 1)
    # The same run that does not say that it leaks on purpose is refused.
    amend(runs[0].folder, leaky=False)
    assert "in both train and" in refused(tmp_path)


def test_a_clip_tested_in_two_leaky_folds_is_refused(tmp_path: Path, fabricate: Fabricate) -> None:
    first = fabricate(tmp_path, protocol="shared_actors", fold=1, **SMALL)
    amend(fabricate(tmp_path, protocol="shared_actors", fold=1, place="again", **SMALL), fold=2)
    assert "is tested in both" in refused(tmp_path)
    amend(first, caveat="leaky: otherwise")
    assert "differ in caveat" in refused(tmp_path)


def test_conditions_are_read_beside_the_predictions(tmp_path: Path, fabricate: Fabricate) -> None:
    run = Run.read(fabricate(tmp_path, conditions=True, **SMALL))
    assert (*run.conditions, "five_takes", "two_emotions", "one_emotion") == tuple(NAMES)
    assert all(part.clips == run.test.clips for part in run.conditions.values())
    assert Run.read(fabricate(tmp_path, "video", **SMALL)).conditions == {}


def test_wrong_conditions_are_refused(tmp_path: Path, fabricate: Fabricate) -> None:
    path = fabricate(tmp_path, conditions=True, **SMALL) / CONDITIONS
    before = path.read_text()
    for old, new, says in (
        ("01-00,1,dark_face,neutral", "01-00,1,dark_face,calm", "with their labels"),
        ("01-00,1,dark_face", "09-00,9,dark_face", "dark_face clip of actor 9"),
        ("01-00,1,dark_face", "01-01,1,dark_face", "'01-01' twice"),
        ("01-00,1,dark_face", "01-00,1,fog", "condition fog has 1 clips, expected the 32"),
        ("clip,actor,condition", "clip,actor,split", "expected clip,actor,condition,label,neutral"),
    ):
        path.write_text(before)
        change(path, old, new)
        message = refused(tmp_path)
        assert CONDITIONS in message and says in message
