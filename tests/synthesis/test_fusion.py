"""Each sense alone is ambiguous, both together are not: measured with linear classifiers on unseen actors."""

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cfnsr.synthesis import Part, plan
from cfnsr.synthesis.corpus import act

Array = NDArray[np.float64]


def timbre(waveform: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean and deviation of log energies in 20 bands spaced as the ear does, from 0.5 s on."""
    blocks = waveform[24_000 : 24_000 + 57 * 2048].reshape(57, 2048) * np.hanning(2048)
    power = np.abs(np.fft.rfft(blocks, axis=1)) ** 2
    edges = np.unique(np.round(np.geomspace(5, 600, 21)).astype(int))
    bands = np.log(np.add.reduceat(power, edges, axis=1)[:, :-1] + 1e-4)
    return np.concatenate(
        [bands.mean(axis=0), bands.std(axis=0), np.abs(np.diff(bands, axis=0)).mean(axis=0)]
    )


def opinions(features: Array, parts: list[Part]) -> Array:
    """Log-probabilities (takes, emotions) of a linear classifier that never met the take's actor."""
    labels, actors = [part.emotion for part in parts], [part.actor for part in parts]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, max_iter=2000))
    kind = "predict_log_proba"
    return np.asarray(
        cross_val_predict(model, features, labels, groups=actors, cv=GroupKFold(4), method=kind)
    )


def accuracy(log_probabilities: Array, parts: list[Part]) -> float:
    labels = np.array([part.emotion for part in parts])
    return float((np.unique(labels)[log_probabilities.argmax(axis=1)] == labels).mean())


def senses(parts: list[Part]) -> tuple[Array, Array]:
    """Mean action units and timbre of takes."""
    scenes = [act(part, seed=0) for part in parts]
    seen = np.stack([scene.performance.units.mean(axis=0) for scene in scenes])
    return seen, np.stack([timbre(scene.waveform) for scene in scenes])


def test_fusion_has_work_to_do() -> None:
    parts = [part for part in plan(actors=8, takes=21) if not part.masked]
    video, audio = senses(parts)
    seen, heard = opinions(video, parts), opinions(audio, parts)
    assert 0.55 < accuracy(seen, parts) < 0.82
    assert 0.5 < accuracy(heard, parts) < 0.82
    assert accuracy(opinions(np.hstack([video, audio]), parts), parts) > 0.9


def test_masked_takes_need_more_than_two_opinions() -> None:
    """Sums and products only guess between two emotions; whoever looks where the voice says knows."""
    parts = [part for part in plan(actors=24, takes=14) if part.masked]
    video, audio = senses(parts)
    seen, heard = opinions(video, parts), opinions(audio, parts)
    assert 0.35 < accuracy(seen, parts) < 0.62
    assert accuracy(heard, parts) < 0.45
    assert accuracy(seen + heard, parts) < 0.62
    assert accuracy(np.logaddexp(seen, heard), parts) < 0.62
    assert accuracy(opinions(np.hstack([video, audio]), parts), parts) < 0.62, "nor does a linear layer"
    loud = audio[:, :19].mean(axis=1, keepdims=True)
    looked = video * (loud - loud.mean()) / loud.std()
    assert accuracy(opinions(np.hstack([video, looked]), parts), parts) > 0.9
