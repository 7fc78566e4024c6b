"""Multimodal split attention fusion (Table 1, "MSAF")."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cfnsr.errors import InputError
from cfnsr.models.shapes import AudioMap, Maps, VideoMap


class MSAF(nn.Module):
    """Split both maps into blocks of channels and let all the blocks compete, channel by channel.

    The blocks are added up and averaged over their places to one joint vector as wide as a block. From its
    reduction, each block has one layer that scores the block's channels; the softmax over the blocks of both
    modalities, times their number, gates the map: gates have mean 1, so that trained encoders keep their
    scale. (The source leaves the number out; with 66 blocks its gates have mean 1/66.) Channels that fill
    no whole block are padded with zeros to one.

    Block dropout drops whole blocks of a clip in training, from the joint vector and from the map, and
    scales the rest up. (The released code multiplies by its mask twice, so that its maps are larger in
    training than afterwards; here it is once.)

    Args:
        block: channels of a block (the source on RAVDESS: 16 at 1024 and 32 channels, 32 at 2048 and 64).
        block_dropout: probability that a block is dropped.

    Source: Su et al. 2020, "MSAF: Multimodal split attention fusion", sec. 3, and its released code.

    >>> video, audio = MSAF(1024, 32, block=16).eval()(torch.rand(1, 1024, 4, 14, 14), torch.rand(1, 32, 26))
    >>> video.shape[1:], audio.shape[1:]
    (torch.Size([1024, 4, 14, 14]), torch.Size([32, 26]))
    """

    def __init__(
        self,
        video_channels: int,
        audio_channels: int,
        *,
        block: int,
        reduction: int = 4,
        block_dropout: float = 0.2,
    ) -> None:
        super().__init__()
        if not 1 <= reduction <= block:
            raise InputError(f"block {block} and reduction {reduction}: expected 1 <= reduction <= block")
        if not 0 <= block_dropout < 1:
            raise InputError(f"block_dropout is {block_dropout}: expected 0 or more and less than 1")
        self.block = block
        self.block_dropout = block_dropout
        self.video_blocks = math.ceil(video_channels / block)
        blocks = self.video_blocks + math.ceil(audio_channels / block)
        reduced = block // reduction
        self.joint = nn.Sequential(nn.Linear(block, reduced), nn.BatchNorm1d(reduced), nn.ReLU())
        # The layers of all blocks in one: row n is the layer of block n.
        self.weight = nn.Parameter(torch.empty(blocks, block, reduced))
        self.bias = nn.Parameter(torch.empty(blocks, block))
        for parameter in (self.weight, self.bias):
            nn.init.uniform_(parameter, -(reduced**-0.5), reduced**-0.5)  # as a linear layer begins

    def start_neutral(self) -> None:
        """Let all gates be 1, so that the maps pass on as they came."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def _split(self, averages: Float[Tensor, "B C"]) -> Float[Tensor, "B blocks block"]:
        padded = functional.pad(averages, (0, -averages.shape[1] % self.block))
        return padded.reshape(padded.shape[0], -1, self.block)

    def attention(self, joint: Float[Tensor, "B block"]) -> Float[Tensor, "B blocks block"]:
        """Weight of each block, video's before audio's, in each channel; a channel's weights sum to 1."""
        scores = torch.einsum("br,nkr->bnk", self.joint(joint), self.weight) + self.bias
        weights: Tensor = scores.softmax(dim=1)
        return weights

    def forward(self, video: VideoMap, audio: AudioMap) -> Maps:
        # The mean over places first: it may change places with the sum over blocks, and is small.
        blocks = torch.cat([self._split(video.mean(dim=(2, 3, 4))), self._split(audio.mean(dim=2))], dim=1)
        kept = functional.dropout(torch.ones_like(blocks[:, :, :1]), self.block_dropout, self.training)
        gates = kept * self.attention((blocks * kept).sum(dim=1)) * blocks.shape[1]
        # The gates of the padding are cut off again.
        video_gate = gates[:, : self.video_blocks].flatten(1)[:, : video.shape[1]]
        audio_gate = gates[:, self.video_blocks :].flatten(1)[:, : audio.shape[1]]
        return video * video_gate[:, :, None, None, None], audio * audio_gate[:, :, None]
