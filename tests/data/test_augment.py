"""Augmentation: one crop and flip a clip, the same for all its frames, whoever its neighbours are."""

import torch

from cfnsr.data import augment


def maps(clips: int, seed: int = 0) -> torch.Tensor:
    return augment.draw(clips, torch.Generator().manual_seed(seed))


def test_normalisation_against_its_formula() -> None:
    video = torch.randint(0, 256, (2, 3, 4, 5, 5), dtype=torch.uint8)
    out = augment.normalise(video)
    for channel, (mean, std) in enumerate(zip(augment.RGB_MEAN, augment.RGB_STD, strict=True)):
        expected = (video[:, channel].double() / 255 - mean) / std
        torch.testing.assert_close(out[:, channel].double(), expected, atol=1e-5, rtol=1e-5)


def test_every_frame_of_a_clip_moves_alike() -> None:
    picture = torch.rand(3, 3, 1, 16, 16)
    video = picture.expand(3, 3, 6, 16, 16).contiguous()
    out = augment.apply(video, maps(3))
    for frame in range(1, 6):
        assert torch.equal(out[:, :, frame], out[:, :, 0])
    assert not torch.allclose(out, video)


def test_a_clip_does_not_depend_on_its_neighbours() -> None:
    video, drawn = torch.rand(4, 3, 2, 16, 16), maps(4)
    together = augment.apply(video, drawn)
    for clip in range(4):
        alone = augment.apply(video[clip : clip + 1], drawn[clip : clip + 1])
        torch.testing.assert_close(together[clip : clip + 1], alone)


def test_clips_are_drawn_apart_and_seeds_repeat() -> None:
    drawn = maps(1000)
    assert len(drawn[:, 0, 2].unique()) > 990
    assert torch.equal(drawn, maps(1000)) and not torch.equal(drawn, maps(1000, seed=1))
    flipped = (drawn[:, 0, 0] < 0).float().mean()
    assert 0.45 < flipped < 0.55
    side = drawn[:, 1, 1]
    assert side.min() >= augment.SMALLEST_CROP and side.max() <= 1


def test_a_crop_stays_inside_the_picture() -> None:
    drawn = maps(1000)
    reach = drawn[:, :, :2].abs().sum(2) + drawn[:, :, 2].abs()
    assert reach.max() <= 1 + 1e-6


def test_no_change_and_a_plain_crop() -> None:
    video = torch.arange(64.0).view(1, 1, 1, 8, 8).expand(1, 3, 2, 8, 8)
    same = torch.tensor([[[1.0, 0, 0], [0, 1, 0]]])
    torch.testing.assert_close(augment.apply(video, same), video)
    # Half the side, moved into the upper left corner: 4 x 4 pixels seen at 8 x 8.
    corner = torch.tensor([[[0.5, 0, -0.5], [0, 0.5, -0.5]]])
    out = augment.apply(video, corner)
    assert out.min() >= 0 and out.max() <= 27.0 + 4.5  # the corner's last pixel is 27; its border blends on
