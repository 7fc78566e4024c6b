"""Normalisation of uint8 pictures, and augmentation of clips, drawn once an epoch."""

import numpy as np
import torch
from jaxtyping import Float, Int, Num
from torch import Tensor
from torch.nn import functional

# Mean and deviation of RGB pictures in ImageNet, the usual scale of natural pictures.
RGB_MEAN = (0.485, 0.456, 0.406)
RGB_STD = (0.229, 0.224, 0.225)
GREY = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)


def normalise(video: Num[Tensor, "B 3 T H W"]) -> Float[Tensor, "B 3 T H W"]:
    """Normalise pictures for a network: RGB in 0..255 to zero mean and unit deviation.

    >>> normalise(torch.zeros(1, 3, 1, 1, 1, dtype=torch.uint8)).flatten()
    tensor([-2.1179, -2.0357, -1.8044])
    """
    mean, std = (
        torch.tensor(each, device=video.device).view(1, 3, 1, 1, 1) * 255 for each in (RGB_MEAN, RGB_STD)
    )
    return (video - mean) / std


def draw(
    clips: int, generator: torch.Generator, *, smallest: float = 0.85, flip: bool = True
) -> Float[Tensor, "clips 2 3"]:
    """Draw a random square crop and a flip for each clip, as affine maps from output to input places.

    Args:
        smallest: side of a crop at least, as a fraction of the picture's.
        flip: half of the clips.

    >>> draw(2, torch.Generator().manual_seed(0)).shape
    torch.Size([2, 2, 3])
    """
    side, across, down, coin = torch.rand(4, clips, generator=generator)
    side = smallest + (1 - smallest) * side
    maps = torch.zeros(clips, 2, 3)
    maps[:, 0, 0] = side * torch.where(coin < 0.5 * flip, -1.0, 1.0)
    maps[:, 1, 1] = side
    maps[:, 0, 2] = (2 * across - 1) * (1 - side)
    maps[:, 1, 2] = (2 * down - 1) * (1 - side)
    return maps


def draw_dropped(clips: int, rate: float, generator: torch.Generator) -> Int[Tensor, " clips"]:
    """Draw the modality that is dropped from each clip, at a rate: 0 none, 1 video, 2 audio; never both.

    >>> draw_dropped(4, 0.0, torch.Generator().manual_seed(0)).tolist()
    [0, 0, 0, 0]
    """
    chance = torch.rand(clips, generator=generator)
    return (chance < rate).int() + (chance < rate / 2).int()


def draw_mixing_weights(clips: int, alpha: float, generator: torch.Generator) -> Float[Tensor, " clips"]:
    """Draw the fraction of its neighbour that is mixed into each clip: the smaller part of a Beta draw.

    >>> shares = draw_mixing_weights(100, 0.4, torch.Generator().manual_seed(0))
    >>> 0 <= shares.min() and shares.max() <= 0.5
    tensor(True)
    """
    seed = int(torch.randint(2**31, (1,), generator=generator))
    share = torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, clips)).float()
    return torch.minimum(share, 1 - share)


def draw_colours(clips: int, strength: float, generator: torch.Generator) -> Float[Tensor, "clips 3"]:
    """Draw factors of brightness, contrast and saturation of each clip, from 1 - strength to 1 + strength.

    >>> draw_colours(1, 0.0, torch.Generator())
    tensor([[1., 1., 1.]])
    """
    return 1 + strength * (2 * torch.rand(clips, 3, generator=generator) - 1)


def jitter(video: Num[Tensor, "B 3 T H W"], factors: Float[Tensor, "B 3"]) -> Float[Tensor, "B 3 T H W"]:
    """Change brightness, contrast and saturation of pictures in 0..255, the same for all of a clip's frames.

    Contrast is the distance to the clip's mean grey, saturation that of a pixel's colours to its own grey.

    >>> jitter(torch.full((1, 3, 1, 2, 2), 100), torch.tensor([[0.5, 1.0, 1.0]])).unique()
    tensor([50.])
    """
    brightness, contrast, saturation = factors.to(video.device).view(-1, 3, 1, 1, 1, 1).unbind(1)
    weights = torch.tensor(GREY, device=video.device).view(1, 3, 1, 1, 1)
    bright = brightness * video
    mean = (weights * bright).sum(dim=1, keepdim=True).mean(dim=(2, 3, 4), keepdim=True)
    contrasted = mean + contrast * (bright - mean)
    grey = (weights * contrasted).sum(dim=1, keepdim=True)
    return (grey + saturation * (contrasted - grey)).clamp(0, 255)


def mask(
    audio: Float[Tensor, "B F S"],
    drawn: Float[Tensor, "B 2 2"],
    fill: Float[Tensor, "F 1"],
    *,
    time: float,
    frequency: float,
) -> Float[Tensor, "B F S"]:
    """Mask a range of the steps of MFCCs or spectrograms, and a range of their coefficients or bands.

    A range has any width from none to the widest, at any place, all alike likely.

    Args:
        drawn: numbers from 0 to 1 for width and place of each clip's masks, in time and frequency.
        fill: value of what is masked: the mean of the training clips, so that it says nothing. The source
            has 0, the mean of its normalised spectrograms.
        time, frequency: the widest ranges, as fractions of the steps and of the coefficients.

    Source: Park et al. 2019, "SpecAugment", section 2, without its time warping.

    >>> drawn = torch.tensor([[[0.99, 0.0], [0.0, 0.0]]])
    >>> mask(torch.ones(1, 2, 4), drawn, torch.zeros(2, 1), time=0.5, frequency=0)[0]
    tensor([[0., 0., 1., 1.],
            [0., 0., 1., 1.]])
    """
    hidden = torch.zeros(1, 1, 1, dtype=torch.bool, device=audio.device)
    for part, (dim, share) in enumerate(((2, time), (1, frequency))):
        count = audio.shape[dim]
        width = (drawn[:, part, :1] * (int(share * count) + 1)).long()
        first = (drawn[:, part, 1:] * (count - width + 1)).long()
        places = torch.arange(count, device=audio.device)
        hidden = hidden | ((first <= places) & (places < first + width)).unsqueeze(3 - dim)
    return torch.where(hidden, fill, audio)


def apply(video: Float[Tensor, "B 3 T H W"], maps: Float[Tensor, "B 2 3"]) -> Float[Tensor, "B 3 T H W"]:
    """Cut and flip every frame of a clip by that clip's own map, at the size it had.

    >>> flip = torch.tensor([[[-1.0, 0, 0], [0, 1, 0]]])
    >>> apply(torch.arange(3.0).view(1, 1, 1, 1, 3).expand(1, 3, 2, 3, 3), flip)[0, 0, 1, 0]
    tensor([2., 1., 0.])
    """
    frames = video.flatten(1, 2)
    grid = functional.affine_grid(maps.to(video), list(frames.shape), align_corners=False)
    cut = functional.grid_sample(frames, grid, padding_mode="border", align_corners=False)
    return cut.view_as(video)
