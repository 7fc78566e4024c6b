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
    assert side.min() >= 0.85 and side.max() <= 1


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


def test_without_a_flip_or_a_crop() -> None:
    plain = augment.draw(1000, torch.Generator().manual_seed(0), smallest=0.5, flip=False)
    assert plain[:, 0, 0].min() >= 0.5 and torch.equal(plain[:, 0, 0], plain[:, 1, 1])
    whole = augment.draw(1000, torch.Generator().manual_seed(0), smallest=1.0, flip=False)
    assert torch.equal(whole, torch.eye(2, 3).expand(1000, 2, 3))


def test_colours_by_hand() -> None:
    """Red of 200 everywhere: half as bright 100, its grey 29.9, half the contrast around that, then 1.5."""
    red = torch.tensor([200.0, 0, 0]).view(1, 3, 1, 1, 1).expand(1, 3, 2, 4, 4)
    out = augment.jitter(red, torch.tensor([[0.5, 0.5, 1.5]]))
    for channel, expected in enumerate((82.475, 7.475, 7.475)):
        assert torch.allclose(out[:, channel], torch.tensor(expected), atol=1e-3)
    assert augment.jitter(red, torch.tensor([[1.5, 1.0, 1.0]])).max() == 255


def test_colours_pixel_by_pixel() -> None:
    video = torch.randint(0, 256, (2, 3, 2, 3, 4), dtype=torch.uint8)
    factors = augment.draw_colours(2, 0.5, torch.Generator().manual_seed(0))
    out = augment.jitter(video, factors)

    def grey(red: float, green: float, blue: float) -> float:
        return 0.299 * red + 0.587 * green + 0.114 * blue

    for clip, (brightness, contrast, saturation) in enumerate(factors.tolist()):
        pixels = video[clip].flatten(1).T.tolist()
        mean = sum(grey(*(brightness * value for value in pixel)) for pixel in pixels) / len(pixels)
        for place, pixel in enumerate(pixels):
            seen = [mean + contrast * (brightness * value - mean) for value in pixel]
            expected = [grey(*seen) + saturation * (value - grey(*seen)) for value in seen]
            expected = [min(max(value, 0.0), 255.0) for value in expected]
            torch.testing.assert_close(
                out[clip].flatten(1)[:, place], torch.tensor(expected), atol=1e-2, rtol=0
            )


def test_colours_of_a_clip_are_its_own_and_ones_change_nothing() -> None:
    video = torch.randint(0, 256, (4, 3, 2, 8, 8), dtype=torch.uint8)
    ones = augment.draw_colours(4, 0.0, torch.Generator())
    torch.testing.assert_close(augment.jitter(video, ones), video.float(), atol=1e-3, rtol=0)
    drawn = augment.draw_colours(4, 0.3, torch.Generator().manual_seed(1))
    together = augment.jitter(video, drawn)
    for clip in range(4):
        alone = augment.jitter(video[clip : clip + 1], drawn[clip : clip + 1])
        torch.testing.assert_close(together[clip : clip + 1], alone, atol=1e-3, rtol=0)
    many = augment.draw_colours(10_000, 0.3, torch.Generator().manual_seed(1))
    assert 0.7 <= many.min() < 0.701 and 1.299 < many.max() <= 1.3
    assert (many.mean(dim=0) - 1).abs().max() < 0.01


def test_masks_cell_by_cell() -> None:
    audio, fill = torch.randn(50, 13, 20), torch.arange(13.0)[:, None]
    drawn = torch.rand(50, 2, 2, generator=torch.Generator().manual_seed(0))
    out = augment.mask(audio, drawn, fill, time=0.3, frequency=0.25)
    for clip in range(50):
        spans = []
        for (wide, where), count, widest in zip(drawn[clip].tolist(), (20, 13), (6, 3), strict=True):
            width = int(wide * (widest + 1))
            first = int(where * (count - width + 1))
            spans.append(range(first, first + width))
        for row in range(13):
            for step in range(20):
                hidden = step in spans[0] or row in spans[1]
                assert out[clip, row, step] == (fill[row, 0] if hidden else audio[clip, row, step])


def test_masks_of_no_width_change_nothing_and_all_widths_are_alike() -> None:
    audio = torch.ones(8000, 10, 10)
    drawn = torch.rand(8000, 2, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(augment.mask(audio, drawn, torch.zeros(10, 1), time=0, frequency=0.05), audio)
    out = augment.mask(audio, drawn, torch.zeros(10, 1), time=0.3, frequency=0)
    widths = (out == 0).all(dim=1).sum(dim=1)
    assert torch.equal((out == 0).any(dim=1).sum(dim=1), widths)
    shares = torch.bincount(widths, minlength=4) / 8000
    assert len(shares) == 4 and (shares - 0.25).abs().max() < 0.02
    alone = augment.mask(audio[5:6], drawn[5:6], torch.zeros(10, 1), time=0.3, frequency=0)
    assert torch.equal(alone, out[5:6])


def test_video_and_audio_are_dropped_alike() -> None:
    dropped = augment.draw_dropped(20_000, 0.3, torch.Generator().manual_seed(0))
    parts = torch.bincount(dropped, minlength=3) / len(dropped)
    torch.testing.assert_close(parts, torch.tensor([0.7, 0.15, 0.15]), atol=0.01, rtol=0)
