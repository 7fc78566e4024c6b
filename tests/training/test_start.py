"""What of a fused model that starts from trained encoders still learns, and at which rate."""

from collections.abc import Callable
from pathlib import Path

import pytest
from accelerate import Accelerator
from torch import Tensor, equal, nn

from cfnsr.cli import app
from cfnsr.errors import InputError
from cfnsr.models.encoders.discriminant import Discriminant
from cfnsr.models.streams import TwoStream
from cfnsr.training.checkpoint import load_model
from cfnsr.training.config import Recipe, find_recipe
from cfnsr.training.fold import initialise
from cfnsr.training.job import Job
from cfnsr.training.loop import Step, Trainer
from cfnsr.training.prepared import PreparedCorpus

RECIPE = find_recipe("features").changed(epochs=1, fused_epochs=2, batch_size=8, refit=False)
THAWED = RECIPE.changed(frozen_encoders=False)
SHARE = 0.03  # of the learning rate: 3e-5 of 1e-3
OURS = "cfn_sr_features"
LATE, MSAF, HEADS = (f"{name}+openface+speech" for name in ("multiplication", "msaf", "concat_fc_heads"))

Begun = Callable[..., tuple[TwoStream, Trainer]]


@pytest.fixture(scope="module")
def trained(
    tracks: PreparedCorpus, train: Callable[..., list[Path]], tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    """The two models of one stream that the others start from."""
    return train(tracks, tmp_path_factory.mktemp("runs"), "video+openface", "audio+speech", recipe=RECIPE)


@pytest.fixture
def begun(tracks: PreparedCorpus, trained: list[Path], job_of: Callable[..., Job], tmp_path: Path) -> Begun:
    """Sets up a model and its training as a fold begins them."""

    def begin(name: str, recipe: Recipe = RECIPE, part: str = "") -> tuple[TwoStream, Trainer]:
        job = job_of(tracks, name, recipe)
        model, spec = initialise(job, tracks, trained if job.encoders else ())
        assert isinstance(model, TwoStream)
        clips, train = tracks.clips(model.reads, spec.look), tracks.places(job.protocol, job.fold.train)
        folder, accelerator = tmp_path / part, Accelerator()
        return model, Trainer(model, job, clips, train, [], folder=folder, accelerator=accelerator)

    return begin


def state_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(module: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, value in module.state_dict().items() if not equal(before[name], value)}


def shares(model: nn.Module, trainer: Trainer) -> dict[str, float]:
    """By the name of each parameter that is trained, its share of the learning rate."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = trainer.optimizer.param_groups
    listed = [(names[id(p)], group["share"]) for group in groups for p in group["params"]]
    assert len(dict(listed)) == len(listed), "each stands in one group"
    return dict(listed)


@pytest.mark.parametrize(
    ("name", "recipe", "learning", "slow"),
    [
        (OURS, RECIPE, ("head", "exchanges"), ("head.",)),
        (LATE, RECIPE, ("head", "exchanges"), ("head.",)),
        # Of a head what is taken over alone.
        (HEADS, RECIPE, ("head",), ("head.streams.",)),
        # Without a rate of its own it learns as the rest.
        (OURS, Recipe(**{**RECIPE.as_json(), "fused_learning_rate": None}), ("head", "exchanges"), ()),
        (OURS, THAWED, ("",), ("video.", "audio.", "head.")),
        # There is nothing to freeze where nothing is taken over, whatever the recipe says.
        (OURS, RECIPE.changed(pretrain=False), ("",), ()),
    ],
)
def test_what_is_taken_over_learns_slowly_and_what_is_new_at_the_full_rate(
    name: str, recipe: Recipe, learning: tuple[str, ...], slow: tuple[str, ...], begun: Begun
) -> None:
    model, trainer = begun(name, recipe)
    found = shares(model, trainer)
    assert set(found) == {each for each, _ in model.named_parameters() if each.startswith(learning)}
    for each, share in found.items():
        assert share == pytest.approx(SHARE if each.startswith(slow) else 1.0), each
    enabled = [part.in_training for part in model.modules() if isinstance(part, Discriminant)]
    assert enabled == 2 * [recipe.pretrain]


def test_the_rates_follow_the_schedule(begun: Begun) -> None:
    _, trainer = begun(OURS)
    rates = []

    def progress(step: Step) -> None:
        rates.append({group["share"]: group["lr"] for group in trainer.optimizer.param_groups})

    trainer.progress = progress
    trainer.fit()
    for done, rate in zip((0, 0.25, 0.5, 0.75), rates, strict=True):
        assert len(rate) == 2
        for share, value in rate.items():
            assert value == pytest.approx(RECIPE.rate(done) * share), done


@pytest.mark.parametrize("name", [OURS, LATE, MSAF])
def test_frozen_encoders_do_not_change(name: str, begun: Begun) -> None:
    """Not by the optimiser, nor in what their norms have met; all else learns, in training throughout."""
    model, trainer = begun(name)
    before, steps = state_of(model), []

    def progress(step: Step) -> None:
        steps.append(step)
        assert not any(part.training for each in (model.video, model.audio) for part in each.modules())
        assert model.training and all(part.training for part in model.head.modules())
        assert all(part.training for part in model.exchanges.modules())

    trainer.progress = progress
    trainer.fit()
    assert len(steps) == 4
    kept = ("video.", "audio.", "exchanges.2.attended.surplus")  # the latter is no weight
    assert changed(model, before) == {each for each in before if not each.startswith(kept)}


def test_encoders_that_are_not_to_be_frozen_learn(begun: Begun) -> None:
    """As all that was trained before; what is solved in closed form stays."""
    model, trainer = begun(OURS, THAWED)
    before = state_of(model)

    def progress(step: Step) -> None:
        assert all(part.training for part in model.modules())

    trainer.progress = progress
    trainer.fit()
    moved = changed(model, before)
    learning = {name for name in shares(model, trainer) if name.startswith(("video.", "audio."))}
    norms = {name for name in before if "running" in name}
    assert moved >= learning | norms and norms
    assert not [name for name in moved if "discriminant" in name]


@pytest.mark.parametrize(("name", "recipe"), [(OURS, RECIPE), (LATE, THAWED), (MSAF, RECIPE)])
def test_the_discriminants_are_enabled_where_a_fusion_is_trained(
    name: str, recipe: Recipe, begun: Begun, trained: list[Path]
) -> None:
    """Those of both streams, as they were fitted, so that what is fused learns how far to believe them."""
    model, trainer = begun(name, recipe)
    scored: dict[nn.Module, list[Tensor]] = {}
    for encoder, stream in zip((model.video, model.audio), trained, strict=True):
        (discriminant,) = (part for part in encoder.modules() if isinstance(part, Discriminant))
        (fitted,) = (part for part in load_model(stream).modules() if isinstance(part, Discriminant))
        assert discriminant.in_training and discriminant.weight.any()
        assert not changed(discriminant, state_of(fitted))
        scored[discriminant] = []
        discriminant.register_forward_hook(lambda module, inputs, scores: scored[module].append(scores))
    trainer.fit()
    for scores in scored.values():
        assert len(scores) == 4 and all(each.abs().min() > 0 for each in scores)


def test_cut_off_and_resumed_with_frozen_encoders_it_ends_alike(begun: Begun) -> None:
    """Cut off in the second epoch: the groups and their shares are found again."""
    undisturbed, trainer = begun(OURS, part="one")
    trainer.fit()
    cut_off = begun(OURS, part="two")[1]

    def progress(step: Step) -> None:
        if step.epoch == 2:
            raise KeyboardInterrupt

    cut_off.progress = progress
    with pytest.raises(KeyboardInterrupt):
        cut_off.fit()
    resumed, trainer = begun(OURS, part="two")
    trainer.fit(resume=True)
    assert not changed(resumed, state_of(undisturbed))
    assert sorted(set(shares(resumed, trainer).values())) == pytest.approx([SHARE, 1])


def test_dropout_of_sound_without_a_silence_is_refused_before_training(
    tracks: PreparedCorpus, train: Callable[..., list[Path]], tmp_path: Path
) -> None:
    """Not after the encoders were trained: by a whole grid, and by one fold."""
    message = rf"model {OURS} reads speech; train it without --modality-dropout"
    with pytest.raises(InputError, match=message):
        train(tracks, tmp_path / "runs", OURS, recipe=RECIPE.changed(modality_dropout=0.1))
    arguments = ["train", OURS, "--data", tracks.store.folder, "--out", tmp_path / "one"]
    settings = ["--preset", "features", "--modality-dropout", 0.1]
    with pytest.raises(InputError, match=message):
        app([str(each) for each in arguments + settings], standalone_mode=False)
    assert not list(tmp_path.rglob("run.json"))
