"""A model on a corpus it knows nothing of: masked answers, the run it makes, and adaptation to it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cfnsr.data.store import Header, Store
from cfnsr.emotions import LabelSet, parse_labels
from cfnsr.errors import InputError
from cfnsr.features.preparation import Preparation
from cfnsr.features.spec import ModelSpec
from cfnsr.inference.adapt import FEWEST, adapt
from cfnsr.inference.evaluate import evaluate, without_degraded
from cfnsr.inference.recogniser import Recogniser, TorchRecogniser, among
from cfnsr.models.baselines import Statistics
from cfnsr.models.zoo import create_model
from cfnsr.training.run import Run

LABELS = parse_labels("neutral,happy,sad,angry,calm=neutral")
PREPARATION = Preparation(
    modalities=("speech",), speech_encoder="tiny", speech_sha256="0" * 64, speech_speeds=()
)
LAYERS, WIDTH, STEPS = 2, 4, 6
Fill = Callable[..., Store]


@pytest.fixture
def fill(tmp_path: Path) -> Fill:
    """Fills a store with noise in place of a speech encoder's states: three speakers, some takes of each."""

    def fill(emotions: tuple[str, ...], takes: int = 4, preparation: Preparation = PREPARATION) -> Store:
        made = preparation.as_json()
        store = Store.create(tmp_path / "store", "street", LabelSet("street", emotions), made)
        for speaker in (1, 2, 3):
            for emotion in emotions:
                for take in range(takes):
                    rng = np.random.default_rng([speaker, emotions.index(emotion), take])
                    states = (5 + 3 * rng.normal(size=(LAYERS, 9, WIDTH))).astype(np.float16)
                    name = f"{speaker}-{emotion}-{take}"
                    source = {"file": name, "bytes": 1, "mtime_ns": 1, "sha256": name}
                    store.write(
                        Header(name, emotion, speaker, None, {}, {"audio": source}, made), {"speech": states}
                    )
                    again = Header(
                        f"{name} degraded 1",
                        emotion,
                        speaker,
                        None,
                        {"degraded": "1"},
                        {"audio": source},
                        made,
                    )
                    store.write(again, {"speech": -states})
        return store

    return fill


@pytest.fixture
def model() -> Recogniser:
    torch.manual_seed(0)
    settings = {"classes": len(LABELS), "speech_layers": LAYERS, "speech_width": WIDTH}
    made = create_model("logistic_audio+speech", **settings)
    spec = ModelSpec("logistic_audio+speech", settings, LABELS, speech_steps=STEPS, preparation=PREPARATION)
    made.config = spec  # type: ignore[assignment]
    return TorchRecogniser(made)


def test_answers_are_among_the_emotions_of_the_corpus(model: Recogniser, fill: Fill, tmp_path: Path) -> None:
    store = fill(("angry", "bored", "calm", "happy"))
    run = evaluate(model, store)
    assert run.labels.emotions == ("neutral", "happy", "angry")
    assert len(run.test.clips) == 3 * 3 * 4, "neither degraded versions nor emotions that it does not know"
    assert not any("bored" in clip or "degraded" in clip for clip in run.test.clips)
    for place in (0, 5, 17):
        clip = run.test.clips[place]
        (every,) = model.probabilities([store.load(clip)])
        kept = every[[0, 1, 3]]
        np.testing.assert_allclose(np.exp(run.test.log_probabilities[place]), kept / kept.sum(), rtol=1e-5)
        said = clip.split("-")[1].replace("calm", "neutral")
        assert run.labels.emotions[run.test.labels[place]] == said
    run.write(tmp_path / "run")
    read = Run.read(tmp_path / "run")
    assert read.protocol == "on_street" and read.test.accuracy == run.test.accuracy
    assert set(read.test_actors) == {1, 2, 3}


def test_a_corpus_that_was_made_otherwise_is_refused(model: Recogniser, fill: Fill) -> None:
    other = Preparation(
        modalities=("speech",), speech_encoder="tiny", speech_sha256="1" * 64, speech_speeds=()
    )
    with pytest.raises(InputError, match=r"store was prepared speech_sha256 1+, not 0+: expected clips as"):
        evaluate(model, fill(("happy", "sad"), preparation=other))


def test_a_corpus_of_one_known_emotion_is_refused(model: Recogniser, fill: Fill) -> None:
    with pytest.raises(InputError, match="has clips of bored, happy: expected two or more of neutral, happy"):
        evaluate(model, fill(("happy", "bored")))


def test_people_who_trained_a_model_do_not_test_it(model: Recogniser, fill: Fill, tmp_path: Path) -> None:
    store = fill(("happy", "sad"))
    model.corpora = ("elsewhere", "street")
    with pytest.raises(InputError, match="was trained on street: expected a corpus of other people"):
        evaluate(model, store)
    model.corpora = ()
    about = {"corpus": {"name": "street"}, "train_actors": [1], "validation_actors": [9]}
    (tmp_path / "run.json").write_text(json.dumps(about))
    model.model.folder = tmp_path  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="was trained on street 1: expected a corpus of other people"):
        evaluate(model, store)
    about = {**about, "corpus": {"name": "street+lane"}, "train_actors": ["lane 1", "lane 2"]}
    (tmp_path / "run.json").write_text(json.dumps(about))
    assert evaluate(model, store).test.clips


def test_adapted_speech_has_mean_0_and_deviation_1(model: Recogniser, fill: Fill) -> None:
    store = fill(("happy", "sad"))
    clips = [store.load(header.name) for header in without_degraded(store.headers())]
    adapted = adapt(model, iter(clips))
    assert isinstance(adapted, TorchRecogniser) and isinstance(model, TorchRecogniser)
    (stream,) = (each for each in adapted.model.modules() if isinstance(each, Statistics))
    pooled = torch.cat([stream.pool(adapted.batch([clip]).audio.flatten(0, 1)) for clip in clips])
    assert pooled.mean(dim=0).abs().max() < 1e-3
    torch.testing.assert_close(
        pooled.std(dim=0, correction=0), torch.ones(pooled.shape[1]), atol=0.01, rtol=0
    )
    before = model.probabilities(clips[:2])
    assert np.abs(adapted.probabilities(clips[:2]) - before).max() > 0.01
    np.testing.assert_array_equal(model.probabilities(clips[:2]), before)


def test_too_little_to_adapt_to_is_refused(model: Recogniser, fill: Fill) -> None:
    store = fill(("happy", "sad"))
    clip = store.load(store.headers()[0].name)
    with pytest.raises(InputError, match=f"{FEWEST - 1} clips or windows to adapt to: expected {FEWEST} or"):
        adapt(model, [clip] * (FEWEST - 1))


def test_a_model_without_statistics_of_speech_cannot_be_adapted() -> None:
    with pytest.raises(InputError, match="cannot be adapted: expected one with a linear classifier"):
        adapt(TorchRecogniser(create_model("audio")), [])


def test_only_some_emotions(model: Recogniser, fill: Fill) -> None:
    store = fill(("happy", "sad"))
    clips = [store.load(header.name) for header in store.headers()[:3]]
    some, every = among(model, ("sad", "happy")), model.probabilities(clips)
    assert some.labels.emotions == ("happy", "sad")
    kept = every[:, 1:3]
    np.testing.assert_allclose(some.probabilities(clips), kept / kept.sum(axis=1, keepdims=True), rtol=1e-9)
    with pytest.raises(InputError, match="'bored' is outside the set"):
        among(model, ("sad", "bored"))
    with pytest.raises(InputError, match="--only sad: expected two or more of neutral, happy, sad, angry"):
        among(model, ("sad",))
    assert among(model, ("calm", "sad")).labels.emotions == ("neutral", "sad"), "calm counts as neutral"
