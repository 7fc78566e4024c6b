"""What of a fused model that starts from trained encoders still learns, and at which rate."""

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from cfnsr.cli import app
from cfnsr.data.store import Store
from cfnsr.errors import InputError
from cfnsr.models.encoders.discriminant import Discriminant
from cfnsr.models.streams import TwoStream
from cfnsr.training.checkpoint import load_model
from cfnsr.training.config import Recipe, find_recipe
from cfnsr.training.crossval import crossval, plan
from cfnsr.training.fold import begin
from cfnsr.training.loop import Step, Trainer
from cfnsr.training.prepared import PreparedCorpus

RECIPE = find_recipe("features").changed(epochs=1, fused_epochs=2, batch_size=8, refit=False)
SHARE = 0.03  # of the learning rate: 3e-5 of 1e-3
OURS = "cfn_sr_features"
LATE, MSAF, MMTM, NO_RESIDUAL = (
    f"{name}+openface+speech" for name in ("multiplication", "msaf", "mmtm", "cfn_sr_no_residual")
)
STREAMS = ("video+openface", "audio+speech")


@pytest.fixture(scope="module")
def corpus(features: Store) -> PreparedCorpus:
    return PreparedCorpus(features)


@pytest.fixture(scope="module")
def trained(corpus: PreparedCorpus, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The two models of one stream that the others start from."""
    jobs = plan(STREAMS, corpus, protocol="nested", recipe=RECIPE, folds=[1])
    folders = crossval(jobs, corpus, tmp_path_factory.mktemp("runs"), accelerator=Accelerator())
    return dict(zip(STREAMS, folders, strict=True))


def begun(
    name: str, recipe: Recipe, corpus: PreparedCorpus, trained: dict[str, Path] | None, folder: Path
) -> tuple[TwoStream, Trainer]:
    """A model and its training as a fold begins them."""
    job = plan([name], corpus, protocol="nested", recipe=recipe, folds=[1])[-1]
    model, config = begin(job, corpus, trained, Path())
    assert job.model == name and isinstance(model, TwoStream)
    trainer = Trainer(
        model,
        corpus.clips(model.reads, config.look),
        corpus.places("nested", job.fold.train),
        [],
        recipe,
        epochs=job.epochs,
        seed=0,
        folder=folder,
        selected_on="validation",
        accelerator=Accelerator(),
    )
    return model, trainer


def state_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(module: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, value in module.state_dict().items() if not torch.equal(before[name], value)}


def shares(model: nn.Module, trainer: Trainer) -> dict[str, float]:
    """By the name of each parameter that is trained, its share of the learning rate."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = trainer.optimizer.param_groups
    listed = [(names[id(p)], group["share"]) for group in groups for p in group["params"]]
    assert len(dict(listed)) == len(listed), "each stands in one group"
    return dict(listed)


@pytest.mark.parametrize("name", [OURS, LATE, MMTM, MSAF, NO_RESIDUAL])
def test_frozen_encoders_do_not_change(
    name: str, corpus: PreparedCorpus, trained: dict[str, Path], tmp_path: Path
) -> None:
    """Not by the optimiser, nor in what their norms have met; all else learns, in training throughout."""
    model, trainer = begun(name, RECIPE, corpus, trained, tmp_path)
    encoders = model.video, model.audio
    before, everything = [state_of(encoder) for encoder in encoders], state_of(model)
    steps = []

    def progress(step: Step) -> None:
        steps.append(step)
        assert not any(part.training for encoder in encoders for part in encoder.modules())
        assert model.training and all(part.training for part in model.head.modules())
        assert all(part.training for part in model.exchanges.modules())

    trainer.progress = progress
    trainer.fit()
    assert len(steps) == 4
    for encoder, state in zip(encoders, before, strict=True):
        assert not changed(encoder, state)
    kept = ("video.", "audio.", "exchanges.2.attended.surplus")  # the latter is no weight
    rest = {each for each in everything if not each.startswith(kept)}
    assert changed(model, everything) == rest


@pytest.mark.parametrize("name", [OURS, LATE, MMTM])
def test_what_is_taken_over_learns_slowly_and_what_is_new_at_the_full_rate(
    name: str, corpus: PreparedCorpus, trained: dict[str, Path], tmp_path: Path
) -> None:
    model, trainer = begun(name, RECIPE, corpus, trained, tmp_path)
    told = shares(model, trainer)
    assert set(told) == {each for each, _ in model.named_parameters() if each.startswith(("head", "exch"))}
    for each, share in told.items():
        assert share == pytest.approx(SHARE if each.startswith("head.") else 1.0), each
    rates = []

    def progress(step: Step) -> None:
        rates.append({group["share"]: group["lr"] for group in trainer.optimizer.param_groups})

    trainer.progress = progress
    trainer.fit()
    for done, rate in zip((0, 0.25, 0.5, 0.75), rates, strict=True):
        assert set(rate) == set(told.values())
        for share, value in rate.items():
            assert value == pytest.approx(RECIPE.rate(done) * share), done


def test_of_a_head_only_what_is_taken_over_learns_slowly(
    corpus: PreparedCorpus, trained: dict[str, Path], tmp_path: Path
) -> None:
    model, trainer = begun("concat_fc_heads+openface+speech", RECIPE, corpus, trained, tmp_path)
    for each, share in shares(model, trainer).items():
        assert share == pytest.approx(SHARE if each.startswith("head.streams.") else 1.0), each


def test_without_a_rate_of_its_own_it_learns_as_the_rest(
    corpus: PreparedCorpus, trained: dict[str, Path], tmp_path: Path
) -> None:
    recipe = Recipe(**{**RECIPE.as_json(), "fused_learning_rate": None})
    model, trainer = begun(OURS, recipe, corpus, trained, tmp_path)
    assert set(shares(model, trainer).values()) == {1.0}


def test_encoders_that_are_not_to_be_frozen_learn(
    corpus: PreparedCorpus, trained: dict[str, Path], tmp_path: Path
) -> None:
    """Slowly, as all that was trained before; what is solved in closed form stays."""
    model, trainer = begun(OURS, RECIPE.changed(frozen_encoders=False), corpus, trained, tmp_path)
    told = shares(model, trainer)
    assert set(told) == {name for name, _ in model.named_parameters()}
    for each, share in told.items():
        assert share == pytest.approx(1.0 if each.startswith("exchanges.") else SHARE), each
    before = state_of(model)
    trainer.progress = lambda step: _all_in_training(model)
    trainer.fit()
    moved = changed(model, before)
    learning = {name for name in told if name.startswith(("video.", "audio."))}
    norms = {name for name in before if "running" in name}
    assert moved >= learning | norms and norms
    assert not [name for name in moved if "discriminant" in name]


def _all_in_training(model: nn.Module) -> None:
    assert all(part.training for part in model.modules())


def test_what_starts_from_nothing_learns_all_at_the_full_rate(corpus: PreparedCorpus, tmp_path: Path) -> None:
    """There is nothing to freeze, whatever the recipe says, nor a discriminant that would speak."""
    model, trainer = begun(OURS, RECIPE.changed(pretrain=False), corpus, None, tmp_path)
    assert shares(model, trainer) == {name: 1.0 for name, _ in model.named_parameters()}
    assert not any(part.in_training for part in model.modules() if isinstance(part, Discriminant))


@pytest.mark.parametrize("name", [OURS, LATE, MSAF])
@pytest.mark.parametrize("frozen", [True, False])
def test_the_discriminants_speak_where_a_fusion_is_trained(
    name: str, frozen: bool, corpus: PreparedCorpus, trained: dict[str, Path], tmp_path: Path
) -> None:
    """Those of both streams, as they were fitted, so that what is fused learns how far to believe them."""
    recipe = RECIPE.changed(frozen_encoders=frozen)
    model, trainer = begun(name, recipe, corpus, trained, tmp_path)
    told: dict[nn.Module, list[Tensor]] = {}
    for encoder, stream in ((model.video, STREAMS[0]), (model.audio, STREAMS[1])):
        (discriminant,) = (part for part in encoder.modules() if isinstance(part, Discriminant))
        (fitted,) = (part for part in load_model(trained[stream]).modules() if isinstance(part, Discriminant))
        assert discriminant.in_training and discriminant.weight.any()
        assert not changed(discriminant, state_of(fitted))
        told[discriminant] = []
        discriminant.register_forward_hook(lambda module, inputs, scores: told[module].append(scores))
    trainer.fit()
    for scores in told.values():
        assert len(scores) == 4 and all(each.abs().min() > 0 for each in scores)


def test_cut_off_and_resumed_with_frozen_encoders_it_ends_alike(
    corpus: PreparedCorpus, trained: dict[str, Path], tmp_path: Path
) -> None:
    """Cut off in the second epoch: the groups and their shares are found again."""
    undisturbed, trainer = begun(OURS, RECIPE, corpus, trained, tmp_path / "one")
    trainer.fit()
    cut_off = begun(OURS, RECIPE, corpus, trained, tmp_path / "two")[1]

    def progress(step: Step) -> None:
        if step.epoch == 2:
            raise KeyboardInterrupt

    cut_off.progress = progress
    with pytest.raises(KeyboardInterrupt):
        cut_off.fit()
    resumed, trainer = begun(OURS, RECIPE, corpus, trained, tmp_path / "two")
    trainer.fit(resume=True)
    assert not changed(resumed, state_of(undisturbed))
    assert sorted(set(shares(resumed, trainer).values())) == pytest.approx([SHARE, 1])


def test_dropout_of_sound_without_a_silence_is_refused_before_training(
    corpus: PreparedCorpus, tmp_path: Path
) -> None:
    """Not after the encoders were trained: by a whole grid, and by one fold."""
    recipe = RECIPE.changed(modality_dropout=0.1)
    jobs = plan([OURS], corpus, protocol="nested", recipe=recipe, folds=[1])
    message = rf"model {OURS} reads speech; train it without --modality-dropout"
    with pytest.raises(InputError, match=message):
        crossval(jobs, corpus, tmp_path / "runs", accelerator=Accelerator())
    with pytest.raises(InputError, match=message):
        arguments = ["train", OURS, "--data", corpus.store.folder, "--out", tmp_path / "one"]
        settings = ["--preset", "features", "--modality-dropout", 0.1]
        app([str(each) for each in arguments + settings], standalone_mode=False)
    assert not list(tmp_path.rglob("run.json"))
