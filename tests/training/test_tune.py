"""Epochs and learning rate of a fused model, chosen on the inner validation actors of each fold."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from accelerate import Accelerator

from cfnsr.data.store import Store
from cfnsr.errors import InputError
from cfnsr.evaluation.runs import read_run
from cfnsr.training.config import TUNED, find_recipe
from cfnsr.training.crossval import crossval, plan
from cfnsr.training.fold import train_fold
from cfnsr.training.loop import State, Trainer
from cfnsr.training.prepared import PreparedCorpus

RECIPE = find_recipe("features").changed(epochs=2, fused_epochs=1, batch_size=8, tune=True)
FUSED = "mmtm+openface+speech"


@pytest.fixture(scope="module")
def corpus(features: Store) -> PreparedCorpus:
    return PreparedCorpus(features)


def run(corpus: PreparedCorpus, out: Path, *, resume: bool = False) -> dict[str, Path]:
    jobs = plan([FUSED], corpus, protocol="nested", recipe=RECIPE, folds=[1])
    folders = crossval(jobs, corpus, out, accelerator=Accelerator(), resume=resume)
    return {job.model: folder for job, folder in zip(jobs, folders, strict=True)}


@pytest.fixture(scope="module")
def tuned(corpus: PreparedCorpus, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return run(corpus, tmp_path_factory.mktemp("runs"))


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
    assert read_run(tuned[FUSED]).epochs == about["epochs"]
    assert not (tuned[FUSED] / "tried").exists()


def test_an_encoder_alone_is_trained_as_the_recipe_says(tuned: dict[str, Path]) -> None:
    for name, folder in tuned.items():
        if name != FUSED:
            assert not (folder / "tried.json").exists()
            assert json.loads((folder / "run.json").read_text())["epochs"] == RECIPE.epochs


def test_test_actors_choose_nothing(
    tuned: dict[str, Path], fill_features: Callable[..., Store], tmp_path: Path
) -> None:
    job = plan(
        [FUSED], PreparedCorpus(fill_features(tmp_path / "a")), protocol="nested", recipe=RECIPE, folds=[1]
    )
    changed = PreparedCorpus(fill_features(tmp_path / "b", changed=tuple(job[-1].fold.test)))
    other = run(changed, tmp_path / "runs")
    assert (other[FUSED] / "tried.json").read_bytes() == (tuned[FUSED] / "tried.json").read_bytes()
    assert (other[FUSED] / "predictions.csv").read_bytes() != (tuned[FUSED] / "predictions.csv").read_bytes()


@pytest.mark.parametrize("fatal", [4, 7])
@pytest.mark.long
def test_cut_off_and_resumed_it_ends_alike(
    fatal: int,
    tuned: dict[str, Path],
    corpus: PreparedCorpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Four trainings of the encoders, four choices, the chosen one and its refit."""
    fit, calls = Trainer.fit, []

    def failing(self: Trainer, *, resume: bool = False) -> State:
        calls.append(self)
        if len(calls) == 1 + fatal:
            raise KeyboardInterrupt
        return fit(self, resume=resume)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "fit", failing)
        with pytest.raises(KeyboardInterrupt):
            run(corpus, tmp_path)
    folder = run(corpus, tmp_path, resume=True)[FUSED]
    for file in ("model.safetensors", "predictions.csv", "history.jsonl", "tried.json", "config.json"):
        assert (folder / file).read_bytes() == (tuned[FUSED] / file).read_bytes(), file


def test_it_needs_inner_validation_actors(corpus: PreparedCorpus) -> None:
    recipe = find_recipe("small").changed(tune=True)
    with pytest.raises(InputError, match="has no inner validation actors, and --tune needs them"):
        plan(["video+openface"], corpus, protocol="paper", recipe=recipe)
    with pytest.raises(InputError, match="--no-pretrain starts none"):
        plan([FUSED], corpus, protocol="nested", recipe=RECIPE.changed(pretrain=False))


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"multiples": [[1, 1.0], [3, 9.0]], "figures": [[0.5, -1.0], [0.6, -1.0]]},
        {"multiples": TUNED, "figures": [[0.5, -1.0]] * 5},
        {"multiples": TUNED, "figures": ["half"]},
        {"multiples": TUNED, "figures": [[0.5, None]]},
        [1],
    ],
)
def test_what_was_tried_of_other_choices_is_refused(
    content: object, corpus: PreparedCorpus, tmp_path: Path
) -> None:
    job = plan([FUSED], corpus, protocol="nested", recipe=RECIPE, folds=[1])[-1]
    folder = job.folder(tmp_path)
    folder.mkdir(parents=True)
    (folder / "tried.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"tried\.json"):
        train_fold(job, corpus, folder, accelerator=Accelerator(), resume=True)
