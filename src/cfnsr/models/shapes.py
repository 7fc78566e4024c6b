"""Shapes inside a model: B clips, C channels, T steps in time, H x W places, S steps of sound."""

from jaxtyping import Float
from torch import Tensor

VideoMap = Float[Tensor, "B C T H W"]
AudioMap = Float[Tensor, "B C2 S"]
Maps = tuple[VideoMap, AudioMap]
Attention = tuple[Float[Tensor, "B T H W"], Float[Tensor, "B S"]]  # weights of places and of steps
Vector = Float[Tensor, "B D"]  # a pooled map
Scores = Float[Tensor, "B classes"]  # log-probabilities, float32 also under mixed precision
