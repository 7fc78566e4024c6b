"""Predictions of a trained fold: its clips as they are, under bad input, and with the exchange disturbed."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch

from cfnsr.data.conditions import DEGRADED, Condition, conditions_of
from cfnsr.data.dataset import Batch, Column
from cfnsr.data.folds import Unit
from cfnsr.models.streams import TwoStream
from cfnsr.training.calibration import among
from cfnsr.training.interaction import (
    WITHOUT,
    beside,
    disturbances,
    disturbed,
    entropies,
    joins_early,
    pooled,
)
from cfnsr.training.job import Job
from cfnsr.training.loop import Change, Trainer
from cfnsr.training.predictions import Predictions
from cfnsr.training.prepared import PreparedCorpus
from cfnsr.training.run import NOBODY

Columns = Mapping[str, Column]


def predict(
    trainer: Trainer, job: Job, corpus: PreparedCorpus, units: Iterable[Unit], change: Change | None = None
) -> Predictions:
    """Predict the clips of some units."""
    clips = corpus.part(job.protocol, units)
    if not clips:
        return NOBODY
    return _predict(trainer, job, corpus, clips, [place for place, _ in clips], change)


def _predict(
    trainer: Trainer,
    job: Job,
    corpus: PreparedCorpus,
    clips: Sequence[tuple[int, str]],
    places: Sequence[int],
    change: Change | None = None,
) -> Predictions:
    """Predict the clips at some places, under the names of `clips`."""
    log_probabilities = trainer.predict(places, change).double().numpy()
    if job.protocol.masked:
        log_probabilities = among(log_probabilities, corpus.possible[places])
    return Predictions(
        clips=tuple(name for _, name in clips),
        actors=tuple(corpus.headers[place].actor for place in places),
        labels=np.array([trainer.clips.labels[place] for place in places], dtype=np.int64),
        log_probabilities=log_probabilities,
    )


def predict_under_conditions(trainer: Trainer, job: Job, corpus: PreparedCorpus) -> dict[str, Predictions]:
    """Predict the test clips under every condition that concerns the model."""
    columns = trainer.clips.columns
    reads = {role: column.name for role, column in columns.items()}
    # Where speakers are standardised, the trainer's own columns are so by all takes.
    plain = corpus.clips(reads, next(iter(columns.values())).look).columns
    tested = corpus.actors(job.protocol, job.fold.test)
    predicted = {}
    for name, condition in conditions_of(reads, normalised=job.protocol.normalised).items():
        known = {}
        if condition.among is not None:
            known = {role: column.standardised(condition.among, tested) for role, column in plain.items()}

        def change(batch: Batch, condition: Condition = condition, known: Columns = known) -> Batch:
            places = batch.place.tolist()
            if condition.pictures is not None:
                return batch._replace(video=condition.pictures(batch.video))
            if condition.sound is not None:
                names = [corpus.headers[place].name for place in places]
                sound = [corpus.corrupted_sound(name, condition, reads["audio"]) for name in names]
                return batch._replace(audio=torch.stack(sound).to(batch.audio))
            read = {role: torch.stack([column[place] for place in places]) for role, column in known.items()}
            return batch._replace(**read)

        predicted[name] = predict(trainer, job, corpus, job.fold.test, change)
    versions = corpus.versions(job.protocol, job.fold.test)
    if versions and not job.protocol.normalised:
        predicted[DEGRADED] = _predict(
            trainer, job, corpus, corpus.part(job.protocol, job.fold.test), versions
        )
    return predicted


def audit(trainer: Trainer, job: Job, corpus: PreparedCorpus) -> tuple[dict[str, Predictions], float | None]:
    """Predict the test clips under every disturbance of the exchange, with the entropy of its weights."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    if not isinstance(model, TwoStream):
        return {}, None
    places = corpus.places(job.protocol, job.fold.test)
    predicted: dict[str, Predictions] = {}
    entropy: list[torch.Tensor] = []
    with pooled(model) as vectors:
        if joins_early(model):
            trainer.predict(places)
    for how in disturbances(model):
        with disturbed(model, how, vectors):
            if how == WITHOUT:
                with entropies(model) as entropy:
                    predicted[how] = predict(trainer, job, corpus, job.fold.test)
            else:
                change = beside(trainer.clips, places)
                predicted[how] = predict(trainer, job, corpus, job.fold.test, change)
    return predicted, float(torch.cat(entropy).mean()) if entropy else None
