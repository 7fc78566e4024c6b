"""Which models a command line means."""

import pytest

from cfnsr.errors import InputError
from cfnsr.models.zoo import choose_models

FEATURES = {"video": "openface", "audio": "speech"}


def test_rows_of_a_table_get_the_encoders(capsys: pytest.CaptureFixture[str]) -> None:
    rows = choose_models([], [1], **FEATURES)
    assert rows[:3] == ["video+openface", "audio+speech", "averaging+openface+speech"]
    assert rows[-1] == "cfn_sr+openface+speech" and len(rows) == 10
    assert "eranns is left out: it has its own encoder log_mel" in capsys.readouterr().err


def test_a_row_keeps_what_the_option_does_not_concern(capsys: pytest.CaptureFixture[str]) -> None:
    rows = choose_models(["cfn_sr_features", "audio"], [1], video="openface")
    assert rows[:3] == ["cfn_sr_features", "audio", "video+openface"]
    assert "eranns" in rows and "msaf+openface" in rows and not capsys.readouterr().err


def test_named_models_stand_once_and_first() -> None:
    assert choose_models(["cfn_sr+openface+speech", "mmtm"], [], **FEATURES) == [
        "cfn_sr+openface+speech",
        "mmtm+openface+speech",
    ]
    assert choose_models(["cfn_sr", "cfn_sr+speech"], [], audio="speech") == ["cfn_sr+speech"]
    assert choose_models(["audio"], [2])[:2] == ["audio", "cfn_sr"] and len(choose_models([], [1, 2])) == 15


@pytest.mark.parametrize(
    ("models", "options", "message"),
    [
        (["eranns"], FEATURES, "eranns has the audio encoder log_mel: it cannot have speech"),
        (["audio", "eranns"], {"video": "openface"}, "--video openface: audio, eranns has no video"),
        (["cfn_sr"], {"audio": "openface"}, "audio encoder 'openface' is unknown: expected mfcc or speech"),
        (["cfn_sr+speech"], {"audio": "mfcc"}, "has the audio encoder speech: it cannot have mfcc"),
        ([], {}, "no model is named"),
    ],
)
def test_encoders_that_cannot_be_had(models: list[str], options: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        choose_models(models, [], **options)
