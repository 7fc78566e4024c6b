"""The size of a model: all that a prediction computes with, a pretrained encoder included."""

from torch import nn

from cfnsr.features.base import FEATURES
from cfnsr.models.encoders.discriminant import Discriminant


def count_parameters(model: nn.Module) -> int:
    """Count the trained values in a model."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_total(model: nn.Module, speech_encoder: int) -> int:
    """Count the values that a prediction needs.

    Those that were trained, those of discriminants, which are solved in closed form, and those of the
    pretrained encoder where the model reads its states.

    Args:
        speech_encoder: parameters of the speech encoder whose states the model may read.
    """
    discriminants = [module for module in model.modules() if isinstance(module, Discriminant)]
    total = count_parameters(model) + sum(each.numel() for part in discriminants for each in part.buffers())
    reads: dict[str, str] = getattr(model, "reads", {})
    return total + (speech_encoder if any(FEATURES[name].pretrained for name in reads.values()) else 0)


def whisper_encoder(
    width: int = 384, layers: int = 4, hidden: int = 1536, mel_bands: int = 80, positions: int = 1500
) -> int:
    """Count the parameters of a Whisper encoder; the defaults are those of tiny.en.

    Args:
        width: `d_model` of its config.json.
        layers: `encoder_layers`.
        hidden: `encoder_ffn_dim`.
        mel_bands: `num_mel_bins`.
        positions: `max_source_positions`.

    Source: Radford et al. 2023, "Robust speech recognition via large-scale weak supervision", section 2.2.

    >>> whisper_encoder()
    8208384
    """
    stem = 3 * width * (mel_bands + width) + 2 * width  # two convolutions of kernel 3
    norm = 2 * width
    attention = 4 * width**2 + 3 * width  # keys have no bias
    feed_forward = 2 * width * hidden + hidden + width
    return stem + positions * width + layers * (attention + feed_forward + 2 * norm) + norm
