"""The audit of the exchange, against the maps and vectors computed one clip at a time."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cfnsr.data.dataset import Batch
from cfnsr.features.base import Look
from cfnsr.models import zoo
from cfnsr.models.entries import ENTRIES
from cfnsr.models.streams import TwoStream
from cfnsr.training.config import find_recipe
from cfnsr.training.interaction import (
    OTHER_AUDIO,
    OTHER_VIDEO,
    WITHOUT,
    beside,
    disturbances,
    disturbed,
    entropies,
    pooled,
)
from cfnsr.training.job import Job
from cfnsr.training.prepared import PreparedCorpus

EVERY = (WITHOUT, OTHER_AUDIO, OTHER_VIDEO)
RECIPE = find_recipe("features").changed(epochs=1, batch_size=8, refit=False)


def made(name: str) -> TwoStream:
    torch.manual_seed(0)
    model = zoo.create_model(f"{name}+openface+speech", speech_layers=2, speech_width=8).eval()
    assert isinstance(model, TwoStream)
    return model


def clips(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    track = 3 * torch.rand(count, 35, 4, generator=generator)
    return track, 3 * torch.randn(count, 2, 5, 8, generator=generator)


def stages(model: TwoStream, video: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
    """The maps before the last exchange, of a model that has no other."""
    for seen, heard in zip(model.video.stages, model.audio.stages, strict=True):  # type: ignore[arg-type]
        video, audio = seen(video), heard(audio)
    return video, audio


def answer(model: TwoStream, video: Tensor, audio: Tensor) -> Tensor:
    told: Tensor = model.head(model.video.pool(video), model.audio.pool(audio))  # type: ignore[operator]
    return told


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("multiplication", ()),
        ("cfn_sr_no_cross_modal", ()),
        ("concat_fc", (WITHOUT,)),
        ("mcbp", (WITHOUT,)),
        ("mmtm", EVERY),
        ("msaf", EVERY),
        ("cfn_sr", EVERY),
    ],
)
def test_only_where_modalities_meet_can_it_be_disturbed(name: str, expected: tuple[str, ...]) -> None:
    assert disturbances(made(name)) == expected
    assert disturbances(zoo.create_model("video+openface")) == ()


FUSED = [name for name, entry in ENTRIES.items() if entry.fusion != "none" and not entry.fixed]


@pytest.mark.parametrize("name", FUSED)
@torch.no_grad()
def test_every_row_can_be_audited(name: str) -> None:
    """Only a block that weighs the places of a map has weights to be noted."""
    model, inputs = made(name), clips(4)
    with pooled(model) as vectors:
        model(*inputs)
    for how in disturbances(model):
        with disturbed(model, how, vectors), entropies(model) as noted:
            found = model(*inputs)
        torch.testing.assert_close(found.exp().sum(dim=1), torch.ones(4))
        blocks = name.startswith("cfn_sr")
        assert [each.shape for each in noted] == [torch.Size([4])] * blocks


@pytest.mark.parametrize("name", ["cfn_sr", "cfn_sr_video_to_audio", "cfn_sr_map"])
@torch.no_grad()
def test_the_exchange_alone_is_disturbed(name: str) -> None:
    model = made(name)
    video, audio = clips(6)
    block = model.exchanges[2]
    both = stages(model, video, audio)
    own, others = [each[:3] for each in both], [each[3:] for each in both]
    with disturbed(model, WITHOUT):
        torch.testing.assert_close(model(video, audio), answer(model, *block.uniform(*both)))  # type: ignore[operator]
    with disturbed(model, OTHER_AUDIO):
        expected = answer(model, block.forward(own[0], others[1])[0], block.forward(*own)[1])
        torch.testing.assert_close(model(video, audio)[:3], expected)
    with disturbed(model, OTHER_VIDEO):
        expected = answer(model, block.forward(*own)[0], block.forward(others[0], own[1])[1])
        torch.testing.assert_close(model(video, audio)[:3], expected)
    torch.testing.assert_close(model(video, audio), answer(model, *block(*both)))


@torch.no_grad()
def test_an_exchange_without_uniform_weights_is_passed_by() -> None:
    model, inputs = made("mmtm"), clips(4)
    with disturbed(model, WITHOUT):
        without = model(*inputs)
    torch.testing.assert_close(without, answer(model, *stages(model, *inputs)))
    assert not torch.allclose(without, model(*inputs), atol=1e-4)


@pytest.mark.parametrize("name", ["concat_fc", "concat_fc_heads", "mcbp"])
@torch.no_grad()
def test_an_early_head_becomes_the_nearest_sum(name: str) -> None:
    """Two-way analysis of variance, entry by entry: grand mean and the two main effects; in any batches."""
    model, (video, audio) = made(name), clips(4)
    vectors = [
        encoder.pool(each)  # type: ignore[operator]
        for encoder, each in zip((model.video, model.audio), stages(model, video, audio), strict=True)
    ]
    with pooled(model) as listed:
        model(video[:1], audio[:1]), model(video[1:], audio[1:])
    for modality, expected in enumerate(vectors):
        torch.testing.assert_close(torch.cat([pair[modality] for pair in listed]), expected)
    with disturbed(model, WITHOUT, listed):
        found = torch.cat([model(video[:3], audio[:3]), model(video[3:], audio[3:])])
    scores = torch.stack(
        [torch.stack([model.head(v[None], a[None])[0] for a in vectors[1]]) for v in vectors[0]]
    )
    for clip in range(4):
        sums = scores[clip].mean(dim=0) + scores[:, clip].mean(dim=0) - scores.mean(dim=(0, 1))
        torch.testing.assert_close(found[clip], sums.log_softmax(dim=0), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_sum_of_scores_is_its_own_nearest_sum() -> None:
    model, inputs = made("concat_fc"), clips(4)
    alone = [nn.Linear(width, 8) for width in (136, 136)]
    model.head.start_from(*alone)  # type: ignore[operator]
    with pooled(model) as vectors:
        model(*inputs)
    with disturbed(model, WITHOUT, vectors):
        without = model(*inputs)
    torch.testing.assert_close(without, model(*inputs), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_entropy_is_one_where_weights_are_uniform() -> None:
    model, inputs = made("cfn_sr"), clips(3)
    block = model.exchanges[2]
    with entropies(model) as noted:
        model(*inputs)
    weights = block.weights(*stages(model, *inputs)).flatten(1).double()  # type: ignore[operator]
    expected = [-sum(w * torch.log(w) for w in each) / torch.log(torch.tensor(140.0)) for each in weights]
    torch.testing.assert_close(torch.cat(noted), torch.stack(expected))
    nn.init.zeros_(block.agreement.score.weight)  # type: ignore[union-attr, arg-type]
    with entropies(model) as noted:
        model(*inputs)
    torch.testing.assert_close(torch.cat(noted), torch.ones(3, dtype=torch.float64))
    nn.init.constant_(block.agreement.score.weight, 1000)  # type: ignore[union-attr, arg-type]
    with entropies(model) as noted:
        model(*inputs)
    assert torch.cat(noted).max() < 0.5


def test_the_others_stand_behind_the_batch(tracks: PreparedCorpus, job_of: Callable[..., Job]) -> None:
    job = job_of(tracks, "cfn_sr_features", RECIPE)
    places = tracks.places(job.protocol, job.fold.test)
    held = tracks.clips({"video": "openface", "audio": "speech"}, Look(8, 64))
    batch = Batch(*map(torch.stack, zip(*(held[place] for place in places[:2]), strict=True)))
    double = beside(held, places)(batch)
    for at, place in enumerate(places[:2]):
        (other,) = (each for each in places if torch.equal(double.video[2 + at], held[each].video))
        assert held.labels[other] != held.labels[place]
        assert torch.equal(double.video[at], held[place].video)
        assert torch.equal(double.audio[2 + at], held[other].audio)
    assert torch.equal(double.label, batch.label)
    again = beside(held, places)(batch)
    assert torch.equal(again.video, double.video), "the lot is always the same"
    alike = [place for place in places if held.labels[place] == held.labels[places[0]]]
    assert beside(held, alike)(batch._replace(place=torch.tensor(alike[:2]))).video.shape[0] == 4


def test_a_run_has_its_audit(
    tracks: PreparedCorpus,
    tmp_path: Path,
    train: Callable[..., list[Path]],
    rows: Callable[..., list[dict[str, str]]],
) -> None:
    expected: dict[str, tuple[str, ...]] = {
        "cfn_sr_features": EVERY,
        "concat_fc+openface+speech": (WITHOUT,),
        "averaging+openface+speech": (),
    }
    folders = {each.parents[1].name: each for each in train(tracks, tmp_path, *expected, recipe=RECIPE)}
    for name, hows in expected.items():
        folder, path = folders[name], folders[name] / "interaction.csv"
        tested = [row["clip"] for row in rows(folder / "predictions.csv", "test")]
        assert path.exists() == bool(hows)
        audited = [(row["condition"], row["clip"]) for row in (rows(path) if hows else [])]
        assert audited == [(how, clip) for how in hows for clip in tested]
        entropy = json.loads((folder / "run.json").read_text())["attention_entropy"]
        assert (entropy is not None) == (name == "cfn_sr_features")
        assert entropy is None or 0 < entropy <= 1
