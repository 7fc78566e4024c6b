"""A trained model on a prepared corpus that it knows nothing of, as a run that the report reads."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cfnsr.data.degraded import is_degraded
from cfnsr.data.folds import EVALUATED
from cfnsr.data.joined import JOINT
from cfnsr.data.store import Header, Store
from cfnsr.emotions import LabelSet
from cfnsr.errors import InputError, listed
from cfnsr.inference.adapt import adapt
from cfnsr.inference.recogniser import BATCH, Recogniser
from cfnsr.training.calibration import among
from cfnsr.training.predictions import Predictions
from cfnsr.training.prepared import PreparedCorpus
from cfnsr.training.run import ABOUT, MODEL, Run, read_about

ADAPTED = "speech standardised by the tested corpus: transductive, needs its emotions in balance"
LEAST = 1e-30  # of a probability, so that its logarithm is finite
# Settings of a preparation by which no feature differs.
APART = ("speech_encoder", "modalities", "video_stream", "audio_stream", "lenient")


def without_degraded(headers: Sequence[Header]) -> list[Header]:
    """List the clips that are no degraded versions of others."""
    return [header for header in headers if not is_degraded(header.attributes)]


def evaluate(
    model: Recogniser,
    store: Store,
    *,
    name: str = "",
    adapted: bool = False,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Run:
    """Recognise every clip of a prepared corpus, among the emotions that it has.

    Clips of emotions that the model does not know are left out, and so are degraded versions of takes.

    Args:
        name: of the model in the report; that in the zoo if not given.
        adapted: standardise its speech by the corpus first, see `adapt`.
        progress: called with the clips done and their number.

    Raises:
        InputError: the corpus was prepared in another way than the model's, has a speaker who trained it, or
            has not two of its emotions.
    """
    if not MODEL.fullmatch(name or model.name):
        raise InputError(f"name {name!r} of a model in the report: expected letters, digits, _ and -")
    corpus = PreparedCorpus(store)
    headers = without_degraded(corpus.headers)
    _check_preparation(model, corpus)
    _check_strangers(model, store, headers)
    if adapted:
        model = adapt(model, (store.load(header.name) for header in headers))
    known = [header for header in headers if header.emotion in model.labels]
    there = {model.labels.index(header.emotion) for header in known}
    possible = np.array([place in there for place in range(len(model.labels))])
    if len(there) < 2:
        raise InputError(
            f"{store.folder} has clips of {', '.join(sorted({header.emotion for header in headers}))}: "
            f"expected two or more of {', '.join(model.labels.emotions)}, which model {model.name} knows"
        )
    logs = []
    for start in range(0, len(known), BATCH):
        progress(start, len(known))
        clips = [store.load(header.name) for header in known[start : start + BATCH]]
        logs.append(np.log(np.maximum(model.probabilities(clips), LEAST)))
    progress(len(known), len(known))
    log_probabilities = among(np.concatenate(logs), np.broadcast_to(possible, (len(known), len(possible))))
    emotions = [emotion for emotion, there in zip(model.labels.emotions, possible, strict=True) if there]
    labels = LabelSet(store.corpus, tuple(emotions))
    order = [model.labels.index(emotion) for emotion in emotions]
    test = Predictions(
        clips=tuple(header.name for header in known),
        actors=tuple(header.actor for header in known),
        labels=np.array([order.index(model.labels.index(header.emotion)) for header in known]),
        log_probabilities=log_probabilities[:, order],
    )
    run = _as_run(name or model.name, corpus, labels, test)
    return replace(run, protocol=f"{run.protocol}_adapted", caveat=ADAPTED) if adapted else run


def _check_strangers(model: Recogniser, store: Store, headers: Sequence[Header]) -> None:
    """Refuse a corpus of which somebody trained the model, as far as its config.json or run.json says."""
    trained = [store.corpus] if store.corpus in model.corpora else []
    folder = getattr(getattr(model, "model", None), "folder", None)
    if isinstance(folder, Path) and (folder / ABOUT).is_file():
        about = read_about(folder)
        corpus = str(about["corpus"]["name"])
        actors = [*about["train_actors"], *about["validation_actors"]]
        known = {str(actor) if JOINT in corpus else f"{corpus} {actor}" for actor in actors}
        trained += sorted(known & {f"{store.corpus} {header.actor}" for header in headers})
    if trained:
        raise InputError(
            f"model {model.name} was trained on {listed(trained)}: expected a corpus of other people; "
            "`cfnsr crossval` tests its own"
        )


def _check_preparation(model: Recogniser, corpus: PreparedCorpus) -> None:
    """Refuse a corpus whose clips are not made as the model's were."""
    made, wanted = corpus.preparation.as_json(), model.preparation.as_json()
    missing = [name for name in model.reads.values() if name not in made["modalities"]]
    other = [
        f"{name} {made.get(name)}, not {value}"
        for name, value in wanted.items()
        if name not in APART and made.get(name) != value
    ]
    if missing or other:
        found = [f"without {', '.join(missing)}"] if missing else other
        raise InputError(
            f"{corpus.store.folder} was prepared {listed(found)}: expected clips as model {model.name} reads "
            f"them; prepare the corpus into another folder with --modalities {','.join(model.reads.values())}"
        )


def _as_run(name: str, corpus: PreparedCorpus, labels: LabelSet, test: Predictions) -> Run:
    return Run(
        model=name,
        protocol=f"{EVALUATED}{corpus.store.corpus}",
        preset="",
        fold=1,
        folds=1,
        seed=0,
        epochs=1,
        epoch=1,
        selected_on="validation",
        caveat="",
        leaky=False,
        labels=labels,
        train_actors=(),
        validation_actors=(),
        test_actors=tuple(sorted(set(test.actors), key=str)),
        corpus=corpus.store.corpus,
        clips=len(without_degraded(corpus.headers)),
        fingerprint=corpus.fingerprint,
        recipe={},
        source="",
        preparation=corpus.headers[0].preparation,
        versions={},
        predicted=len(test.clips),
        finished=True,
        history=[{"epoch": 1}],
        test=test,
    )
