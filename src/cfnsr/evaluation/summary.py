"""Rows of results: all runs of one model under one protocol, summarised."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import numpy as np

from cfnsr.corpus.take import Actor
from cfnsr.data.clip import Preparation
from cfnsr.evaluation.metrics import (
    FIGURES,
    Counts,
    Floats,
    accuracy,
    average,
    count,
    ece,
    interval,
    recalls,
)
from cfnsr.evaluation.runs import Run
from cfnsr.training.config import PRESETS

OPTIMISTIC = "optimistic: best epoch on test"
PAPER_SETTINGS = {  # a run with others is not the paper's, whatever its preset
    **{key: value for key, value in PRESETS["paper"].as_json().items() if key != "precision"},
    **{f"prepared {key}": value for key, value in Preparation().as_json().items() if key != "modalities"},
}
RAVDESS_CLIPS = 1440  # 24 actors x 60 takes of speech
PROTOCOLS = ("nested", "paper")  # in the order of the report: the honest one first


@dataclass(frozen=True)
class Spread:
    """One figure of a row, as fractions.

    Args:
        mean: over folds; of several seeds each fold's mean is taken first.
        std: over those folds, n - 1 in the denominator; None for a single fold.
        ci95: 95 % interval by resampling actors; None for a single actor.
    """

    mean: float
    std: float | None
    ci95: tuple[float, float] | None


@dataclass(frozen=True)
class Paper:
    """What the paper reports for a model: accuracy as a fraction, parameters in millions."""

    accuracy: float
    params: float | None


@dataclass(frozen=True, eq=False)
class Row:
    """The runs of one model under one protocol, and the figures that come out of them.

    Args:
        runs: ordered by seed and fold.
        fold_figures: of each run, in the same order, every figure of `metrics.FIGURES`.
        actors: the tested actors.
        counts: their counts, first axis the actors, averaged over seeds.
        fusion: where the modalities meet, if the zoo knows the model.
        paper: the paper's figures, if it has the model.
    """

    runs: tuple[Run, ...]
    fold_figures: tuple[Mapping[str, float], ...]
    actors: tuple[Actor, ...]
    counts: Counts
    fusion: str | None = None
    paper: Paper | None = None

    @property
    def model(self) -> str:
        return self.runs[0].model

    @property
    def protocol(self) -> str:
        return self.runs[0].protocol

    @property
    def name(self) -> str:
        """How the row is called in running text; an optimistic one says so."""
        return f"{self.model}, {self.protocol} protocol" + (f" ({OPTIMISTIC})" if self.optimistic else "")

    @property
    def emotions(self) -> tuple[str, ...]:
        return self.runs[0].labels.emotions

    @property
    def optimistic(self) -> bool:
        return self.runs[0].optimistic

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(sorted({run.seed for run in self.runs}))

    @property
    def complete(self) -> bool:
        """Whether every seed has every fold of the cross-validation."""
        return len(self.runs) == len(self.seeds) * self.runs[0].folds

    @property
    def progress(self) -> str:
        """How much of the cross-validation is there: "3 of 6 folds"."""
        of = f"of {self.runs[0].folds} folds"
        done = {seed: sum(run.seed == seed for run in self.runs) for seed in self.seeds}
        if len(set(done.values())) == 1:
            return f"{done[self.seeds[0]]} {of}" + (f", {len(done)} seeds" if len(done) > 1 else "")
        return "; ".join(f"seed {seed}: {number} {of}" for seed, number in done.items())

    @property
    def incomparable(self) -> str | None:
        """Why the paper's figures are not comparable with this row's; None when they are."""
        run, why = self.runs[0], []
        if run.preset != "paper":
            why.append(f"preset {run.preset}, not paper")
        else:
            changed = [
                f"{key.removeprefix('prepared ')} {run.settings[key]}, not {value}"
                for key, value in PAPER_SETTINGS.items()
                if run.settings.get(key, value) != value
            ]
            why += changed
        if run.corpus.lower() != "ravdess":
            why.append(f"corpus {run.corpus}, not RAVDESS")
        elif abs(run.clips - RAVDESS_CLIPS) > RAVDESS_CLIPS // 100:  # a few clips may fail in preparation
            why.append(f"{run.clips} clips, not RAVDESS's {RAVDESS_CLIPS} of speech")
        return "; ".join(why) or None

    @property
    def difference(self) -> float | None:
        """Our mean accuracy less the paper's, where the two are comparable."""
        if self.paper is None or self.incomparable:
            return None
        return self.spreads["accuracy"].mean - self.paper.accuracy

    @cached_property
    def spreads(self) -> Mapping[str, Spread]:
        """Mean, deviation and interval of every figure of `metrics.FIGURES`."""
        return {name: self._spread(name) for name in FIGURES}

    @cached_property
    def actor_accuracy(self) -> Floats:
        """(actors,) accuracy of each tested actor's clips."""
        return accuracy(self.counts)

    @cached_property
    def emotion_accuracy(self) -> Floats:
        """(classes,) recall of each emotion over all tested clips."""
        return recalls(self.counts.pooled())

    @cached_property
    def emotion_interval(self) -> Floats:
        """(2, classes) 95 % interval of each emotion's recall by resampling actors."""
        return interval(recalls, self.counts)

    def _spread(self, name: str) -> Spread:
        by_fold: dict[int, list[float]] = {}
        for run, figures in zip(self.runs, self.fold_figures, strict=True):
            by_fold.setdefault(run.fold, []).append(figures[name])
        folds = [float(np.mean(values)) for values in by_fold.values()]
        mean = float(np.mean(folds))
        low, high = interval(
            FIGURES[name], self.counts, about=mean if FIGURES[name] is ece else None
        ).tolist()
        return Spread(
            mean=mean,
            std=float(np.std(folds, ddof=1)) if len(folds) > 1 else None,
            ci95=(low, high) if len(self.actors) > 1 else None,
        )


def summarise(runs: Iterable[Run]) -> list[Row]:
    """One row per model and protocol, in the order of the paper's tables; other models follow by name."""
    from cfnsr.models.zoo import ENTRIES

    order = list(ENTRIES)

    def place(run: Run) -> tuple[int, str, int, str]:
        known = order.index(run.model) if run.model in ENTRIES else len(order)
        protocol = PROTOCOLS.index(run.protocol) if run.protocol in PROTOCOLS else len(PROTOCOLS)
        return known, run.model, protocol, run.protocol

    rows = []
    for _, members in groupby(sorted(runs, key=lambda run: (place(run), run.seed, run.fold)), key=place):
        together = tuple(members)
        found = ENTRIES.get(together[0].model)
        paper = None
        if found is not None and found.paper_accuracy is not None:
            paper = Paper(found.paper_accuracy, found.paper_params)
        rows.append(_row(together, found.fusion if found is not None else None, paper))
    return rows


def remarks(rows: Sequence[Row]) -> list[str]:
    """What a reader must know before comparing figures, a sentence each."""
    said = []
    reasons = dict.fromkeys(row.incomparable for row in rows if row.incomparable)
    for reason in reasons:
        concerned = [row for row in rows if row.incomparable == reason]
        which = (
            ""
            if len(concerned) == len(rows)
            else " for " + ", ".join(dict.fromkeys(r.model for r in concerned))
        )
        said.append(f"The paper's figures are not comparable with ours{which} ({reason}).")
    if any(row.optimistic for row in rows):
        said.append(
            "The paper protocol chooses each fold's epoch by the accuracy on the fold's own test actors, so "
            f"its figures, and the paper's own, are too high ({OPTIMISTIC}); the nested protocol leaves the "
            "choice to other actors."
        )
    said += [
        f"{row.name} is incomplete: {row.progress}; its figures are of these folds alone."
        for row in rows
        if not row.complete
    ]
    return said


def _row(runs: tuple[Run, ...], fusion: str | None, paper: Paper | None) -> Row:
    tested = {actor for run in runs for actor in run.test.actors}
    actors = tuple(sorted(tested, key=lambda actor: (isinstance(actor, str), actor)))
    index = {actor: place for place, actor in enumerate(actors)}
    figures, by_seed = [], []
    for _, members in groupby(runs, key=lambda run: run.seed):
        together = list(members)
        for run in together:
            fold = count(run.test.labels, run.test.log_probabilities).pooled()
            figures.append({name: float(figure(fold)) for name, figure in FIGURES.items()})
        by_seed.append(
            count(
                np.concatenate([run.test.labels for run in together]),
                np.concatenate([run.test.log_probabilities for run in together]),
                [index[actor] for run in together for actor in run.test.actors],
                len(actors),
            )
        )
    return Row(runs, tuple(figures), actors, average(by_seed), fusion, paper)
