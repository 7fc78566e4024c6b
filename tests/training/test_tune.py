"""Epochs and learning rate of a fused model, chosen on the inner validation actors of each fold."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator

from cfnsr.data.store import Store
from cfnsr.errors import InputError
from cfnsr.training.config import TUNED, find_recipe
from cfnsr.training.crossval import plan
from cfnsr.training.fold import train_fold
from cfnsr.training.job import Job
from cfnsr.training.prepared import PreparedCorpus
from cfnsr.training.run import Run

RECIPE = find_recipe("features").changed(epochs=2, fused_epochs=1, batch_size=8, tune=True)
FUSED = "mmtm+openface+speech"


Trained = Callable[..., dict[str, Path]]


@pytest.fixture(scope="session")
def run(train: Callable[..., list[Path]]) -> Trained:
    def run(corpus: PreparedCorpus, out: Path, **options: Any) -> dict[str, Path]:
        folders = train(corpus, out, FUSED, recipe=RECIPE, **options)
        return {folder.parents[1].name: folder for folder in folders}

    return run


@pytest.fixture(scope="module")
def tuned(tracks: PreparedCorpus, run: Trained, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return run(tracks, tmp_path_factory.mktemp("runs"))


def test_the_best_choice_on_validation_is_trained(tuned: dict[str, Path]) -> None:
    tried = json.loads((tuned[FUSED] / "tried.json").read_text())
    assert [tuple(each) for each in tried["multiples"]] == list(TUNED)
    epochs, rate = TUNED[max(range(len(TUNED)), key=lambda number: tried["figures"][number])]
    about = json.loads((tuned[FUSED] / "run.json").read_text())
    assert about["epochs"] == epochs * RECIPE.fused_epochs
    assert about["learning_rate"] == rate * RECIPE.learning_rate
    assert about["settings"]["fused_epochs"] == RECIPE.fused_epochs, "what was chosen is no setting"
    history = [json.loads(line) for line in (tuned[FUSED] / "history.jsonl").read_text().splitlines()]
    assert len(history) == about["epochs"]
    chosen = max(tried["figures"])
    assert [history[-1]["validation_accuracy"], -history[-1]["validation_loss"]] == pytest.approx(chosen)
    assert Run.read(tuned[FUSED]).epochs == about["epochs"]
    assert not (tuned[FUSED] / "tried").exists()


def test_an_encoder_alone_is_trained_as_the_recipe_says(tuned: dict[str, Path]) -> None:
    for name, folder in tuned.items():
        if name != FUSED:
            assert not (folder / "tried.json").exists()
            assert json.loads((folder / "run.json").read_text())["epochs"] == RECIPE.epochs


def test_test_actors_choose_nothing(
    tuned: dict[str, Path],
    tracks: PreparedCorpus,
    fill_features: Callable[..., Store],
    job_of: Callable[..., Job],
    run: Trained,
    tmp_path: Path,
) -> None:
    tested = job_of(tracks, FUSED, RECIPE).fold.test
    other = run(PreparedCorpus(fill_features(tmp_path / "store", changed=tuple(tested))), tmp_path / "runs")
    for file, alike in (("tried.json", True), ("predictions.csv", False)):
        assert ((other[FUSED] / file).read_bytes() == (tuned[FUSED] / file).read_bytes()) is alike


@pytest.mark.parametrize("fatal", [4, 7])
@pytest.mark.long
def test_cut_off_and_resumed_it_ends_alike(
    fatal: int,
    tuned: dict[str, Path],
    tracks: PreparedCorpus,
    run: Trained,
    cut_off: Callable[[int], AbstractContextManager[None]],
    tmp_path: Path,
) -> None:
    """Four trainings of the encoders, four choices, the chosen one and its refit."""
    with cut_off(1 + fatal):
        run(tracks, tmp_path)
    folder = run(tracks, tmp_path, resume=True)[FUSED]
    for file in ("model.safetensors", "predictions.csv", "history.jsonl", "tried.json", "config.json"):
        assert (folder / file).read_bytes() == (tuned[FUSED] / file).read_bytes(), file


def test_it_needs_inner_validation_actors(tracks: PreparedCorpus) -> None:
    recipe = find_recipe("small").changed(tune=True)
    with pytest.raises(InputError, match="has no inner validation actors, and --tune needs them"):
        plan(["video+openface"], tracks, protocol="paper", recipe=recipe)
    with pytest.raises(InputError, match="--no-pretrain starts none"):
        plan([FUSED], tracks, protocol="nested", recipe=RECIPE.changed(pretrain=False))


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"multiples": [[1, 1.0], [3, 9.0]], "figures": [[0.5, -1.0], [0.6, -1.0]]},
        {"multiples": TUNED, "figures": [[0.5, -1.0]] * 5},
        {"multiples": TUNED, "figures": [[0.5, None]]},
        [1],
    ],
)
def test_what_was_tried_of_other_choices_is_refused(
    content: object, tracks: PreparedCorpus, job_of: Callable[..., Job], tmp_path: Path
) -> None:
    (tmp_path / "tried.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"tried\.json"):
        train_fold(job_of(tracks, FUSED, RECIPE), tracks, tmp_path, accelerator=Accelerator(), resume=True)
