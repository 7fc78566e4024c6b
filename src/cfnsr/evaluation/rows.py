"""Rows of results: all runs of one model under one protocol, and the figures that come out of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import NamedTuple

from cfnsr.corpus.take import Actor
from cfnsr.data.conditions import CLEAN
from cfnsr.data.folds import PROTOCOLS
from cfnsr.data.joined import JOINT
from cfnsr.evaluation.calibration import Calibration, calibrate
from cfnsr.evaluation.comparison import MARGIN, Difference, compare, corrected
from cfnsr.evaluation.encoders import (
    PAPERS,
    Encoders,
    encoders_of,
    entry_of,
    fusion_of,
    is_plain,
    pairs_of,
    reference_of,
)
from cfnsr.evaluation.estimates import Estimate, Tally, tally
from cfnsr.evaluation.interaction import Interaction, audits
from cfnsr.evaluation.metrics import FIGURES, accuracy
from cfnsr.features.preparation import Preparation
from cfnsr.training.config import PRESETS
from cfnsr.training.run import Run

PAPER_SETTINGS = {  # a run with others is not the paper's, whatever its preset
    **{key: value for key, value in PRESETS["paper"].as_json().items() if key != "precision"},
    **{
        f"prepared {key}": value
        for key, value in Preparation().as_json().items()
        # No row of the paper has a speech encoder. Of sampling its text and its code say two things, and of
        # the face its text says only that it is cut out.
        if key not in ("modalities", "sampling", "margin") and not key.startswith("speech_")
    },
}
RAVDESS_CLIPS = 1440  # 24 actors x 60 takes of speech


class Paper(NamedTuple):
    """The paper's figures for a model: accuracy as a fraction, parameters in millions."""

    accuracy: float
    params: float | None


@dataclass(frozen=True, eq=False)
class Row:
    """The runs of one model under one protocol."""

    tally: Tally  #: the test predictions of its runs, which are ordered by seed and fold
    pair: Encoders = PAPERS  #: whose table it stands in
    versus: Difference | str = "not compared"  #: to CFN-SR with these encoders, or why there is none
    interaction: Interaction | None = None  #: None for a row of one modality

    @property
    def runs(self) -> tuple[Run, ...]:
        return self.tally.runs

    @property
    def model(self) -> str:
        return self.runs[0].model

    @property
    def protocol(self) -> str:
        return self.runs[0].protocol

    @property
    def caveat(self) -> str:
        """The reason why its figures flatter, shown beside each of them; empty for an honest protocol."""
        return self.runs[0].caveat

    @property
    def protocol_label(self) -> str:
        """The protocol's name, and the caveat where its figures flatter."""
        return f"{self.protocol} protocol" + (f" ({self.caveat})" if self.caveat else "")

    @property
    def name(self) -> str:
        """The row's name in running text, its caveat with it."""
        return f"{self.model}, {self.protocol_label}"

    @property
    def emotions(self) -> tuple[str, ...]:
        return self.runs[0].labels.emotions

    @property
    def encoders(self) -> Encoders:
        return encoders_of(self.model)

    @property
    def fusion(self) -> str | None:
        """Where the modalities meet, if the zoo knows the model."""
        return fusion_of(self.model)

    @property
    def paper(self) -> Paper | None:
        """The paper's figures, if it has the model."""
        return paper_of(self.model)

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(sorted({run.seed for run in self.runs}))

    @property
    def complete(self) -> bool:
        """True where every seed has every fold of the cross-validation."""
        return len(self.runs) == len(self.seeds) * self.runs[0].folds

    @property
    def progress(self) -> str:
        """The finished part of the cross-validation: "3 of 6 folds"."""
        of = f"of {self.runs[0].folds} folds"
        done = {seed: sum(run.seed == seed for run in self.runs) for seed in self.seeds}
        if len(set(done.values())) == 1:
            return f"{done[self.seeds[0]]} {of}" + (f", {len(done)} seeds" if len(done) > 1 else "")
        return "; ".join(f"seed {seed}: {number} {of}" for seed, number in done.items())

    @property
    def epoch_label(self) -> str:
        """The way in which the epoch of its runs was found."""
        run = self.runs[0]
        return "the last epoch kept" if run.keeps_last else f"epoch chosen on: {run.selected_on}"

    @property
    def incomparable(self) -> str:
        """Reasons why the paper's figures are not comparable with this row's; empty when they are."""
        if not is_plain(self.model):
            return "other encoders than the paper's"
        run, why, whose, expected = self.runs[0], [], "", PAPER_SETTINGS
        if run.preset != "paper":
            why.append(f"preset {run.preset}, not paper")
            whose, expected = "the preset's ", {}
            if run.preset in PRESETS:
                expected = PRESETS[run.preset].as_json()
        why += [
            f"{key.removeprefix('prepared ')} {run.settings[key]}, not {whose}{value}"
            for key, value in expected.items()
            if run.settings.get(key, value) != value
        ]
        if run.corpus.lower() != "ravdess":
            why.append(f"corpus {run.corpus}, not RAVDESS")
        elif abs(run.clips - RAVDESS_CLIPS) > RAVDESS_CLIPS // 100:  # a few clips may fail in preparation
            why.append(f"{run.clips} clips, not RAVDESS's {RAVDESS_CLIPS} of speech")
        return "; ".join(why)

    @cached_property
    def estimates(self) -> Mapping[str, Estimate]:
        """Mean, deviation and interval of every figure of `metrics.FIGURES`."""
        return {name: self.tally.estimate(name) for name in FIGURES}

    @cached_property
    def fold_figures(self) -> list[dict[str, float]]:
        """Every figure of `metrics.FIGURES` of each run."""
        return [{name: float(figure(fold)) for name, figure in FIGURES.items()} for fold in self.tally.folds]

    @cached_property
    def corpora(self) -> Mapping[str, Mapping[str, Estimate]]:
        """Every figure on the clips of each corpus; empty where there is one corpus alone."""
        names = self.runs[0].corpus.split(JOINT)
        found = {}
        for name in names if len(names) > 1 else ():
            tested = [(run, part) for run in self.runs if (part := run.test.of_corpus(name)).clips]
            if tested:  # else its fold is not finished
                counted = tally(*zip(*tested, strict=True))
                found[name] = {figure: counted.estimate(figure) for figure in FIGURES}
        return found

    @property
    def accuracy_of(self) -> Mapping[Actor, float]:
        """Accuracy of each tested actor."""
        return dict(zip(self.tally.names, accuracy(self.tally.actors).tolist(), strict=True))

    @property
    def validation_accuracy(self) -> float | None:
        """Mean over the runs on their inner validation clips, by which rows may be chosen; None without."""
        if not all(run.validation.clips for run in self.runs):
            return None
        return sum(run.validation.accuracy for run in self.runs) / len(self.runs)

    @cached_property
    def calibration(self) -> Calibration:
        """Temperature, calibration and abstention."""
        return calibrate(self.tally)

    @cached_property
    def conditions(self) -> Mapping[str, Estimate]:
        """Accuracy on clean clips and under each condition of bad input that every run was scored with.

        Empty where a run was not scored so: a mean over other folds would compare actors, not conditions.
        """
        found = {CLEAN: self.estimates["accuracy"]}
        for name in self.runs[0].conditions:
            if all(name in run.conditions for run in self.runs):
                parts = [run.conditions[name] for run in self.runs]
                found[name] = tally(self.runs, parts).estimate("accuracy")
        return found if len(found) > 1 else {}


def summarise(runs: Iterable[Run], margin: float = MARGIN) -> list[Row]:
    """Make one row per model and protocol, in the order of the paper's tables; other models follow by name.

    Rows with other encoders than the paper's follow these, pair of encoders by pair, in the same order.
    `margin` is that of equivalence with CFN-SR.
    """
    from cfnsr.models.entries import ENTRIES
    from cfnsr.models.names import base_name

    runs = tuple(runs)
    models, protocols = list(ENTRIES), ["nested", *(name for name in PROTOCOLS if name != "nested")]
    pairs = pairs_of(run.model for run in runs)
    order = [PAPERS, *sorted(pairs.values())]

    def place(run: Run) -> tuple[int, int, str, int, str]:
        """The honest protocol comes first; what is not known comes last."""
        base = base_name(run.model)
        known = models.index(base) if base in models else len(models)
        protocol = protocols.index(run.protocol) if run.protocol in protocols else len(protocols)
        return order.index(pairs[run.model]), known, run.model, protocol, run.protocol

    rows = []
    for _, members in groupby(sorted(runs, key=lambda run: (*place(run), run.seed, run.fold)), key=place):
        together = tuple(members)
        rows.append(Row(tally(together, [run.test for run in together]), pairs[together[0].model]))
    differences, interactions = _to_reference(rows, margin), audits(rows, margin)
    found = zip(rows, differences, interactions, strict=True)
    return [replace(row, versus=versus, interaction=each) for row, versus, each in found]


def paper_of(model: str) -> Paper | None:
    """Find the paper's figures for a model; None where it has none, as of other encoders than its own."""
    entry = entry_of(model)
    if entry is None or entry.paper_accuracy is None or not is_plain(model):
        return None
    return Paper(entry.paper_accuracy, entry.paper_params)


def _to_reference(rows: Sequence[Row], margin: float) -> list[Difference | str]:
    """Compare each row with CFN-SR of the same encoders under its own protocol."""
    by_name = {(row.protocol, row.model): row for row in rows}

    def versus(row: Row) -> Difference | str:
        name = reference_of(row.pair)
        if row.model == name:
            return "the reference"
        if (row.protocol, name) not in by_name:
            return f"{name} was not run under the {row.protocol} protocol"
        return compare(row, by_name[row.protocol, name], margin)

    return corrected([versus(row) for row in rows], [(row.protocol, row.pair) for row in rows])
