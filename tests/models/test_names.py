"""Names of models: what they choose, what is none, and which models a command line means."""

import pytest

import cfnsr
from cfnsr.errors import InputError
from cfnsr.models import zoo
from cfnsr.models.entries import ENTRIES
from cfnsr.models.names import base_name, choose_models, encoders_of, find, with_encoders

OURS = "cfn_sr_features"
FEATURES = {"video": "openface", "audio": "speech"}


@pytest.mark.parametrize(
    ("name", "encoders", "starts_from"),
    [
        ("cfn_sr", {"video": "pixels", "audio": "mfcc"}, ("video", "audio")),
        ("cfn_sr+speech", {"video": "pixels", "audio": "speech"}, ("video", "audio+speech")),
        ("cfn_sr+openface", {"video": "openface", "audio": "mfcc"}, ("video+openface", "audio")),
        ("msaf+openface+speech", FEATURES, ("video+openface", "audio+speech")),
        (OURS, FEATURES, ("video+openface", "audio+speech")),
        ("lda_late+speech", {"video": "pixels", "audio": "speech"}, ("lda_video", "lda_audio+speech")),
        ("audio+speech", {"audio": "speech"}, ()),
        ("video", {"video": "pixels"}, ()),
        ("eranns", {"audio": "log_mel"}, ()),
    ],
)
def test_a_name_chooses_the_encoders(
    name: str, encoders: dict[str, str], starts_from: tuple[str, ...]
) -> None:
    found, base = find(name), ENTRIES[base_name(name)]
    assert encoders_of(name) == encoders == found.encoders and found.modalities == tuple(encoders)
    assert found.starts_from == starts_from
    assert (found.paper_accuracy, found.fusion) == (base.paper_accuracy, base.fusion)
    reads = {"pixels": "video", "mfcc": "audio"}
    model = zoo.create_model(name, width=1 / 8)
    assert model.reads == {modality: reads.get(one, one) for modality, one in encoders.items()}
    if starts_from:
        video, audio = map(encoders_of, starts_from)
        assert video | audio == encoders


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cfn_sr+speech+openface", r"'cfn_sr\+speech\+openface': expected cfn_sr\+openface\+speech"),
        ("cfn_sr+speech+speech", r"expected cfn_sr\+speech,"),
        ("cfn_sr+pixels+mfcc", "expected cfn_sr,"),
        ("cfn_sr+speech+mfcc", "has the audio encoder speech: it cannot have mfcc"),
        (
            "cfn_sr+wav2vec",
            r"'wav2vec' .* unknown: expected pixels or openface or expression \(video\), or mfcc or speech",
        ),
        ("cfn_sr+", "encoder '' of model"),
        ("cfn_sr+log_mel", "encoder 'log_mel' of model"),
        ("audio+openface", "audio has no video: leave out its encoder openface"),
        ("video+speech", "video has no audio: leave out its encoder speech"),
        ("eranns+speech", "eranns has the audio encoder log_mel: it cannot have speech"),
        (f"{OURS}+speech", f"expected {OURS},"),
        ("nothing+speech", "'nothing' is unknown: expected one of video, audio, averaging"),
    ],
)
def test_names_that_are_none(name: str, message: str) -> None:
    for use in (find, cfnsr.create_model):
        with pytest.raises(InputError, match=message) as error:
            use(name)
        assert "\n" not in str(error.value)


def test_encoders_are_put_behind_a_name_as_far_as_it_has_the_modality() -> None:
    assert [with_encoders(name, **FEATURES) for name in ("video", "audio", "mmtm", OURS)] == [
        "video+openface",
        "audio+speech",
        "mmtm+openface+speech",
        OURS,
    ]
    assert with_encoders("cfn_sr+openface", audio="speech") == "cfn_sr+openface+speech"
    assert with_encoders("cfn_sr", video="pixels", audio="mfcc") == "cfn_sr"
    assert with_encoders("eranns", video="openface") == "eranns"
    with pytest.raises(InputError, match=r"cfn_sr\+openface has the video encoder openface"):
        with_encoders("cfn_sr+openface", video="pixels")
    assert base_name("their_own+speech") == "their_own", "of a plugin that is not there too"


def test_rows_of_a_table_get_the_encoders(capsys: pytest.CaptureFixture[str]) -> None:
    rows = choose_models([], [1], **FEATURES)
    assert rows[:3] == ["video+openface", "audio+speech", "averaging+openface+speech"]
    assert rows[-1] == "cfn_sr+openface+speech" and len(rows) == 10
    assert "eranns is left out: it has its own encoder log_mel" in capsys.readouterr().err


def test_a_row_keeps_what_the_option_does_not_concern(capsys: pytest.CaptureFixture[str]) -> None:
    rows = choose_models([OURS, "audio"], [1], video="openface")
    assert rows[:3] == [OURS, "audio", "video+openface"]
    assert "eranns" in rows and "msaf+openface" in rows and not capsys.readouterr().err


def test_named_models_stand_once_and_first() -> None:
    chosen = choose_models(["cfn_sr+openface+speech", "mmtm"], [], **FEATURES)
    assert chosen == ["cfn_sr+openface+speech", "mmtm+openface+speech"]
    assert choose_models(["cfn_sr", "cfn_sr+speech"], [], audio="speech") == ["cfn_sr+speech"]
    assert choose_models(["audio"], [2])[:2] == ["audio", "cfn_sr"]
    assert len(choose_models([], [1, 2])) == 15


@pytest.mark.parametrize(
    ("models", "options", "message"),
    [
        (["eranns"], FEATURES, "eranns has the audio encoder log_mel: it cannot have speech"),
        (["audio", "eranns"], {"video": "openface"}, "--video openface: audio, eranns has no video"),
        (["cfn_sr"], {"audio": "openface"}, "audio encoder 'openface' is unknown: expected mfcc or speech"),
        ([], {}, "no model is named"),
    ],
)
def test_encoders_that_cannot_be_had(models: list[str], options: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        choose_models(models, [], **options)
