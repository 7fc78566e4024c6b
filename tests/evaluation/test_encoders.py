"""Names read apart: fusion, encoders, and the table a row stands in."""

import pytest

from cfnsr.evaluation.encoders import (
    PAPERS,
    Encoders,
    encoders_of,
    entry_of,
    is_plain,
    pairs_of,
    title_of,
)
from cfnsr.models.zoo import list_models

OURS = "cfn_sr_features"
BOTH = Encoders("openface", "speech")


@pytest.mark.parametrize(
    ("model", "encoders", "title"),
    [
        ("cfn_sr", PAPERS, "CFN-SR"),
        ("cfn_sr+openface+speech", BOTH, "CFN-SR"),
        ("cfn_sr+openface", Encoders("openface", "mfcc"), "CFN-SR"),
        ("msaf+speech", Encoders("pixels", "speech"), "MSAF"),
        ("video+openface", Encoders("openface", ""), "OpenFace alone"),
        ("audio+speech", Encoders("", "speech"), "speech alone"),
        ("audio", Encoders("", "mfcc"), "MFCC alone"),
        ("eranns", Encoders("", "log_mel"), "ERANNs"),
        (OURS, BOTH, OURS),
        ("my_own", PAPERS, "my_own"),
        ("my_own+openface+speech", BOTH, "my_own+openface+speech"),
        ("my_own+unheard", Encoders("pixels", "unheard"), "my_own+unheard"),
    ],
)
def test_a_name_tells_its_encoders(model: str, encoders: Encoders, title: str) -> None:
    assert encoders_of(model) == encoders and title_of(model) == title
    assert is_plain(model) is (set(encoders) <= {"", "pixels", "mfcc", "log_mel"})


def test_all_models_but_ours_are_plain() -> None:
    assert [model for model in list_models() if not is_plain(model)] == [OURS]


def test_the_zoo_is_asked_with_and_without_encoders() -> None:
    plain, other = entry_of("averaging"), entry_of("averaging+openface+speech")
    assert plain is not None and other is not None and plain.fusion == other.fusion == "late"
    assert entry_of("my_own+speech") is None


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        (["audio", "video", "cfn_sr", "eranns"], [PAPERS] * 4),
        (["audio+speech"], [Encoders("", "speech")]),
        (["video+openface", "audio+speech"], [BOTH, BOTH]),
        (["audio+speech", "cfn_sr+speech"], [Encoders("pixels", "speech")] * 2),
        (["audio+speech", "cfn_sr+speech", OURS], [BOTH, Encoders("pixels", "speech"), BOTH]),
        (["audio", "video+openface", "cfn_sr+openface"], [PAPERS, *[Encoders("openface", "mfcc")] * 2]),
    ],
)
def test_a_modality_alone_stands_beside_those_that_use_it(
    models: list[str], expected: list[Encoders]
) -> None:
    assert pairs_of(models) == dict(zip(models, expected, strict=True))
    assert pairs_of(reversed(models)) == dict(zip(models, expected, strict=True))
