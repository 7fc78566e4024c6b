"""What is fitted in closed form before a training: to whose clips, at which speeds, and once."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor, nn

import cfnsr
from cfnsr.data.dataset import Look
from cfnsr.data.store import Store
from cfnsr.models import zoo
from cfnsr.models.encoders.discriminant import Discriminant
from cfnsr.models.encoders.speech import Heard
from cfnsr.training import discriminants
from cfnsr.training.config import find_recipe
from cfnsr.training.crossval import SELECTED, crossval, plan
from cfnsr.training.discriminants import fit_discriminants
from cfnsr.training.loop import Step
from cfnsr.training.prepared import PreparedCorpus
from cfnsr.training.record import Job

RECIPE = find_recipe("features").changed(epochs=2, batch_size=8)
AUDIO = "audio+speech"
WEIGHTS = "model.safetensors"
LOOK = Look(RECIPE.frames, RECIPE.size, speech_steps=5)
BUFFERS = ("mean", "deviation", "weight", "bias")


@pytest.fixture(scope="module")
def corpus(features: Store) -> PreparedCorpus:
    return PreparedCorpus(features)


def run(
    corpus: PreparedCorpus,
    out: Path,
    *,
    resume: bool = False,
    progress: Callable[[Job, Step], None] = lambda job, step: None,
) -> Path:
    jobs = plan([AUDIO], corpus, protocol="nested", recipe=RECIPE, folds=[1])
    return crossval(jobs, corpus, out, accelerator=Accelerator(), resume=resume, progress=progress)[0]


@pytest.fixture(scope="module")
def trained(corpus: PreparedCorpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(corpus, tmp_path_factory.mktemp("runs"))


def built(name: str) -> zoo.Model:
    torch.manual_seed(0)
    return zoo.create_model(name, classes=2, speech_layers=2, speech_width=8)


def heard_by(model: nn.Module) -> Heard:
    (found,) = (module for module in model.modules() if isinstance(module, Heard))
    return found


def fitted(corpus: PreparedCorpus, places: list[int]) -> dict[str, Tensor]:
    """What becomes of the discriminant of a model of sound alone."""
    model = built(AUDIO)
    fit_discriminants(model, corpus.clips(model.reads, LOOK), places)
    return heard_by(model).discriminant.state_dict()


def written(folder: Path) -> dict[str, Tensor]:
    """The discriminant of a checkpoint."""
    weights = load_file(folder / WEIGHTS)
    return {name: weights[f"encoder.stages.0.discriminant.{name}"] for name in BUFFERS}


def alike(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in BUFFERS)


def test_it_is_fitted_to_the_clips_it_is_given_at_every_speed(
    corpus: PreparedCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clip by clip and speed by speed; not in the order of the corpus, and read in several batches."""
    monkeypatch.setattr(discriminants, "BATCH", 3)
    places = [19, 4, 0, 2, 7, 13, 1]
    model = built(AUDIO)
    heard, clips = heard_by(model), corpus.clips(model.reads, LOOK)
    values, labels = [], []
    for place in places:
        states = clips[place].audio
        assert states.shape == (2, 2, 5, 8), "two speeds"
        for states_at_one in states:
            values.append(heard.statistics(states_at_one[None].float())[0])
            labels.append(clips.labels[place])
    expected = Discriminant(48, 2)
    expected.fit(torch.stack(values), torch.tensor(labels))
    found = fitted(corpus, places)
    for name in BUFFERS:
        torch.testing.assert_close(found[name], expected.state_dict()[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["speech", "speech_0.9"])
def test_other_clips_and_speeds(
    corpus: PreparedCorpus, tmp_path: Path, fill_features: Callable[..., Store], name: str
) -> None:
    """Those of actor 5 count if they are given, at each speed, and else not."""
    other = PreparedCorpus(fill_features(tmp_path, changed=(5,), names=(name,)))
    theirs = [place for place, header in enumerate(corpus.headers) if header.actor == 5]
    rest = [place for place in range(len(corpus.headers)) if place not in theirs]
    assert alike(fitted(corpus, rest), fitted(other, rest))
    assert not alike(fitted(corpus, [*rest, *theirs]), fitted(other, [*rest, *theirs]))


@pytest.mark.parametrize("name", ["averaging+openface+speech", "video+openface"])
def test_a_model_of_two_streams_or_without_one_is_left_alone(corpus: PreparedCorpus, name: str) -> None:
    model = built(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fit_discriminants(model, corpus.clips(model.reads, LOOK), range(8))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_a_run_fits_it_to_the_actors_that_train(corpus: PreparedCorpus, trained: Path) -> None:
    """What is selected to the inner training actors, what is refitted to the validation actors too."""
    job = plan([AUDIO], corpus, protocol="nested", recipe=RECIPE, folds=[1])[0]
    for part, units in ((SELECTED, job.fold.train), ("", (*job.fold.train, *job.fold.validation))):
        model = built(AUDIO)
        clips = corpus.clips(model.reads, Look(RECIPE.frames, RECIPE.size, speech_steps=RECIPE.speech_steps))
        fit_discriminants(model, clips, corpus.places("nested", units))
        assert alike(written(trained / part), heard_by(model).discriminant.state_dict()), part
    loaded = cfnsr.load_model(trained)
    assert not heard_by(loaded).discriminant.speaks, "it is one stream's: it has to be silent if it trains"


def test_validation_and_test_clips_do_not_fit_it(
    corpus: PreparedCorpus, trained: Path, tmp_path: Path, fill_features: Callable[..., Store]
) -> None:
    """With others in their place the same weights are selected; the validation clips count in the refit."""
    fold = plan([AUDIO], corpus, protocol="nested", recipe=RECIPE, folds=[1])[0].fold
    for actors, refits_alike in ((fold.test, True), (fold.validation, False)):
        folder = tmp_path / "_".join(map(str, actors))
        changed = tuple(corpus.actors("nested", actors))
        other = run(PreparedCorpus(fill_features(folder / "store", changed=changed)), folder / "runs")
        assert (other / SELECTED / WEIGHTS).read_bytes() == (trained / SELECTED / WEIGHTS).read_bytes()
        assert ((other / WEIGHTS).read_bytes() == (trained / WEIGHTS).read_bytes()) is refits_alike
        assert alike(written(other), written(trained)) is refits_alike


@pytest.mark.parametrize("fatal", [1, 3, 5, 7])
def test_cut_off_and_resumed_it_ends_with_the_same_weights(
    corpus: PreparedCorpus, trained: Path, tmp_path: Path, fatal: int
) -> None:
    """In the first and the second epoch of the selection, and of the refit; two steps an epoch."""
    steps = []

    def progress(job: Job, step: Step) -> None:
        steps.append(step)
        if len(steps) == fatal:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(corpus, tmp_path, progress=progress)
    resumed = run(corpus, tmp_path, resume=True)
    for file in (WEIGHTS, f"{SELECTED}/{WEIGHTS}", "history.jsonl", "predictions.csv"):
        assert (resumed / file).read_bytes() == (trained / file).read_bytes(), file
    assert written(resumed)["weight"].any()
