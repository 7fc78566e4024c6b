"""File names of RAVDESS and CREMA-D."""

from pathlib import Path

import pytest

from cfnsr.corpus import cremad, ravdess
from cfnsr.emotions import CREMAD, RAVDESS
from cfnsr.errors import InputError


@pytest.mark.parametrize(
    ("code", "emotion"),
    [
        ("01", "neutral"),
        ("02", "calm"),
        ("03", "happy"),
        ("04", "sad"),
        ("05", "angry"),
        ("06", "fearful"),
        ("07", "disgust"),
        ("08", "surprised"),
    ],
)
def test_ravdess_emotions_follow_the_published_codes(code: str, emotion: str) -> None:
    name = ravdess.parse(f"01-01-{code}-01-01-01-01")
    assert name is not None
    assert name.emotion == emotion


def test_ravdess_fields_are_not_mixed_up() -> None:
    name = ravdess.parse("03-02-05-02-01-02-17")
    assert name is not None
    assert (name.actor, name.sex, name.pictures, name.sound) == (17, "male", False, True)
    assert name.attributes == {
        "channel": "song",
        "intensity": "strong",
        "statement": "Kids are talking by the door",
        "repetition": "2",
    }


def test_ravdess_modalities_share_one_key_and_other_fields_do_not() -> None:
    keys = {stem: ravdess.parse(stem).key for stem in ("01-01-02-01-01-01-01", "02-01-02-01-01-01-01")}  # type: ignore[union-attr]
    assert len(set(keys.values())) == 1
    assert ravdess.parse("01-02-02-01-01-01-01").key not in keys.values()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "stem",
    [
        "04-01-01-01-01-01-01",  # modality
        "01-03-01-01-01-01-01",  # channel
        "01-01-00-01-01-01-01",
        "01-01-09-01-01-01-01",  # emotion
        "01-01-01-02-01-01-01",  # strong neutral
        "01-01-02-03-01-01-01",  # intensity
        "01-01-02-01-03-01-01",  # statement
        "01-01-02-01-01-03-01",  # repetition
        "01-01-02-01-01-01-00",
        "01-01-02-01-01-01-25",  # actor
        "01-01-02-01-01-01",
        "01-01-02-01-01-01-01-01",
        "01-01-02-01-01-01-01_croppad",
        "01-01-02-01-01-01-0١",  # a digit, but none of ASCII
    ],
)
def test_what_is_no_ravdess_name(stem: str) -> None:
    assert ravdess.parse(stem) is None


def test_ravdess_has_60_speech_names_an_actor() -> None:
    stems = (
        f"01-01-{emotion:02d}-{intensity:02d}-{statement:02d}-{repetition:02d}-09"
        for emotion in range(10)
        for intensity in range(4)
        for statement in range(4)
        for repetition in range(4)
    )
    assert sum(ravdess.parse(stem) is not None for stem in stems) == 60


@pytest.mark.parametrize(
    ("code", "emotion"),
    [
        ("NEU", "neutral"),
        ("HAP", "happy"),
        ("SAD", "sad"),
        ("ANG", "angry"),
        ("FEA", "fearful"),
        ("DIS", "disgust"),
    ],
)
def test_cremad_names(code: str, emotion: str) -> None:
    name = cremad.parse(f"1091_WSI_{code}_HI")
    assert name is not None
    assert (name.actor, name.emotion, name.sex) == (1091, emotion, None)
    assert name.attributes == {"sentence": "WSI", "intensity": "high"}
    assert emotion in CREMAD.emotions
    assert emotion in RAVDESS.emotions


def test_the_one_misspelt_cremad_name_is_known() -> None:
    assert cremad.parse("1040_ITH_SAD_X") is not None


@pytest.mark.parametrize(
    "stem",
    [
        "1000_DFA_ANG_XX",
        "1092_DFA_ANG_XX",
        "1001_ABC_ANG_XX",
        "1001_DFA_CAL_XX",
        "1001_DFA_ANG_YY",
        "1001_DFA_ANG",
    ],
)
def test_what_is_no_cremad_name(stem: str) -> None:
    assert cremad.parse(stem) is None


def test_sexes_come_from_the_table_of_actors(tmp_path: Path) -> None:
    table = tmp_path / "VideoDemographics.csv"
    table.write_text("ActorID,Age,Sex,Race\n1001,51,Male,x\n1002,21,Female,x\n1003,21,,x\n,,,\n")
    assert cremad.read_sexes(table) == {1001: "male", 1002: "female"}


@pytest.mark.parametrize("content", [b"", b"Actor,Sex\n1,Male\n", b"\xff\xfe\x00bad"])
def test_another_table_of_actors_is_refused(tmp_path: Path, content: bytes) -> None:
    table = tmp_path / "VideoDemographics.csv"
    table.write_bytes(content)
    with pytest.raises(InputError, match=r"VideoDemographics\.csv"):
        cremad.read_sexes(table)
