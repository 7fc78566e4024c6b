"""Early fusion by concatenation and a hidden layer (Table 1, "Concat + FC")."""

import torch
from torch import Tensor, nn

from cfnsr.models.heads.late import StreamHeads
from cfnsr.models.shapes import Scores, Vector


class ConcatFC(nn.Module):
    """A hidden layer over the spliced pair, then one linear layer.

    Args:
        hidden: units of the hidden layer; at least two a class.

    >>> round(ConcatFC(2, 3, 8)(torch.rand(1, 2), torch.rand(1, 3)).exp().sum().item(), 5)
    1.0
    """

    early = True  # the modalities meet in it, not in a sum of their scores

    def __init__(self, video_dim: int, audio_dim: int, classes: int, *, hidden: int = 256) -> None:
        super().__init__()
        hidden = max(hidden, 2 * classes)
        self.hidden = nn.Linear(video_dim + audio_dim, hidden)
        self.classify = nn.Linear(hidden, classes)

    def start_from(self, video: nn.Linear, audio: nn.Linear) -> None:
        """Begin as the sum of the scores of two classifiers that were each trained alone.

        Two units a class hold the positive and the negative part of its sum, `x = relu(x) - relu(-x)`; the
        other units begin at random and are not read at first.
        """
        classes = len(video.bias)
        weight = torch.cat([video.weight, audio.weight], dim=1)
        bias = video.bias + audio.bias
        identity = torch.eye(classes).to(weight)
        with torch.no_grad():
            self.hidden.weight[: 2 * classes] = torch.cat([weight, -weight])
            self.hidden.bias[: 2 * classes] = torch.cat([bias, -bias])
            nn.init.zeros_(self.classify.weight)
            self.classify.weight[:, : 2 * classes] = torch.cat([identity, -identity], dim=1)
            nn.init.zeros_(self.classify.bias)

    def score(self, video: Vector, audio: Vector) -> Tensor:
        """Scores of the classes before the softmax, float32 also under mixed precision."""
        scores: Tensor = self.classify(self.hidden(torch.cat([video, audio], dim=1)).relu())
        return scores.float()

    def forward(self, video: Vector, audio: Vector) -> Scores:
        return self.score(video, audio).log_softmax(dim=1)


class ConcatFCHeads(ConcatFC):
    """`ConcatFC` whose scores are added to those of the two streams alone.

    It has 0.03 M parameters more, just those that the paper's 26.87 M have above one hidden layer of 256.

    >>> round(ConcatFCHeads(2, 3, 8)(torch.rand(1, 2), torch.rand(1, 3)).exp().sum().item(), 5)
    1.0
    """

    start_from = None  # type: ignore[assignment]  # the two heads take the trained classifiers

    def __init__(self, video_dim: int, audio_dim: int, classes: int, *, hidden: int = 256) -> None:
        super().__init__(video_dim, audio_dim, classes, hidden=hidden)
        self.streams = StreamHeads(video_dim, audio_dim, classes)

    def start_neutral(self) -> None:
        """Let the hidden layer add nothing at first."""
        for parameter in self.classify.parameters():
            nn.init.zeros_(parameter)

    def forward(self, video: Vector, audio: Vector) -> Scores:
        by_video, by_audio = self.streams(video, audio)
        together: Tensor = self.score(video, audio) + by_video + by_audio
        return together.log_softmax(dim=1)
