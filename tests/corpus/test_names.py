"""File names of RAVDESS and CREMA-D, and of a corpus that is not in the package."""

import re
from itertools import product
from pathlib import Path

import pytest

from cfnsr.corpus import SCHEMES, cremad, ravdess, scan
from cfnsr.corpus.scheme import Performance, Scheme, find_performance
from cfnsr.emotions import CREMAD, RAVDESS, LabelSet
from cfnsr.errors import InputError


def parsed(scheme: Scheme, stem: str) -> Performance:
    performance = scheme.parse(stem)
    assert performance is not None and performance.name == stem
    return performance


def test_ravdess_emotions_follow_the_published_codes() -> None:
    emotions = [parsed(ravdess.SCHEME, f"01-01-0{code}-01-01-01-01").emotion for code in range(1, 9)]
    assert emotions == ["neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"]


def test_ravdess_fields_are_not_mixed_up() -> None:
    name = parsed(ravdess.SCHEME, "03-02-05-02-01-02-17")
    assert (name.actor, name.sex, name.pictures, name.sound) == (17, "male", False, True)
    more = {"statement": "Kids are talking by the door", "repetition": "2"}
    assert name.attributes == {"channel": "song", "intensity": "strong", **more}


def test_ravdess_modalities_share_one_key_and_other_fields_do_not() -> None:
    first, twin, song = (
        parsed(ravdess.SCHEME, f"{start}-02-01-01-01-01").key for start in ("01-01", "02-01", "01-02")
    )
    assert first == twin != song


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
        "1000_DFA_ANG_XX",
        "1092_DFA_ANG_XX",
        "1001_ABC_ANG_XX",
        "1001_DFA_CAL_XX",
        "1001_DFA_ANG_YY",
        "1001_DFA_ANG",
        "copy_1001_DFA_ANG_XX",
    ],
)
def test_what_is_no_name(stem: str) -> None:
    assert not any(scheme.parse(stem) for scheme in SCHEMES.values())


def test_ravdess_has_60_speech_names_an_actor() -> None:
    numbers = product(range(10), range(4), range(4), range(4))
    stems = ("-".join(["01-01", *(f"0{number}" for number in each), "09"]) for each in numbers)
    assert sum(ravdess.SCHEME.parse(stem) is not None for stem in stems) == 60


def test_cremad_names() -> None:
    codes = ("NEU", "HAP", "SAD", "ANG", "FEA", "DIS")
    names = [parsed(cremad.SCHEME, f"1091_WSI_{code}_HI") for code in codes]
    emotions = ["neutral", "happy", "sad", "angry", "fearful", "disgust"]
    assert [name.emotion for name in names] == emotions
    assert {(name.actor, name.sex) for name in names} == {(1091, None)}
    assert names[0].attributes == {"sentence": "WSI", "intensity": "high"}
    assert set(CREMAD.emotions) < set(RAVDESS.emotions)
    parsed(cremad.SCHEME, "1040_ITH_SAD_X")  # the one that is misspelt


def test_sexes_come_from_the_table_of_actors(tmp_path: Path) -> None:
    table = tmp_path / "videodemographics.csv"
    table.write_text("ActorID,Age,Sex,Race\n1001,51,Male,x\n1002,21,Female,x\n1003,21,,x\n,,,\n")
    assert cremad.read_sexes([tmp_path / "x.csv", table]) == {1001: "male", 1002: "female"}
    assert cremad.read_sexes([]) == {}
    for content in (b"", b"Actor,Sex\n1,Male\n", b"\xff\xfe\x00bad"):
        table.write_bytes(content)
        with pytest.raises(InputError, match=r"videodemographics\.csv"):
            cremad.read_sexes([table])


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("faces/02-01-06-01-02-01-12_flipped.npy", "01-06-01-02-01-12"),
        ("x01-01-06-01-02-01-12", "01-06-01-02-01-12"),
        ("01-01-06-01-02-01-12/03-01-05-01-02-01-12.wav", "01-05-01-02-01-12"),  # the last one
        ("frames\\1001_DFA_ANG_XX\\0001.jpg", "1001_DFA_ANG_XX"),
        ("noisy_1001_DFA_ANG_XX2.wav", "1001_DFA_ANG_XX"),
        ("101-01-06-01-02-01-12.wav", None),
        ("01-01-06-01-02-01-123.wav", None),
        ("x1001_DFA_ANG_XX.wav", None),
        ("interview.mp4", None),
    ],
)
def test_names_anywhere_in_a_path(path: str, key: str | None) -> None:
    found = find_performance(path)
    assert (found[1].key if found else None) == key


def read_savee(match: re.Match[str]) -> Performance:
    letters = {"a": "angry", "d": "disgust", "f": "fearful", "h": "happy", "n": "neutral", "sa": "sad"}
    name = f"{match['actor']}_{match['emotion']}{match['number']}"
    emotion = letters.get(match["emotion"], "surprised")
    return Performance(name, name, emotion, match["actor"], "male", {"sentence": match["number"]})


def test_a_corpus_of_your_own_is_one_scheme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that need their folder, and actors who are letters: SAVEE's, with its two layouts."""
    emotions = ("angry", "disgust", "fearful", "happy", "neutral", "sad", "surprised")
    savee = Scheme(
        name="savee",
        title="SAVEE",
        example="DC_a01.wav",
        labels=LabelSet("savee", emotions),
        pattern=re.compile(r"(?P<actor>DC|JE|JK|KL)[_/](?P<emotion>sa|su|[adfhn])(?P<number>\d\d)(?!\d)"),
        read=read_savee,
        originals=(".avi", ".wav"),
    )
    monkeypatch.setitem(SCHEMES, "savee", savee)
    for name in ("AudioData/DC/a01.wav", "AudioData/JE/a01.wav", "AudioData/KL/su15.wav", "DC_sa02.avi"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    corpus = scan(tmp_path)
    assert (corpus.name, corpus.labels.emotions, corpus.actors) == ("savee", emotions, ("DC", "JE", "KL"))
    takes = {take.name: (take.emotion, take.sex, take.audio) for take in corpus.takes}
    assert takes["JE_a01"] == ("angry", "male", tmp_path / "AudioData/JE/a01.wav") and len(takes) == 4
    assert (takes["DC_sa02"][0], takes["KL_su15"][0]) == ("sad", "surprised")
    (tmp_path / "DC_sa02.avi").rename(tmp_path / "holiday.avi")
    assert corpus.takes[0].name == "DC_a01" and scan(tmp_path).unknown == (tmp_path / "holiday.avi",)
