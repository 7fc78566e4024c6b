"""Each modality alone is ambiguous, both are not: measured with linear classifiers on unseen actors."""

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cfnsr.synthesis import Part, plan
from cfnsr.synthesis.corpus import act

Array = NDArray[np.float64]


def timbre(waveform: NDArray[np.float32]) -> Array:
    """Mean and deviation of log energies in 20 bands spaced as the ear does, from 0.5 s on."""
    blocks = waveform[24_000 : 24_000 + 57 * 2048].reshape(57, 2048) * np.hanning(2048)
    power = np.abs(np.fft.rfft(blocks, axis=1)) ** 2
    edges = np.unique(np.round(np.geomspace(5, 600, 21)).astype(int))
    bands = np.log(np.add.reduceat(power, edges, axis=1)[:, :-1] + 1e-4)
    return np.hstack([bands.mean(axis=0), bands.std(axis=0), np.abs(np.diff(bands, axis=0)).mean(axis=0)])


class Opinions:
    """Log-probabilities (takes, emotions) of linear classifiers that never met the take's actor."""

    def __init__(self, parts: list[Part]) -> None:
        self.labels = np.array([part.emotion for part in parts])
        self.actors = [part.actor for part in parts]
        scenes = [act(part, seed=0) for part in parts]
        self.units = np.stack([scene.performance.units.mean(axis=0) for scene in scenes])
        self.timbre = np.stack([timbre(scene.waveform) for scene in scenes])
        self.video, self.audio = self.of(self.units), self.of(self.timbre)

    def of(self, *features: Array) -> Array:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, max_iter=2000))
        folds = {"groups": self.actors, "cv": GroupKFold(4), "method": "predict_log_proba"}
        return np.asarray(cross_val_predict(model, np.hstack(features), self.labels, **folds))

    def accuracy(self, log_probabilities: Array) -> float:
        chosen = np.unique(self.labels)[log_probabilities.argmax(axis=1)]
        return float((chosen == self.labels).mean())


def test_fusion_has_work_to_do() -> None:
    takes = Opinions([part for part in plan(actors=8, takes=21) if not part.masked])
    assert 0.55 < takes.accuracy(takes.video) < 0.82
    assert 0.5 < takes.accuracy(takes.audio) < 0.82
    assert takes.accuracy(takes.of(takes.units, takes.timbre)) > 0.9


def test_masked_takes_need_more_than_two_opinions() -> None:
    """Sums and products only guess between two emotions; whoever attends where the voice says knows."""
    takes = Opinions([part for part in plan(actors=24, takes=14) if part.masked])
    assert 0.35 < takes.accuracy(takes.video) < 0.62
    assert takes.accuracy(takes.audio) < 0.45
    assert takes.accuracy(takes.video + takes.audio) < 0.62
    assert takes.accuracy(np.logaddexp(takes.video, takes.audio)) < 0.62
    assert takes.accuracy(takes.of(takes.units, takes.timbre)) < 0.62, "nor does a linear layer"
    loud = takes.timbre[:, :19].mean(axis=1, keepdims=True)
    attended = takes.units * (loud - loud.mean()) / loud.std()
    assert takes.accuracy(takes.of(takes.units, attended)) > 0.9
