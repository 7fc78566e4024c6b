"""Models named with their encoders, as the grid trains them."""

from pathlib import Path

import numpy as np
import pytest

from cfnsr.data.store import Header, Store
from cfnsr.emotions import LabelSet
from cfnsr.errors import InputError
from cfnsr.features.preparation import Preparation
from cfnsr.models import zoo
from cfnsr.training.config import find_recipe
from cfnsr.training.crossval import check_jobs, plan
from cfnsr.training.prepared import PreparedCorpus

RECIPE = find_recipe("small")
PREPARATION = Preparation(
    modalities=("openface", "speech"), speech_encoder="tiny", speech_sha256="0" * 64, speech_speeds=()
)
LABELS = LabelSet("two", ("calm", "angry"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> PreparedCorpus:
    """Three actors' features, two takes each."""
    store = Store.create(tmp_path_factory.mktemp("features"), "made-up", LABELS, PREPARATION.as_json())
    for actor in (1, 2, 3):
        for emotion in LABELS.emotions:
            name = f"{emotion}-{actor}"
            source = {"file": name, "bytes": 1, "mtime_ns": 1, "sha256": f"hash of {name}"}
            sources = {"audio": source, "openface": source}
            store.write(
                Header(name, emotion, actor, None, {}, sources, PREPARATION.as_json()),
                {
                    "openface": np.full((7, 41), 10 * actor + LABELS.index(emotion), np.float32),
                    "openface_times": np.arange(7.0),
                    "confidence": np.ones(7, np.float32),
                    "speech": np.zeros((4, 9, 16), np.float16),
                },
            )
    return PreparedCorpus(store)


def test_each_fusion_starts_from_its_own_encoders(corpus: PreparedCorpus, tmp_path: Path) -> None:
    models = ["cfn_sr+openface+speech", "cfn_sr_features", "mmtm+speech"]
    jobs = plan(models, corpus, protocol="leave_one_actor_out", recipe=RECIPE, folds=[2])
    assert [job.model for job in jobs] == [
        "video+openface",
        "audio+speech",
        "cfn_sr+openface+speech",
        "cfn_sr_features",
        "video",
        "mmtm+speech",
    ]
    assert tuple(job.model for job in jobs[-1].encoders) == ("video", "audio+speech")
    assert jobs[-1].folder(tmp_path) == tmp_path / "leave_one_actor_out" / "mmtm+speech" / "seed_0" / "fold_2"
    alone = plan(models, corpus, protocol="nested", recipe=RECIPE.changed(pretrain=False), folds=[1])
    assert [job.model for job in alone] == models


def test_the_encoders_are_made_for_the_corpus(corpus: PreparedCorpus, tmp_path: Path) -> None:
    """41 features and 4 layers of 16, not the defaults: the clips tell."""
    jobs = plan(["cfn_sr+openface+speech"], corpus, protocol="nested", recipe=RECIPE)
    check_jobs(jobs, corpus, tmp_path, resume=False)


def test_encoders_that_the_corpus_was_not_prepared_for(corpus: PreparedCorpus, tmp_path: Path) -> None:
    jobs = plan(["cfn_sr+speech"], corpus, protocol="nested", recipe=RECIPE)
    with pytest.raises(InputError, match=r"without video: .*--modalities video,speech,openface"):
        check_jobs(jobs, corpus, tmp_path, resume=False)


def test_an_encoder_of_ones_own_under_a_chosen_name(corpus: PreparedCorpus, tmp_path: Path) -> None:
    try:

        @zoo.entry("theirs", fusion="model")
        def theirs(settings: zoo.Settings) -> zoo.Model:
            return zoo.Settings(settings.classes, video="openface", audio="speech").fuse()

        jobs = plan(["theirs+openface+speech"], corpus, protocol="nested", recipe=RECIPE)
        with pytest.raises(InputError, match=r"another video encoder than model video\+openface"):
            check_jobs(jobs, corpus, tmp_path, resume=False)
    finally:
        zoo.ENTRIES.pop("theirs", None)
