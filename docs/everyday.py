"""Train the models that come with the package, voice and everyday.

The voice is trained on RAVDESS and nEMO, prepared with degraded versions of their takes (`make everyday` does
both). What has to be chosen, the strength of its regularisation and its temperature, is chosen by leaving one of
the two out: on people, microphones and a language that did not train. The face is a pretrained network's scores;
their temperature comes from the few clips with faces that are at hand.

    python docs/everyday.py PREPARED_RAVDESS PREPARED_NEMO PREPARED_FACES src/cfnsr/pretrained
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from cfnsr.data.folds import PROTOCOLS
from cfnsr.emotions import parse_labels
from cfnsr.models.names import find
from cfnsr.models.streams import OneStream
from cfnsr.training.config import find_recipe
from cfnsr.training.devices import accelerator
from cfnsr.training.fold import build
from cfnsr.training.job import Job
from cfnsr.training.loop import Trainer
from cfnsr.training.prepared import PreparedCorpus

LABELS = parse_labels("neutral,happy,sad,angry,fearful,disgust,surprised,calm=neutral")
VOICE, EVERYDAY = "logistic_audio+speech", "logistic_late+expression+speech"
PROTOCOL = PROTOCOLS["leave_one_corpus_out"]


class Voice:
    """Trainings of the voice on a joined corpus.

    Args:
        corpus: of two corpora, so that each fold of `PROTOCOL` tests one.
    """

    def __init__(self, corpus: PreparedCorpus) -> None:
        self.corpus, self.folds = corpus, corpus.folds(PROTOCOL)
        self.recipe = find_recipe("robust")
        self.job = Job(find(VOICE), PROTOCOL, self.folds[0], len(self.folds), 0, self.recipe)
        self.model, self.spec = build(self.job, corpus)
        assert isinstance(self.model, OneStream)
        self.clips = corpus.clips(self.model.reads, self.spec.look)

    def actors(self, left_out: int | None) -> list[int | str]:
        """Actors of all corpora but one."""
        tested = [fold.test for place, fold in enumerate(self.folds) if place != left_out]
        return [actor for actors in tested for actor in actors]

    def train(self, left_out: int | None, epoch: int | None = None) -> Trainer:
        """Train on all corpora but one, at the strength of an epoch, or at all, scored on that corpus."""
        places = self.corpus.places(PROTOCOL, self.actors(left_out), degraded=True)
        select = []
        if epoch is None and left_out is not None:
            select = self.corpus.places(PROTOCOL, self.folds[left_out].test)
        with TemporaryDirectory() as folder:
            trainer = Trainer(
                self.model,
                self.job,
                self.clips,
                places,
                select,
                folder=Path(folder),
                accelerator=accelerator(self.recipe),
                stop=epoch,
            )
            trainer.fit()
        return trainer
