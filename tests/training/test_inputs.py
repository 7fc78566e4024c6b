"""Batches on their way into a model: speeds, lost modalities, mixed clips, and its answers."""

import pytest
import torch
from torch import Tensor, nn

from cfnsr.data import augment
from cfnsr.data.dataset import Batch
from cfnsr.training.inputs import answer, at_one_speed, drop_modality, mixed, to_input

NOTHING = torch.empty(0)


class Weighing(nn.Module):
    """Log-probabilities that depend on every value of each modality there is."""

    def forward(self, video: Tensor, audio: Tensor) -> Tensor:
        scores = torch.zeros(len(audio), 3)
        for values in (video, audio):
            if len(values) == len(audio):
                scores = scores + torch.stack([values.flatten(1).sum(1) * k for k in (0.1, 0.2, -0.3)], dim=1)
        return scores.log_softmax(dim=1)


def batch_of(video: Tensor, audio: Tensor) -> Batch:
    clips = max(len(video), len(audio))
    return Batch(video, audio, torch.arange(clips) % 3, torch.arange(clips))


@pytest.mark.parametrize("seen", [True, False])
def test_the_answer_is_the_mean_over_the_speeds(seen: bool) -> None:
    torch.manual_seed(0)
    video = torch.randn(4, 5, 2) if seen else NOTHING.expand(4, 0)
    audio = torch.randn(4, 3, 2, 6, 3)
    told = answer(Weighing(), batch_of(video, audio))
    assert told.shape == (4, 3)
    torch.testing.assert_close(told.exp().sum(dim=1), torch.ones(4))
    for clip in range(4):
        rows = [Weighing()(video[clip : clip + 1], audio[clip, speed][None])[0] for speed in range(3)]
        expected = (sum(rows) / 3).log_softmax(dim=0)  # type: ignore[union-attr]
        torch.testing.assert_close(told[clip], expected)


def test_the_answer_of_plain_batches_is_the_models_own() -> None:
    batch = batch_of(torch.randn(2, 5, 2), torch.randn(2, 13, 7))
    assert torch.equal(answer(Weighing(), batch), Weighing()(batch.video, batch.audio))


def test_each_clip_is_heard_at_the_speed_it_drew() -> None:
    audio = torch.randn(4, 3, 2, 5, 3)
    chance = torch.tensor([0.0, 0.34, 0.99, 1.0])
    heard = at_one_speed(batch_of(NOTHING, audio), chance).audio
    assert torch.equal(heard, torch.stack([audio[clip, speed] for clip, speed in enumerate((0, 1, 2, 2))]))
    plain = batch_of(NOTHING, torch.randn(4, 13, 7))
    assert at_one_speed(plain, chance) is plain


def test_clips_are_mixed_with_the_one_beside_them() -> None:
    video = torch.tensor([[[1.0]], [[3.0]], [[5.0]]])
    targets = torch.eye(3)
    share = torch.tensor([0.5, 0.25, 0.0])
    batch, labels = mixed(batch_of(video, NOTHING), targets, share)
    assert batch.video.flatten().tolist() == [0.5 * 1 + 0.5 * 5, 0.75 * 3 + 0.25 * 1, 5.0]
    assert labels.tolist() == [[0.5, 0, 0.5], [0.25, 0.75, 0], [0, 0, 1]]
    assert batch.audio.shape == (0,), "a modality that is not there stays away"


def test_both_modalities_are_mixed_with_the_same_clip() -> None:
    video, audio, share = torch.randn(4, 5, 2), torch.randn(4, 2, 6, 3), torch.rand(4) / 2
    batch, _ = mixed(batch_of(video, audio), torch.eye(4), share)
    for clip in range(4):
        part = share[clip]
        for out, values in ((batch.video, video), (batch.audio, audio)):
            torch.testing.assert_close(out[clip], (1 - part) * values[clip] + part * values[clip - 1])


def test_tracks_and_pictures_are_lost_alike() -> None:
    silence = torch.full((13, 7), 9.0)
    for video in (torch.ones(3, 5, 2), torch.ones(3, 3, 2, 4, 4)):
        out = drop_modality(batch_of(video, torch.zeros(3, 13, 7)), torch.tensor([1, 2, 0]), silence)
        assert out.video.flatten(1).sum(dim=1).tolist() == [0, video[0].numel(), video[0].numel()]
        assert out.audio.flatten(1).mean(dim=1).tolist() == [0, 9, 0]


def test_pictures_are_normalised_and_features_left_alone() -> None:
    pictures = torch.randint(0, 256, (2, 3, 4, 8, 8), dtype=torch.uint8)
    cpu = torch.device("cpu")
    torch.testing.assert_close(to_input(batch_of(pictures, NOTHING), cpu).video, augment.normalise(pictures))
    track, states = torch.randn(2, 35, 4), torch.randn(2, 5, 4, 8).half()
    maps = augment.draw(2, torch.Generator())
    out = to_input(batch_of(track, states), cpu, maps)
    assert torch.equal(out.video, track) and torch.equal(out.audio, states.float())
