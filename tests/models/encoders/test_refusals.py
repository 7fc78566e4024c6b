"""Inputs and settings that an encoder refuses, with one sentence that says what it takes."""

from collections.abc import Callable
from functools import partial

import pytest
import torch

from cfnsr.errors import InputError
from cfnsr.models.encoders.cnn import AudioCNN
from cfnsr.models.encoders.erann import ERANN
from cfnsr.models.encoders.expression import ExpressionEncoder
from cfnsr.models.encoders.openface import OpenFaceEncoder
from cfnsr.models.encoders.resnext import ResNeXt3D
from cfnsr.models.encoders.speech import SpeechMixture
from cfnsr.models.streams import Encoder

SHAPES: dict[str, tuple[Callable[[], Encoder], tuple[int, ...], list[tuple[int, ...]], str]] = {
    "audio": (AudioCNN, (2, 13, 212), [(2, 13, 211), (2, 12, 212)], "MFCCs of shape (B, 13, 212); another"),
    "log_mel": (
        partial(ERANN.light, 1 / 8),
        (2, 128, 1),
        [(2, 13, 212), (128, 314), (2, 128, 0)],
        "log-mel spectrograms of shape (B, 128, steps)",
    ),
    "expression": (
        partial(ExpressionEncoder, 5),
        (2, 5, 1),
        [(2, 4, 7), (5, 7)],
        "tracks of shape (B, 5, steps); another number of features needs a model made for it, "
        "create_model(..., expression_features=...)",
    ),
    "openface": (
        partial(OpenFaceEncoder, 4),
        (2, 4, 1),
        [(2, 35, 7), (4, 7), (2, 4, 0), (2, 4, 7, 1, 1)],
        "tracks of shape (B, 4, steps); another number",
    ),
    "speech": (
        partial(SpeechMixture, 4, 6),
        (2, 4, 1, 6),
        [(4, 7, 6), (2, 5, 7, 6), (2, 4, 7, 8), (2, 4, 0, 6), (2, 4, 7, 6, 1)],
        "hidden states of shape (B, 4, steps, 6); another",
    ),
    "video": (
        partial(ResNeXt3D, 1 / 8),
        (1, 3, 8, 64, 64),
        [(1, 1, 8, 64, 64), (3, 8, 64, 64)],
        "pictures of shape (B, 3, frames, height, width)",
    ),
}


@pytest.mark.parametrize("reads", SHAPES)
def test_other_shapes(reads: str) -> None:
    make, right, wrong, expected = SHAPES[reads]
    encoder, good = make(), torch.zeros(right)
    assert encoder.reads == reads and encoder.check(good) is good
    for shape in (None, *wrong):
        with pytest.raises(InputError) as error:
            encoder.check(None if shape is None else torch.zeros(shape))
        said = str(error.value)
        assert said.startswith(f"{reads} is {'none' if shape is None else shape}: expected {expected}"), said
        assert "\n" not in said


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(ExpressionEncoder, 0), "expression_features is 0: expected 1 or more"),
        (partial(OpenFaceEncoder, 0), "openface_features is 0: expected 1 or more"),
        (partial(SpeechMixture, 0, 6), "speech_layers is 0, speech_width 6: expected 1"),
        (partial(SpeechMixture, 4, 0), "speech_layers is 4, speech_width 0: expected 1"),
        (partial(ERANN, 0.0), "expected a multiple of 1/32"),
        (partial(ERANN, 0.3), "expected a multiple of 1/32"),
        (partial(ERANN, step=4), "step is 4: expected 0 to 3"),
        (partial(ERANN, blocks=(4, 4, 0, 4, 4)), "at least one in each stage after the first"),
        (partial(ResNeXt3D, 0.3), "width is 0.3: expected a multiple of 1/32"),
        (partial(AudioCNN, 3), "mfcc_steps is 3: expected at least 12"),
    ],
    ids=str,
)
def test_impossible_settings(make: Callable[[], Encoder], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
