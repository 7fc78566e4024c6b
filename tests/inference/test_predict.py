"""Prediction: the preparation of training, an answer for each window, where a model abstains, whose it is."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

import cfnsr
from cfnsr.corpus.scan import scan
from cfnsr.data.augment import normalise
from cfnsr.data.clip import prepare_clip
from cfnsr.data.windows import Windows
from cfnsr.emotions import CREMAD, LabelSet
from cfnsr.errors import InputError
from cfnsr.features.base import FEATURES, Look
from cfnsr.features.mel import Mel
from cfnsr.features.preparation import Preparation
from cfnsr.features.spec import ModelSpec
from cfnsr.inference import predict as module
from cfnsr.inference import recogniser
from cfnsr.inference.predict import predict
from cfnsr.inference.recogniser import Recogniser
from cfnsr.inference.timeline import Prediction
from cfnsr.media.decode import decode
from cfnsr.media.encode import write_video
from cfnsr.media.mfcc import mfcc
from cfnsr.training.checkpoint import read_spec, save_weights

Film = Callable[..., Path]

RATE = 8_000
SMALL = Preparation(frames=6, size=16, keep=0.5)
LONG = replace(SMALL, keep=2.45)  # so that real people have begun to speak
BOTH = {"video": "video", "audio": "audio"}
CONFIG = ModelSpec(
    "cfn_sr",
    {"classes": 6, "mfcc_steps": 212, "width": 1 / 8},
    CREMAD,
    frames=8,
    size=64,
    preparation=Preparation(frames=10, size=80),
)


@dataclass
class Stub(Recogniser):
    """A model that keeps what it was given, and answers by the means of it."""

    reads: Mapping[str, str] = field(default_factory=lambda: dict(BOTH))
    tolerant: bool = False
    normalised: bool = False
    name: str = "stub"
    labels: LabelSet = CREMAD
    made: Preparation = SMALL
    clips: list[Mapping[str, np.ndarray]] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)

    @property
    def preparation(self) -> Preparation:
        return replace(self.made, modalities=tuple(self.reads.values()))

    def probabilities(self, clips: Sequence[Mapping[str, np.ndarray]]) -> np.ndarray:
        self.clips += clips
        self.batches.append(len(clips))
        return np.array([self.answer(clip) for clip in clips])

    def answer(self, clip: Mapping[str, np.ndarray]) -> np.ndarray:
        means = [float(np.mean(clip[name], dtype=np.float64)) for name in self.reads.values()]
        scores = np.exp([np.sin(sum(means) * (place + 1)) for place in range(6)])
        answer: np.ndarray = scores / scores.sum()
        return answer


def named(answer: Sequence[float]) -> dict[str, float]:
    return dict(zip(CREMAD.emotions, answer, strict=True))


def there(first: float, last: float) -> Callable[[float], list[Any]]:
    """A face all along, but not between two seconds."""
    return lambda time: [] if first <= time < last else [("red", 30, 8, 24)]


@pytest.fixture
def dark(film: Film) -> Path:
    """14 s: nobody to be seen from 4 s to 8 s, nothing to be heard from 5.8 s to 10.2 s."""
    sound = np.random.default_rng(0).uniform(-0.3, 0.3, 14 * RATE)
    sound[round(5.8 * RATE) : round(10.2 * RATE)] = 0
    return film(14.0, faces=there(4, 8), sound=[(0.0, sound)])


UNSEEN, UNHEARD = {4, 5, 6}, {6, 7, 8, 9}  # windows by their start; heard is the second half second of each


def by_start(result: Prediction) -> dict[int, Any]:
    return {round(window.start): window for window in result.timeline}


def check_marks(result: Prediction) -> None:
    windows = by_start(result)
    assert list(windows) == list(range(13))
    assert {start for start, window in windows.items() if not window.face} == UNSEEN
    assert {start for start, window in windows.items() if not window.speech} == UNHEARD
    for window in result.timeline:
        assert window.end - window.start == pytest.approx(2.0)
        assert (window.probabilities is None) is (window.emotion is None) is (not window.uses)


def check_summary(result: Prediction) -> None:
    """The mean over the windows that have an answer, and the largest of it."""
    answers = [list(w.probabilities.values()) for w in result.timeline if w.probabilities is not None]
    mean = np.mean(answers, axis=0)
    assert result.probabilities == pytest.approx(named(mean.tolist()))
    assert result.emotion == CREMAD.emotions[int(mean.argmax())]


def test_prediction_sees_what_training_saw(synthetic: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_weights(cfnsr.create_model("cfn_sr", **CONFIG.settings), tmp_path)
    CONFIG.write(tmp_path)
    assert read_spec(tmp_path) == CONFIG
    model, take = cfnsr.load_model(tmp_path), scan(synthetic).takes[0]
    assert take.video is not None
    result = cfnsr.predict(model, take.video, openface=take.openface)
    clip = prepare_clip(take, CONFIG.preparation)
    video = normalise(torch.from_numpy(FEATURES["video"].to_model(clip.tensors, Look(8, 64)).copy())[None])
    with torch.no_grad():
        expected = model(video, torch.from_numpy(clip.tensors["audio"])[None])[0].exp()
    assert result.probabilities == pytest.approx(named(expected.tolist()), abs=1e-5)
    assert result.emotion == CREMAD.emotions[int(expected.argmax())]


def test_a_model_that_needs_both_abstains_where_one_is_missing(dark: Path, spots: Any) -> None:
    model = Stub()
    result = predict(model, dark, window=2.0)
    check_marks(result)
    windows = by_start(result)
    assert {start for start, window in windows.items() if window.emotion is None} == UNSEEN | UNHEARD
    answered = [window for window in result.timeline if window.uses]
    assert all(window.uses == ("video", "audio") for window in answered)
    windows = [each for each in Windows(dark, SMALL, length=2.0) if each.face and each.speech]
    assert len(windows) == len(model.clips) == len(answered) == 7, "nothing else is recognised"
    for answer, window, clip in zip(answered, windows, model.clips, strict=True):
        for name, array in window.tensors.items():
            np.testing.assert_array_equal(clip[name], array)
        assert answer.probabilities == named(model.answer(window.tensors))
        assert list(answer.probabilities) == list(CREMAD.emotions)
    check_summary(result)


@pytest.mark.parametrize("sound", ["audio", "log_mel"])
def test_a_tolerant_model_answers_by_what_is_left(dark: Path, spots: Any, sound: str) -> None:
    """In place of a picture it is shown the mean colour of pictures, in place of sound it hears zeros."""
    model = Stub(reads={"video": "video", "audio": sound}, tolerant=True)
    result = predict(model, dark, window=2.0)
    check_marks(result)
    clips = iter(model.clips)
    silence = cast(Mel, FEATURES[sound]).silence(22_050)
    for start, window in by_start(result).items():
        expected = [("video", start not in UNSEEN), ("audio", start not in UNHEARD)]
        assert window.uses == tuple(name for name, is_there in expected if is_there)
        if not window.uses:
            assert start == 6 and window.probabilities is None
            continue
        clip = next(clips)
        assert clip["video"].shape == (6, 16, 16, 3) and clip["video"].dtype == np.uint8
        assert (clip["video"] == [124, 116, 104]).all() == (start in UNSEEN)
        assert np.array_equal(clip[sound], silence) == (start in UNHEARD)
        assert window.probabilities == named(model.answer(clip))
    assert next(clips, None) is None
    check_summary(result)


def small_model(made: Preparation = SMALL, **settings: Any) -> tuple[Any, ModelSpec]:
    """A model of pictures and sound, as small as can be, and what it was trained with."""
    torch.manual_seed(0)
    config = ModelSpec(
        "cfn_sr",
        {"classes": 6, "mfcc_steps": made.mfcc_steps, "width": 1 / 16},
        CREMAD,
        frames=6,
        size=16,
        preparation=made,
        temperature=3.0,
        **settings,
    )
    model = cfnsr.create_model(config.model, **config.settings)
    with torch.no_grad():
        for _ in range(20):  # so that each part of the model answers at the scale it has after training
            model(torch.randn(8, 3, 6, 16, 16), 60 * torch.randn(8, 13, made.mfcc_steps))
    model.config = config
    return model.eval(), config


def test_a_real_model_answers_by_what_is_left(dark: Path, spots: Any) -> None:
    """As it answers by hand to zeros in place of normalised pictures, or to the MFCCs of zeros."""
    model, config = small_model(modality_dropout=0.3)
    result = predict(model, dark, window=2.0)
    check_marks(result)
    prepared = {round(each.span.start): each for each in Windows(dark, SMALL, length=2.0)}
    answers = []
    for start, window in by_start(result).items():
        if start in UNSEEN & UNHEARD:
            assert window.probabilities is None
            continue
        tensors = prepared[start].tensors
        video, audio = torch.zeros(1, 3, 6, 16, 16), torch.from_numpy(mfcc(np.zeros(22_050)))[None]
        if start not in UNSEEN:
            video = normalise(torch.from_numpy(tensors["video"]).permute(3, 0, 1, 2)[None])
        if start not in UNHEARD:
            audio = torch.from_numpy(tensors["audio"])[None]
        with torch.no_grad():
            expected = (model(video, audio)[0] / config.temperature).softmax(0).tolist()
        answers.append(expected)
        assert window.probabilities == pytest.approx(named(expected), abs=2e-3)
    assert np.ptp(answers, axis=0).max() > 0.02, "what is seen and heard matters"
    abstaining, _ = small_model()
    assert {w.uses for w in predict(abstaining, dark, window=2.0).timeline} == {("video", "audio"), ()}


def test_nothing_to_be_seen_and_heard_has_no_answer(film: Film, spots: Any) -> None:
    path = film(9.0, faces=lambda time: [], sound=[(0.0, np.zeros(9 * RATE))])
    for model in (Stub(), Stub(tolerant=True)):
        result = predict(model, path, window=2.0)
        assert (result.emotion, result.probabilities, model.clips) == (None, None, [])
        assert {(w.face, w.speech, w.emotion, w.uses) for w in result.timeline} == {(False, False, None, ())}
        assert len(result.timeline) == 8 and result.faces.shape == (0, 4)


def test_a_model_of_one_modality_abstains_where_that_is_missing(dark: Path, spots: Any) -> None:
    for tolerant in (False, True):
        for modality, missing in (("video", UNSEEN), ("audio", UNHEARD)):
            model = Stub(reads={modality: modality}, tolerant=tolerant)
            windows = by_start(predict(model, dark, window=2.0))
            assert {start for start, window in windows.items() if not window.uses} == missing
            assert {window.uses for window in windows.values()} == {(modality,), ()}


@pytest.mark.parametrize(
    ("reads", "bears"),
    [
        ({"video": "video", "audio": "audio"}, True),
        ({"video": "video", "audio": "log_mel"}, True),
        ({"video": "openface", "audio": "audio"}, False),
        ({"video": "video", "audio": "speech"}, True),
        ({"video": "video"}, False),
        ({"audio": "audio"}, False),
    ],
)
def test_who_can_answer_by_one_modality(reads: dict[str, str], bears: bool) -> None:
    """Only what a model can have learnt to do without: no silence of a speech encoder is known."""
    assert Stub(reads, tolerant=True).handles_missing is bears
    assert not Stub(reads).handles_missing


def test_answers_do_not_depend_on_the_batch(dark: Path, spots: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = predict(Stub(tolerant=True), dark, window=2.0)
    model, _ = small_model(modality_dropout=0.3)
    real = predict(model, dark, window=2.0)
    monkeypatch.setattr(recogniser, "BATCH", 1)
    stub = Stub(tolerant=True)
    assert predict(stub, dark, window=2.0) == usual
    assert stub.batches == [1] * 12, "the thirteenth has no answer"
    for one, other in zip(predict(model, dark, window=2.0).timeline, real.timeline, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)


def arrays(thing: object) -> int:
    """How many arrays are held, however deep."""
    if isinstance(thing, np.ndarray):
        return 1
    inside = (
        list(thing.values()) if isinstance(thing, dict) else list(getattr(thing, "__dict__", {}).values())
    )
    if isinstance(thing, list | tuple):
        inside += thing
    return sum(map(arrays, inside))


def test_no_array_of_a_window_stays(film: Film, spots: Any) -> None:
    """Not even a small one: each would keep the memory around it from being used again."""
    path = film(9.0, faces=lambda time: [("red", 4, 8, 24), ("blue", 56, 8, 24)])
    followed, held = module.Timelines(), []
    for window, answer in Stub().recognise(Windows(path, SMALL, length=2.0, everyone=True)):
        assert arrays([window, answer]) == 7
        followed.add(window, answer)
        held.append(window)
    assert len(held) == 16 and arrays(held) == 16 * 7 and arrays(followed) == 0
    assert len(followed.prediction("film", all_faces=True).people) == 2


def test_progress_is_told_window_by_window(film: Film, spots: Any) -> None:
    two = [("red", 4, 8, 24), ("blue", 56, 8, 20)]
    path = film(8.0, faces=lambda time: two)
    for everyone in (False, True):
        steps: list[tuple[int, int]] = []
        predict(
            Stub(),
            path,
            window=2.0,
            all_faces=everyone,
            progress=lambda *step, steps=steps: steps.append(step),
        )
        assert steps == [(done, 7) for done in range(8)]
    steps = []
    predict(Stub(), film(3.0, name="short.mkv"), progress=lambda *step: steps.append(step))
    assert steps == [(0, 1), (1, 1)]


def test_each_person_has_a_timeline(film: Film, spots: Any) -> None:
    """Red is there all along; blue, larger, from 4 s to 8 s; nobody from 11 s on."""

    def faces(time: float) -> list[Any]:
        red = [("red", 4, 8, 20)] if time < 11 else []
        return red + ([("blue", 52, 6, 36)] if 4 <= time < 8 else [])

    path = film(14.0, faces=faces)
    alone = predict(Stub(), path, window=2.0)
    result = predict(Stub(), path, window=2.0, all_faces=True)
    assert result.timeline == alone.timeline and result.emotion == alone.emotion
    assert alone.people == () and (alone.person, result.person) == (None, None)
    one, other = result.people
    assert (one.person, other.person) == (1, 2), "who is seen longer comes first, though smaller"
    assert [round(window.start) for window in one.timeline] == list(range(11))
    assert [round(window.start) for window in other.timeline] == [3, 4, 5, 6, 7]
    main = by_start(result)
    assert [start for start in main if not main[start].face] == [11, 12]
    assert main[5] == by_start(other)[5] != by_start(one)[5]
    assert main[1] == by_start(one)[1]
    for person, side in ((one, "left"), (other, "right")):
        check_summary(person)
        assert ((person.faces[:, 1] < 48) == (side == "left")).all() and person.people == ()
    value = result.as_json()
    assert [each["person"] for each in value["people"]] == [1, 2] and "person" not in value
    assert [len(each["timeline"]) for each in value["people"]] == [11, 5]


def test_where_the_face_is(film: Film, spots: Any) -> None:
    """One square for each picture looked at, in order, on the patch that was painted there."""
    path = film(9.0, faces=lambda time: [("red", 10 + round(4 * time), 12, 24)])
    faces = predict(Stub(), path, window=3.0).faces
    assert faces.shape == (18, 4) and faces.dtype == np.float32
    np.testing.assert_allclose(faces[:, 0], np.arange(18) / 2, atol=0.04)
    np.testing.assert_allclose(faces[:, 1], 22 + 4 * faces[:, 0], atol=1)
    np.testing.assert_allclose(faces[:, 2], 24, atol=1)
    assert np.ptp(faces[:, 3]) < 2 and faces[:, 3].mean() > 24


def test_what_cannot_be_asked(film: Film, tmp_path: Path) -> None:
    path = film(3.0)
    for reads in ({"audio": "audio"}, {"video": "openface", "audio": "audio"}):
        with pytest.raises(InputError, match="looks for no faces: expected no --all-faces"):
            predict(Stub(reads=reads), path, all_faces=True, openface=tmp_path)
    with pytest.raises(InputError, match="stub sees OpenFace tracks"):
        predict(Stub(reads={"video": "openface"}), path)
    with pytest.raises(InputError, match="stub was trained on speakers standardised"):
        predict(Stub(normalised=True), path)


WITHOUT_TORCH = """
import json, sys
from dataclasses import replace
import numpy as np
from cfnsr.data import preparer
from cfnsr.emotions import CREMAD
from cfnsr.features.preparation import Preparation
from cfnsr.inference.predict import predict
from cfnsr.inference.recogniser import Recogniser

class Stub(Recogniser):
    name, labels, normalised, tolerant = "stub", CREMAD, False, True
    reads = {"video": "video", "audio": "audio"}
    preparation = Preparation(frames=4, size=16)
    def probabilities(self, clips):
        return np.tile(np.arange(6) / 15, (len(clips), 1))

class Detector:
    def detect(self, frame):
        return np.array([[30, 8, 24, 24, 0.9]], np.float32)

preparer.detector = Detector
result = predict(Stub(), sys.argv[1])
heavy = {"torch", "transformers", "scipy", "sklearn", "pandas", "matplotlib", "onnxruntime", "openvino"}
print(json.dumps([result.emotion, len(result.timeline), sorted(heavy & set(sys.modules))]))
"""


def test_prediction_by_another_library_loads_no_torch(film: Film) -> None:
    """From the import to the answer; a window without sound included."""
    path = film(9.0, sound=[(0.0, np.random.default_rng(0).uniform(-0.3, 0.3, 4 * RATE))])
    command = [sys.executable, "-c", WITHOUT_TORCH, str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == [CREMAD.emotions[5], 7, []]


def test_real_clips(shared: Path, yunet: Path) -> None:
    model = cfnsr.create_model("cfn_sr", width=1 / 8).eval()
    for file in sorted((shared / "clips").rglob("*.*")):
        window = cfnsr.predict(model, file).timeline[0]
        assert window.face and window.speech, file


@pytest.fixture(scope="module")
def joined(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two real people side by side for twice 3.3 s, then 4 s of a black picture and silence."""
    sides = []
    for name, step in (("Actor_01/01-01-01-01-01-01-01.mp4", 3), ("Actor_06/01-01-08-01-01-01-06.mp4", 2)):
        found = decode(shared / "clips/ravdess" / name, frames=33)
        assert found.frames is not None and found.waveform is not None
        sides.append((found.frames[:, ::step, ::step][:, :, -360:], found.waveform, found.sample_rate))
    (left, sound, rate), (right, _, _) = sides
    pictures = np.concatenate([left, right], axis=2)
    sound = sound[: round(3.3 * rate)]
    return write_video(
        tmp_path_factory.mktemp("joined") / "two.mp4",
        [*pictures, *pictures, *np.zeros((40, *pictures.shape[1:]), np.uint8)],
        10,
        np.concatenate([sound, sound, np.zeros(4 * rate, np.float32)]),
        rate,
    )


def test_two_real_people_side_by_side(joined: Path, yunet: Path) -> None:
    result = predict(Stub(made=LONG), joined, all_faces=True)
    (one, other) = result.people
    heights = [np.median(person.faces[:, 2]) for person in (one, other)]
    assert all(60 < height < 200 for height in heights)
    sides = [set(np.sign(person.faces[:, 1] - 360).tolist()) for person in (one, other)]
    assert sides in ([{-1.0}, {1.0}], [{1.0}, {-1.0}]), "each stays on one side"
    for person in (one, other):
        assert np.ptp(person.faces[:, 3]) < 0.25 * person.faces[:, 3].mean(), "no square jumps"
    starts = [[window.start for window in person.timeline] for person in (one, other)]
    assert starts[0] == starts[1] and len(starts[0]) >= 6
    for window in result.timeline:
        if window.end <= 6.6:
            assert (window.face, window.speech, window.uses) == (True, True, ("video", "audio"))
        if window.start >= 6.7:
            assert (window.face, window.speech, window.emotion) == (False, False, None)
    assert {window.face for window in result.timeline} == {True, False}
    alone = predict(Stub(made=LONG), joined)
    assert alone.timeline == result.timeline
    mine = set(map(tuple, alone.faces.tolist()))
    assert mine == set(map(tuple, one.faces.tolist())) or mine == set(map(tuple, other.faces.tolist()))


def test_a_long_real_file_by_a_real_model(joined: Path, yunet: Path) -> None:
    model, _ = small_model(LONG, modality_dropout=0.3)
    model.train()
    result = predict(model, joined, window=3.0, hop=2.0)
    assert model.training
    assert [window.start for window in result.timeline] == pytest.approx([0, 2, 4, 6, 7.6])
    assert [window.uses for window in result.timeline] == [("video", "audio")] * 3 + [()] * 2
    check_summary(result)
    assert sum(result.probabilities.values()) == pytest.approx(1, abs=1e-5)
