"""What is fitted in closed form before a training: to whose clips, at which speeds, and once."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import cfnsr
from cfnsr.data.store import Store
from cfnsr.features.base import Look
from cfnsr.models import zoo
from cfnsr.models.encoders.discriminant import Discriminant, ScoredStage
from cfnsr.models.entries import Model
from cfnsr.training import discriminants
from cfnsr.training.config import find_recipe
from cfnsr.training.discriminants import fit_discriminants
from cfnsr.training.fold import SELECTED
from cfnsr.training.job import Job
from cfnsr.training.loop import Step
from cfnsr.training.prepared import PreparedCorpus

RECIPE = find_recipe("features").changed(epochs=2, batch_size=8)
AUDIO, VIDEO = "audio+speech", "video+openface"
WEIGHTS = "model.safetensors"
LOOK = Look(RECIPE.frames, RECIPE.size, openface_steps=3, speech_steps=5)
Train = Callable[..., list[Path]]
BUFFERS = ("mean", "deviation", "directions", "phases", "weight", "bias")


@pytest.fixture(scope="module", params=[AUDIO, VIDEO])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def run(train: Train) -> Train:
    return partial(train, recipe=RECIPE)


@pytest.fixture(scope="module")
def trained(name: str, tracks: PreparedCorpus, run: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tracks, tmp_path_factory.mktemp("runs"), name)[0]


def built(name: str) -> Model:
    torch.manual_seed(0)
    return zoo.create_model(name, classes=2, speech_layers=2, speech_width=8)


def scored(model: nn.Module) -> ScoredStage:
    (found,) = (module for module in model.modules() if isinstance(module, ScoredStage))
    return found


def fitted(name: str, tracks: PreparedCorpus, places: list[int]) -> dict[str, Tensor]:
    """What becomes of the discriminant of a model of one stream."""
    model = built(name)
    fit_discriminants(model, tracks.clips(model.reads, LOOK), places)
    return scored(model).discriminant.state_dict()


def written(folder: Path) -> dict[str, Tensor]:
    """The discriminant of a checkpoint."""
    weights = load_file(folder / WEIGHTS)
    return {name: weights[f"encoder.stages.0.discriminant.{name}"] for name in BUFFERS}


def alike(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in BUFFERS)


PLACES = [19, 4, 0, 2, 7, 13, 1]


def check_fitted(
    name: str, tracks: PreparedCorpus, expected: Discriminant, values: list[Tensor], labels: list[int]
) -> None:
    """Against one that is fitted to these statistics, of the same waves; read in several batches."""
    found = fitted(name, tracks, PLACES)
    expected.load_state_dict(found)
    expected.fit(torch.stack(values), torch.tensor(labels))
    assert found["weight"].any()
    for each in BUFFERS:
        torch.testing.assert_close(found[each], expected.state_dict()[each], atol=1e-5, rtol=1e-4)


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discriminants, "BATCH", 3)


@pytest.mark.usefixtures("small_batches")
def test_that_of_speech_is_fitted_to_the_clips_it_is_given_at_every_speed(tracks: PreparedCorpus) -> None:
    """Clip by clip and speed by speed; not in the order of the tracks."""
    model = built(AUDIO)
    stage, clips = scored(model), tracks.clips(model.reads, LOOK)
    values, labels = [], []
    for place in PLACES:
        states = clips[place].audio
        assert states.shape == (2, 2, 5, 8), "two speeds"
        values += [stage.measure(states_at_one[None].float())[0] for states_at_one in states]
        labels += 2 * [clips.labels[place]]
    check_fitted(AUDIO, tracks, Discriminant(48, 2), values, labels)


@pytest.mark.usefixtures("small_batches")
def test_that_of_faces_is_fitted_to_the_clips_it_is_given(tracks: PreparedCorpus) -> None:
    """To the mean of each action unit over the steps, on a logarithmic scale."""
    clips = tracks.clips(built(VIDEO).reads, LOOK)
    values, labels = [], []
    for place in PLACES:
        track = clips[place].video
        assert track.shape == (35, 3)
        scaled = [[math.copysign(math.log(1 + 3 * abs(v)), v) for v in row] for row in track.tolist()]
        values.append(torch.tensor([sum(row) / 3 for row in scaled]))
        labels.append(clips.labels[place])
    check_fitted(VIDEO, tracks, Discriminant(35, 2, 1000, shrinkage=0.3, deviation=2.0), values, labels)


@pytest.mark.parametrize(("name", "changed"), [(AUDIO, "speech"), (AUDIO, "speech_0.9"), (VIDEO, "openface")])
def test_other_clips_and_speeds(
    tracks: PreparedCorpus, tmp_path: Path, fill_features: Callable[..., Store], name: str, changed: str
) -> None:
    """Those of actor 5 count if they are given, at each speed, and else not."""
    other = PreparedCorpus(fill_features(tmp_path, changed=(5,), names=(changed,)))
    theirs = [place for place, header in enumerate(tracks.headers) if header.actor == 5]
    rest = [place for place in range(len(tracks.headers)) if place not in theirs]
    assert alike(fitted(name, tracks, rest), fitted(name, other, rest))
    assert not alike(fitted(name, tracks, [*rest, *theirs]), fitted(name, other, [*rest, *theirs]))


@pytest.mark.parametrize("name", ["averaging+openface+speech", "video", "audio"])
def test_a_model_of_two_streams_or_without_one_is_left_alone(tracks: PreparedCorpus, name: str) -> None:
    model = built(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fit_discriminants(model, tracks.clips({"video": "openface", "audio": "speech"}, LOOK), range(8))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_a_run_fits_it_to_the_actors_that_train(
    name: str, tracks: PreparedCorpus, trained: Path, job_of: Callable[..., Job]
) -> None:
    """What is selected to the inner training actors, what is refitted to the validation actors too."""
    job = job_of(tracks, name, RECIPE)
    for part, units in ((SELECTED, job.fold.train), ("", (*job.fold.train, *job.fold.validation))):
        model = cfnsr.load_model(trained / part)  # of the same waves
        discriminant = scored(model).discriminant
        discriminant.weight.zero_()
        clips = tracks.clips(model.reads, model.config.look)
        fit_discriminants(model, clips, tracks.places(job.protocol, units))
        assert discriminant.weight.any()
        assert alike(written(trained / part), discriminant.state_dict()), part
    loaded = cfnsr.load_model(trained)
    assert not scored(loaded).discriminant.in_training, "it is one stream's: disabled where it trains"


def test_validation_and_test_clips_do_not_fit_it(
    name: str,
    tracks: PreparedCorpus,
    trained: Path,
    tmp_path: Path,
    run: Train,
    job_of: Callable[..., Job],
    fill_features: Callable[..., Store],
) -> None:
    """With others in their place the same weights are selected; the validation clips count in the refit."""
    job = job_of(tracks, name, RECIPE)
    for actors, refits_alike in ((job.fold.test, True), (job.fold.validation, False)):
        folder = tmp_path / "_".join(map(str, actors))
        changed = fill_features(folder / "store", changed=tuple(tracks.actors(job.protocol, actors)))
        (other,) = run(PreparedCorpus(changed), folder / "runs", name)
        assert (other / SELECTED / WEIGHTS).read_bytes() == (trained / SELECTED / WEIGHTS).read_bytes()
        assert ((other / WEIGHTS).read_bytes() == (trained / WEIGHTS).read_bytes()) is refits_alike
        assert alike(written(other), written(trained)) is refits_alike


@pytest.mark.parametrize(
    ("name", "fatal"), [(AUDIO, 3), (AUDIO, 7), (VIDEO, 1)], indirect=["name"], scope="module"
)
def test_cut_off_and_resumed_it_ends_with_the_same_weights(
    name: str, tracks: PreparedCorpus, trained: Path, tmp_path: Path, run: Train, fatal: int
) -> None:
    """In the first and the second epoch of the selection, and in the refit; two steps an epoch."""
    steps = []

    def progress(job: Job, step: Step) -> None:
        steps.append(step)
        if len(steps) == fatal:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tracks, tmp_path, name, progress=progress)
    (resumed,) = run(tracks, tmp_path, name, resume=True)
    for file in (WEIGHTS, f"{SELECTED}/{WEIGHTS}", "history.jsonl", "predictions.csv"):
        assert (resumed / file).read_bytes() == (trained / file).read_bytes(), file
    assert written(resumed)["weight"].any()
