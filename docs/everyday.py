"""Train the models that come with the package, voice and everyday, from RAVDESS and nEMO.

Both corpora are prepared with degraded versions of their takes (`make everyday` does it). What has to be chosen,
the strength of the regularisation and the temperature, is chosen by leaving one of the two corpora out: on
people, microphones and a language that did not train.

    python docs/everyday.py PREPARED_RAVDESS PREPARED_NEMO src/cfnsr/pretrained
"""

from pathlib import Path

from cfnsr.data.folds import PROTOCOLS
from cfnsr.emotions import parse_labels
from cfnsr.models.names import find
from cfnsr.training.config import find_recipe
from cfnsr.training.devices import accelerator
from cfnsr.training.fold import build
from cfnsr.training.job import Job
from cfnsr.training.loop import Trainer
from cfnsr.training.prepared import PreparedCorpus

LABELS = parse_labels("neutral,happy,sad,angry,fearful,disgust,surprised,calm=neutral")
VOICE = "logistic_audio+speech"
FACE = 7  # scores, the last of an expression's values, in the order of `LABELS`


def places_of(corpus: PreparedCorpus, name: str, *, degraded: bool) -> list[int]:
    """Places of the clips of one of the corpora."""
    protocol = PROTOCOLS["leave_one_corpus_out"]
    units = [fold.test for fold in corpus.folds(protocol) if str(fold.test[0]).startswith(f"{name} ")]
    return corpus.places(protocol, units[0], degraded=degraded)


def trainer(
    corpus: PreparedCorpus, train: list[int], select: list[int], folder: Path, stop: int | None
) -> Trainer:
    """Set up a training of the voice: on some clips, at each strength or that of one epoch alone."""
    protocol, recipe = PROTOCOLS["leave_one_corpus_out"], find_recipe("robust")
    job = Job(find(VOICE), protocol, corpus.folds(protocol)[0], 2, 0, recipe)
    model, spec = build(job, corpus)
    clips = corpus.clips(model.reads, spec.look)
    made = Trainer(
        model, job, clips, train, select, folder=folder, accelerator=accelerator(recipe), stop=stop
    )
    model.config = spec  # type: ignore[assignment]
    return made
