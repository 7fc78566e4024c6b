"""The audio encoder: a 1D CNN over MFCCs (section 2.1, eqs. 1-3)."""

from jaxtyping import Float
from torch import Tensor, nn

from cfnsr.errors import InputError
from cfnsr.models.streams import Encoder

MFCC_COEFFICIENTS = 13
CHANNELS = (32, 32, 64)
POOLING = 8


class AudioCNN(Encoder):
    """Two convolutions, a pooling over 8 steps and a third convolution; the map is flattened (eqs. 1-3).

    Args:
        steps: MFCC columns a clip has. The flattened vector has one place for each pooled column, so the
            network serves this length alone; 212 columns (2.45 s) give 64 x 26 = 1664 places.

    >>> import torch
    >>> encoder = AudioCNN()
    >>> audio = torch.rand(2, 13, 212)
    >>> for stage in encoder.stages:
    ...     audio = stage(audio)
    >>> audio.shape, encoder.pool(audio).shape
    (torch.Size([2, 64, 26]), torch.Size([2, 1664]))
    """

    reads = "audio"

    def __init__(self, steps: int = 212) -> None:
        super().__init__()
        pooled = (steps - 2 * 2) // POOLING  # kernel 7, padding 2: each convolution takes two steps
        if pooled < 1:
            raise InputError(
                f"mfcc_steps is {steps}: expected at least {POOLING + 4} MFCC columns (hop 512 at 44.1 kHz)"
            )
        first, second, third = CHANNELS
        self.shape = MFCC_COEFFICIENTS, steps
        self.expected = (
            f"MFCCs of shape (B, {MFCC_COEFFICIENTS}, {steps}); another length needs a model made for it, "
            "create_model(..., mfcc_steps=...)"
        )
        self.channels = CHANNELS
        self.dim = third * pooled
        self.stages = nn.ModuleList(
            [
                nn.Sequential(
                    nn.Conv1d(MFCC_COEFFICIENTS, first, 7, padding=2), nn.ReLU(), nn.BatchNorm1d(first)
                ),
                # MSAF's released code exchanges before the pooling, so the second stage ends there.
                nn.Sequential(nn.Conv1d(first, second, 7, padding=2), nn.ReLU()),
                nn.Sequential(
                    nn.MaxPool1d(POOLING),
                    nn.BatchNorm1d(second),
                    nn.Dropout(0.2),
                    nn.Conv1d(second, third, 5, padding=2),
                    nn.ReLU(),
                    nn.BatchNorm1d(third),
                ),
            ]
        )
        self.dropout = nn.Dropout(0.4)

    def pool(self, audio: Float[Tensor, "B C S"]) -> Float[Tensor, "B dim"]:
        """Flatten the whole map to one vector, with dropout in training; nothing is averaged away (eq. 3)."""
        flat: Tensor = self.dropout(audio.flatten(1))
        return flat
