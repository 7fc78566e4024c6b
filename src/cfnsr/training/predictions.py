"""Predictions of a trained fold: its validation and test clips, bad input, and the exchange disturbed."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from cfnsr.data.conditions import Condition, conditions_of
from cfnsr.data.dataset import Batch, Column
from cfnsr.data.folds import find_protocol
from cfnsr.files import write_text
from cfnsr.models.streams import TwoStream
from cfnsr.training.calibration import fit_temperature
from cfnsr.training.interaction import (
    WITHOUT,
    beside,
    disturbances,
    disturbed,
    entropies,
    joins_early,
    pooled,
)
from cfnsr.training.loop import Trainer
from cfnsr.training.prepared import PreparedCorpus
from cfnsr.training.record import Job


class Predicted(NamedTuple):
    """One clip's prediction."""

    under: str  # the part it stands in, or the condition it was met under
    place: int
    name: str
    label: int
    log_probabilities: np.ndarray


def predict(trainer: Trainer, part: str, job: Job, corpus: PreparedCorpus) -> list[Predicted]:
    """Predict the clips of the fold's "validation" or "test" part, as far as it has one."""
    clips = corpus.part(job.protocol, getattr(job.fold, part))
    if not clips:
        return []
    rows = trainer.predict([place for place, _ in clips]).numpy()
    labels = trainer.clips.labels
    return [Predicted(part, *clip, labels[clip[0]], row) for clip, row in zip(clips, rows, strict=True)]


def predict_spoiled(trainer: Trainer, job: Job, corpus: PreparedCorpus) -> list[Predicted]:
    """Predict the test clips under every condition that concerns the model."""
    predicted: list[Predicted] = []
    plain = {  # where speakers are standardised, the trainer's own columns are so by all takes
        each: corpus.clips({each: column.name}, column.look).columns[each]
        for each, column in trainer.clips.columns.items()
    }
    reads = {each: column.name for each, column in plain.items()}
    clips = corpus.part(job.protocol, job.fold.test)
    tested = corpus.actors(job.protocol, job.fold.test)
    places = [place for place, _ in clips]
    normalised = find_protocol(job.protocol).normalised
    for name, condition in conditions_of(reads, normalised=normalised).items():
        known: dict[str, Column] = {}
        if condition.among is not None:
            known = {each: column.standardised(condition.among, tested) for each, column in plain.items()}

        def spoil(
            batch: Batch, name: str = name, condition: Condition = condition, known: dict[str, Column] = known
        ) -> Batch:
            if known:
                at = batch.place.tolist()
                told = {each: torch.stack([column[place] for place in at]) for each, column in known.items()}
                return batch._replace(**told)
            if condition.pictures is not None:
                return batch._replace(video=condition.pictures(batch.video))
            heard = [corpus.headers[place].name for place in batch.place.tolist()]
            features = [corpus.bad_sound(clip, name, reads["audio"]) for clip in heard]
            return batch._replace(audio=torch.stack(features).to(batch.audio))

        rows = trainer.predict(places, spoil).numpy()
        labels = trainer.clips.labels
        predicted += [
            Predicted(name, place, clip, labels[place], row)
            for (place, clip), row in zip(clips, rows, strict=True)
        ]
    return predicted


def audit(trainer: Trainer, job: Job, corpus: PreparedCorpus) -> tuple[list[Predicted], float | None]:
    """Predict the test clips under every disturbance of the exchange, with the entropy of its weights."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    if not isinstance(model, TwoStream):
        return [], None
    clips = corpus.part(job.protocol, job.fold.test)
    places, labels = [place for place, _ in clips], trainer.clips.labels
    predicted: list[Predicted] = []
    entropy: list[torch.Tensor] = []
    with pooled(model) as vectors:
        if joins_early(model):
            trainer.predict(places)
    for how in disturbances(model):
        with disturbed(model, how, vectors):
            if how == WITHOUT:
                with entropies(model) as entropy:
                    rows = trainer.predict(places).numpy()
            else:
                rows = trainer.predict(places, beside(trainer.clips, places)).numpy()
        predicted += [
            Predicted(how, *clip, labels[clip[0]], row) for clip, row in zip(clips, rows, strict=True)
        ]
    return predicted, float(torch.cat(entropy).mean()) if entropy else None


def temperature_of(predicted: Sequence[Predicted]) -> float | None:
    """Temperature fitted on the inner validation clips; None where the protocol has none."""
    inner = [row for row in predicted if row.under == "validation"]
    if not inner:
        return None
    log_probabilities = np.stack([row.log_probabilities for row in inner]).astype(float)
    return fit_temperature(log_probabilities, np.array([row.label for row in inner]))


def write_predictions(path: Path, under: str, corpus: PreparedCorpus, rows: Sequence[Predicted]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["clip", "actor", under, "label", *corpus.store.labels.emotions])
    for row in rows:
        header = corpus.headers[row.place]
        values = (f"{value:.7g}" for value in row.log_probabilities)
        writer.writerow([row.name, header.actor, row.under, header.emotion, *values])
    write_text(path, text.getvalue())
