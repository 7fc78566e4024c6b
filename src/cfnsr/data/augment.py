"""From uint8 pictures to the network's input, with one random crop and flip a clip; dropped modalities."""

import numpy as np
import torch
from jaxtyping import Float, Int, Num
from torch import Tensor
from torch.nn import functional

# Mean and deviation of RGB pictures in ImageNet, the usual scale of natural pictures.
RGB_MEAN = (0.485, 0.456, 0.406)
RGB_STD = (0.229, 0.224, 0.225)
SMALLEST_CROP = 0.85  # side of the random crop, as a share of the picture's


def normalise(video: Num[Tensor, "B 3 T H W"]) -> Float[Tensor, "B 3 T H W"]:
    """Pictures as the network takes them: RGB in 0..255 to zero mean and unit deviation.

    >>> normalise(torch.zeros(1, 3, 1, 1, 1, dtype=torch.uint8)).flatten()
    tensor([-2.1179, -2.0357, -1.8044])
    """
    mean = torch.tensor(RGB_MEAN, device=video.device).view(1, 3, 1, 1, 1) * 255
    std = torch.tensor(RGB_STD, device=video.device).view(1, 3, 1, 1, 1) * 255
    return (video - mean) / std


def draw(clips: int, generator: torch.Generator) -> Float[Tensor, "clips 2 3"]:
    """A random square crop and a coin's flip for each clip, as affine maps from output to input places.

    Drawn for a whole epoch at once and indexed by clip, so that a clip's augmentation depends neither on
    the batch it falls into nor on who loads it.

    >>> draw(2, torch.Generator().manual_seed(0)).shape
    torch.Size([2, 2, 3])
    """
    side, across, down, coin = torch.rand(4, clips, generator=generator)
    side = SMALLEST_CROP + (1 - SMALLEST_CROP) * side
    maps = torch.zeros(clips, 2, 3)
    maps[:, 0, 0] = side * torch.where(coin < 0.5, -1.0, 1.0)
    maps[:, 1, 1] = side
    maps[:, 0, 2] = (2 * across - 1) * (1 - side)
    maps[:, 1, 2] = (2 * down - 1) * (1 - side)
    return maps


def draw_losses(clips: int, rate: float, generator: torch.Generator) -> Int[Tensor, " clips"]:
    """Which modality each clip loses in this epoch: 0 none, 1 video, 2 audio; never both.

    Args:
        rate: probability that a clip loses one.

    >>> draw_losses(4, 0.0, torch.Generator().manual_seed(0)).tolist()
    [0, 0, 0, 0]
    """
    chance = torch.rand(clips, generator=generator)
    return (chance < rate).int() + (chance < rate / 2).int()


def draw_shares(clips: int, alpha: float, generator: torch.Generator) -> Float[Tensor, " clips"]:
    """How much of its neighbour is mixed into each clip: the smaller part of a draw of Beta(alpha, alpha).

    >>> shares = draw_shares(100, 0.4, torch.Generator().manual_seed(0))
    >>> 0 <= shares.min() and shares.max() <= 0.5
    tensor(True)
    """
    seed = int(torch.randint(2**31, (1,), generator=generator))
    share = torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, clips)).float()
    return torch.minimum(share, 1 - share)


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
