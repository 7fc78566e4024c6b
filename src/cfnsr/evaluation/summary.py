"""Rows of results: all runs of one model under one protocol, summarised."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby

from cfnsr.corpus.take import Actor, actor_order
from cfnsr.data.conditions import CLEAN
from cfnsr.data.folds import PROTOCOLS
from cfnsr.evaluation.calibration import Calibration, calibrate
from cfnsr.evaluation.comparison import MARGIN, Difference, compare, corrected
from cfnsr.evaluation.interaction import Interaction, audits
from cfnsr.evaluation.metrics import FIGURES, accuracy
from cfnsr.evaluation.names import (
    PAPERS,
    Encoders,
    encoders_of,
    entry_of,
    fusion_of,
    is_plain,
    pairs_of,
    reference_of,
)
from cfnsr.evaluation.spread import Spread, Tally, tally
from cfnsr.features.preparation import Preparation
from cfnsr.training.config import PRESETS
from cfnsr.training.run import Run

PAPER_SETTINGS = {  # a run with others is not the paper's, whatever its preset
    **{key: value for key, value in PRESETS["paper"].as_json().items() if key != "precision"},
    **{
        f"prepared {key}": value
        for key, value in Preparation().as_json().items()
        # No row of the paper hears through a speech encoder. Of sampling its text and its code say two
        # things, and of the face its text says only that it is cut out.
        if key not in ("modalities", "sampling", "margin") and not key.startswith("speech_")
    },
}
RAVDESS_CLIPS = 1440  # 24 actors x 60 takes of speech


@dataclass(frozen=True)
class Paper:
    """The paper's figures for a model: accuracy as a fraction, parameters in millions."""

    accuracy: float
    params: float | None


@dataclass(frozen=True, eq=False)
class Row:
    """The runs of one model under one protocol, and the figures that come out of them.

    Args:
        tally: the test predictions of its runs, which are ordered by seed and fold.
        actors: the tested actors, in the order of the counts.
        versus: the difference to CFN-SR with the same encoders under the same protocol, or why there is none.
        pair: of encoders, whose table the row stands in.
        interaction: what the exchange between its modalities does; None for a row of one modality.
    """

    tally: Tally
    actors: tuple[Actor, ...]
    versus: Difference | str = "not compared"
    pair: Encoders = PAPERS
    interaction: Interaction | None = None

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
        """The encoders of its video and its audio."""
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
    def keeps_last(self) -> bool:
        """True where its weights are those of the last epoch, so that nobody chose one."""
        return all(run.keeps_last for run in self.runs)

    @property
    def epoch_label(self) -> str:
        """The way in which the epoch of its runs was found."""
        return "the last epoch kept" if self.keeps_last else f"epoch chosen on: {self.runs[0].selected_on}"

    @property
    def incomparable(self) -> str:
        """Reasons why the paper's figures are not comparable with this row's; empty when they are."""
        if not is_plain(self.model):
            return "other encoders than the paper's"
        run, why, whose, expected = self.runs[0], [], "", PAPER_SETTINGS
        if run.preset != "paper":
            why.append(f"preset {run.preset}, not paper")
            whose = "the preset's "
            expected = PRESETS[run.preset].as_json() if run.preset in PRESETS else {}
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

    @property
    def difference(self) -> float | None:
        """Our mean accuracy less the paper's, where the two are comparable."""
        if self.paper is None or self.incomparable:
            return None
        return self.spreads["accuracy"].mean - self.paper.accuracy

    @cached_property
    def spreads(self) -> Mapping[str, Spread]:
        """Mean, deviation and interval of every figure of `metrics.FIGURES`."""
        return {name: self.tally.spread(name) for name in FIGURES}

    @cached_property
    def fold_figures(self) -> list[dict[str, float]]:
        """Of each run every figure of `metrics.FIGURES`."""
        return [{name: float(figure(fold)) for name, figure in FIGURES.items()} for fold in self.tally.folds]

    @property
    def accuracy_of(self) -> Mapping[Actor, float]:
        """Each tested actor's accuracy."""
        return dict(zip(self.actors, accuracy(self.tally.actors).tolist(), strict=True))

    @property
    def validation_accuracy(self) -> float | None:
        """Mean over the runs on their inner validation clips, by which rows may be chosen; None without."""
        if not all(run.validation.clips for run in self.runs):
            return None
        return sum(run.validation.accuracy for run in self.runs) / len(self.runs)

    @cached_property
    def calibration(self) -> Calibration:
        """Temperature, calibration and abstention."""
        return calibrate(self.tally, self.actors)

    @cached_property
    def conditions(self) -> Mapping[str, Spread]:
        """Accuracy on clean clips and under each condition of bad input that every run was scored with.

        Empty where a run was not scored so: a mean over other folds would compare actors, not conditions.
        """
        common = set.intersection(*[set(run.conditions) for run in self.runs])
        if not common:
            return {}
        found = {CLEAN: self.spreads["accuracy"]}
        for name in [name for name in self.runs[0].conditions if name in common]:
            parts = [run.conditions[name] for run in self.runs]
            found[name] = tally(self.runs, parts, self.actors).spread("accuracy")
        return found


def summarise(runs: Iterable[Run], margin: float = MARGIN) -> list[Row]:
    """One row per model and protocol, in the order of the paper's tables; other models follow by name.

    Rows with other encoders than the paper's follow these, pair of encoders by pair, in the same order.
    `margin` is that of equivalence with CFN-SR.
    """
    from cfnsr.models.zoo import ENTRIES, base_name

    runs = tuple(runs)
    models, protocols = list(ENTRIES), ["nested", *(name for name in PROTOCOLS if name != "nested")]
    pairs = pairs_of(run.model for run in runs)
    order = list(dict.fromkeys([PAPERS, *sorted(pairs.values())]))

    def place(run: Run) -> tuple[int, int, str, int, str]:
        """The honest protocol comes first; what is not known comes last."""
        base = base_name(run.model)
        known = models.index(base) if base in models else len(models)
        protocol = protocols.index(run.protocol) if run.protocol in protocols else len(protocols)
        return order.index(pairs[run.model]), known, run.model, protocol, run.protocol

    rows = []
    for _, members in groupby(sorted(runs, key=lambda run: (*place(run), run.seed, run.fold)), key=place):
        together = tuple(members)
        actors = tuple(sorted({actor for run in together for actor in run.test.actors}, key=actor_order))
        counted = tally(together, [run.test for run in together], actors)
        rows.append(Row(counted, actors, pair=pairs[together[0].model]))
    compared = _compared(rows, margin)
    audited = zip(compared, audits(compared, margin), strict=True)
    return [replace(row, interaction=each) for row, each in audited]


def paper_of(model: str) -> Paper | None:
    """The paper's figures for a model; None where it has none, as of other encoders than its own."""
    found = entry_of(model)
    if found is None or found.paper_accuracy is None or not is_plain(model):
        return None
    return Paper(found.paper_accuracy, found.paper_params)


def _compared(rows: Sequence[Row], margin: float) -> list[Row]:
    """The rows with their differences to CFN-SR of the same encoders, each under its own protocol."""
    found: dict[tuple[str, str], Difference | str] = {}
    by_name = {(row.protocol, row.model): row for row in rows}
    for protocol, pair in dict.fromkeys((row.protocol, row.pair) for row in rows):
        name = reference_of(pair)
        reference = by_name.get((protocol, name))
        found[protocol, name] = "the reference"
        others = [row for row in rows if (row.protocol, row.pair) == (protocol, pair) and row.model != name]
        versus: list[Difference | str] = [
            f"{name} was not run under the {protocol} protocol"
            if reference is None
            else compare(row, reference, margin)
            for row in others
        ]
        found |= {(protocol, row.model): each for row, each in zip(others, corrected(versus), strict=True)}
    return [replace(row, versus=found[row.protocol, row.model]) for row in rows]
