"""Models named with their encoders, as the grid trains them."""

from pathlib import Path

import pytest

from cfnsr.errors import InputError
from cfnsr.training.config import find_recipe
from cfnsr.training.crossval import check_jobs, plan
from cfnsr.training.prepared import PreparedCorpus

RECIPE = find_recipe("small")


def check(tracks: PreparedCorpus, model: str, folder: Path) -> None:
    jobs = plan([model], tracks, protocol="nested", recipe=RECIPE)
    check_jobs(jobs, tracks, folder, resume=False)


def test_each_fusion_starts_from_its_own_encoders(tracks: PreparedCorpus, tmp_path: Path) -> None:
    """They are trained before it, once a fold."""
    models = ["cfn_sr+openface+speech", "cfn_sr_features", "mmtm+speech"]
    jobs = plan(models, tracks, protocol="leave_one_actor_out", recipe=RECIPE, folds=[2, 1])
    streams = ["video+openface", "audio+speech"]
    assert [(job.fold.number, job.model) for job in jobs] == [
        (number, model) for number in (2, 1) for model in (*streams, *models[:2], "video", models[2])
    ]
    assert [job.model for job in jobs[-1].encoders] == ["video", "audio+speech"]
    assert jobs[-1].folder(tmp_path) == tmp_path / "leave_one_actor_out" / "mmtm+speech" / "seed_0" / "fold_1"
    alone = plan(models, tracks, protocol="nested", recipe=RECIPE.changed(pretrain=False), folds=[1])
    assert [job.model for job in alone] == models


def test_the_encoders_are_made_for_the_corpus(tracks: PreparedCorpus, tmp_path: Path) -> None:
    """2 layers of 8, not the defaults: the clips tell. And only of what was prepared."""
    check(tracks, "cfn_sr+openface+speech", tmp_path)
    with pytest.raises(InputError, match=r"without video: .*--modalities video,speech,openface"):
        check(tracks, "cfn_sr+speech", tmp_path)
