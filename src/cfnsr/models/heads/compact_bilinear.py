"""Early fusion by multimodal compact bilinear pooling (Table 1, "MCBP")."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cfnsr.errors import InputError
from cfnsr.models.heads.late import StreamHeads
from cfnsr.models.shapes import Scores, Vector

SEED = 0
# The slopes of a root and of a normalisation have no bound at 0. Products of features are near 1.
LEAST_PRODUCT = 1e-6
LEAST_NORM = 1e-3


class CountSketch(nn.Module):
    """A vector hashed into another width: each entry is added, with a random sign, to one random place.

    `y[places[i]] += signs[i] x[i]`. Inner products are kept on average, and the sketch of an outer product
    is the circular convolution of the two sketches (Pham & Pagh 2013). Places and signs are drawn once and
    kept with the weights.

    Args:
        generator: where places and signs are drawn from.

    >>> sketch = CountSketch(3, 2, torch.Generator().manual_seed(0))
    >>> sketch.places, sketch.signs = torch.tensor([0, 1, 0]), torch.tensor([1.0, -1.0, -1.0])
    >>> sketch(torch.tensor([[5.0, 6.0, 7.0]]))
    tensor([[-2., -6.]])
    """

    def __init__(self, dim: int, sketch_dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.sketch_dim = sketch_dim
        device = torch.get_default_device()  # a generator of the CPU draws the same numbers for all devices
        places = torch.randint(sketch_dim, (dim,), generator=generator, device="cpu")
        signs = 2.0 * torch.randint(2, (dim,), generator=generator, device="cpu") - 1.0
        self.places, self.signs = nn.Buffer(places.to(device)), nn.Buffer(signs.to(device))

    def forward(self, vector: Vector) -> Float[Tensor, "B sketch"]:
        empty = vector.new_zeros(vector.shape[0], self.sketch_dim)
        return empty.index_add(1, self.places, vector * self.signs)


class CompactBilinear(nn.Module):
    """Classify a sketch of the outer product of the two vectors: every pair of features, in little space.

    The sketches of both vectors are multiplied in the Fourier domain, which convolves them; the signed
    square root and the L2 norm equalise the products' scale; one linear layer classifies. Its scores are
    added to those of the two streams alone.

    Args:
        sketch_dim: width of the sketch; the source's 16,000.

    Source: Fukui et al. 2016, "Multimodal compact bilinear pooling for visual question answering and visual
    grounding", sec. 3.1; Gao et al. 2016, "Compact bilinear pooling".

    >>> round(CompactBilinear(2, 3, 8)(torch.rand(1, 2), torch.rand(1, 3)).exp().sum().item(), 5)
    1.0
    """

    early = True  # the modalities meet in it, not in a sum of their scores

    def __init__(self, video_dim: int, audio_dim: int, classes: int, *, sketch_dim: int = 16_000) -> None:
        super().__init__()
        if sketch_dim < 1:
            raise InputError(f"sketch_dim is {sketch_dim}: expected 1 or more, such as the source's 16000")
        generator = torch.Generator("cpu").manual_seed(SEED)  # its own: the global state stays as it was
        self.sketch_dim = sketch_dim
        self.video_sketch = CountSketch(video_dim, sketch_dim, generator)
        self.audio_sketch = CountSketch(audio_dim, sketch_dim, generator)
        self.classify = nn.Linear(sketch_dim, classes)
        self.streams = StreamHeads(video_dim, audio_dim, classes)

    def start_neutral(self) -> None:
        """Let the sketch add nothing at first."""
        for parameter in self.classify.parameters():
            nn.init.zeros_(parameter)

    def pool(self, video: Vector, audio: Vector) -> Float[Tensor, "B sketch"]:
        """Sketch of the outer product, in float32 also under mixed precision."""
        video_waves = torch.fft.rfft(self.video_sketch(video.float()))
        audio_waves = torch.fft.rfft(self.audio_sketch(audio.float()))
        sketch: Tensor = torch.fft.irfft(video_waves * audio_waves, n=self.sketch_dim)
        return sketch

    def forward(self, video: Vector, audio: Vector) -> Scores:
        products = self.pool(video, audio)
        roots = products / (products.abs() + LEAST_PRODUCT).sqrt()
        scores: Tensor = self.classify(functional.normalize(roots, dim=1, eps=LEAST_NORM))
        by_video, by_audio = self.streams(video, audio)
        together: Tensor = scores.float() + by_video + by_audio
        return together.log_softmax(dim=1)
