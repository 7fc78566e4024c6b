"""The head of CFN-SR: one linear layer over the spliced pair (section 2.4, eq. 9)."""

import torch
from torch import Tensor, nn

from cfnsr.models.shapes import Scores, Vector


class Concat(nn.Module):
    """Splice the two pooled vectors and classify them with one linear layer (eq. 9).

    >>> round(Concat(2, 3, 8)(torch.rand(1, 2), torch.rand(1, 3)).exp().sum().item(), 5)
    1.0
    """

    def __init__(self, video_dim: int, audio_dim: int, classes: int) -> None:
        super().__init__()
        self.classify = nn.Linear(video_dim + audio_dim, classes)

    def start_from(self, video: nn.Linear, audio: nn.Linear) -> None:
        """Begin as the sum of the scores of two classifiers that were each trained alone."""
        with torch.no_grad():
            self.classify.weight.copy_(torch.cat([video.weight, audio.weight], dim=1))
            self.classify.bias.copy_(video.bias + audio.bias)

    def forward(self, video: Vector, audio: Vector) -> Scores:
        scores: Tensor = self.classify(torch.cat([video, audio], dim=1))
        return scores.float().log_softmax(dim=1)


class FreshConcat(Concat):
    """`Concat` whose classifier begins at random behind trained encoders too, as in the released code."""

    start_from = None  # type: ignore[assignment]
