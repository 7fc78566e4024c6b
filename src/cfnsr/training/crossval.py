"""Cross-validation: the grid of model x fold x seed, each cell a folder that can be resumed (see `fold`)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from cfnsr.data.dataset import Batch
from cfnsr.data.folds import choose_folds, find_protocol
from cfnsr.errors import InputError
from cfnsr.models.names import find
from cfnsr.training.config import Recipe
from cfnsr.training.fold import Progress, build, train_fold
from cfnsr.training.inputs import at_one_speed, to_input
from cfnsr.training.job import SHARED, Job, describe, refuse_differences
from cfnsr.training.prepared import PreparedCorpus
from cfnsr.training.run import ABOUT
from cfnsr.training.weights import Match, initialise_from


def plan(
    models: Sequence[str],
    corpus: PreparedCorpus,
    *,
    protocol: str,
    recipe: Recipe,
    seeds: Sequence[int] = (0,),
    folds: Sequence[int] | None = None,
) -> list[Job]:
    """List the cells of the grid as they are trained: fold by fold, encoders before what needs them.

    Models and the protocol are looked up by name here, and nowhere below.
    """
    if any(seed < 0 for seed in seeds):
        raise InputError(f"seed {min(seeds)}: expected 0 or more")
    if recipe.tune and not recipe.pretrain:
        raise InputError(
            "--tune chooses for models that start from trained encoders, and --no-pretrain starts none from "
            "them: leave one of the two out"
        )
    chosen = find_protocol(protocol)
    if recipe.needs_validation and chosen.selected_on != "validation":
        what, instead = f"preset {recipe.preset}", "another preset"
        if recipe.tune:
            what, instead = "--tune", "leave --tune out"
        raise InputError(
            f"protocol {protocol!r} has no inner validation actors, and {what} needs them: choose nested, "
            f"leave_one_actor_out or {instead}"
        )
    every, entries = corpus.folds(chosen), [find(name) for name in dict.fromkeys(models)]
    jobs: dict[Job, None] = {}
    for seed in seeds:
        for fold in choose_folds(every, folds):
            for entry in entries:
                job = Job(entry, chosen, fold, len(every), seed, recipe)
                jobs |= dict.fromkeys((*job.encoders, job))
    return list(jobs)


def crossval(
    jobs: Sequence[Job],
    corpus: PreparedCorpus,
    runs: Path,
    *,
    accelerator: Accelerator,
    resume: bool = False,
    progress: Progress = lambda job, step: None,
) -> list[Path]:
    """Train and test every cell of a grid, as `plan` orders them, and return their folders.

    The encoders of a two-stream model are trained alone once a fold and seed, as rows of the same runs, and
    all models that start from them use the same ones.

    Raises:
        InputError: before the first training, when a cell cannot be trained or belongs to other runs.
    """
    check_jobs(jobs, corpus, runs, resume=resume)
    return train_jobs(jobs, corpus, runs, accelerator=accelerator, resume=resume, progress=progress)


def train_jobs(
    jobs: Sequence[Job], corpus: PreparedCorpus, runs: Path, *, accelerator: Accelerator, **options: Any
) -> list[Path]:
    """Run the jobs of `crossval` once they are checked, with the options of `train_fold`."""
    accelerator.wait_for_everyone()
    folders = []
    for job in jobs:
        streams, folder = [stream.folder(runs) for stream in job.encoders], job.folder(runs)
        folders.append(
            train_fold(job, corpus, folder, accelerator=accelerator, start_from=streams, **options)
        )
    return folders


def check_jobs(jobs: Sequence[Job], corpus: PreparedCorpus, runs: Path, *, resume: bool) -> None:
    """Refuse, before hours of training, what would be refused in its middle."""
    if not resume:
        begun = [job.folder(runs) for job in jobs if (job.folder(runs) / ABOUT).exists()]
        if begun:
            raise InputError(f"{begun[0]} has a run already: add --resume to go on, or give another --out")
    for job in {job.model: job for job in jobs}.values():
        check_model(job, corpus)
        if job.entry.source:
            _try(job, corpus)
    for job in jobs:
        corpus.check(job.protocol, job.fold)
    for first in {(job.protocol, job.model): job for job in jobs}.values():
        described = describe(first, corpus).as_json()
        described = {name: described[name] for name in SHARED}
        for other in first.folder(runs).parent.parent.glob(f"seed_*/fold_*/{ABOUT}"):
            refuse_differences(other.parent, described)


def check_model(job: Job, corpus: PreparedCorpus) -> None:
    """Refuse a model that does not suit the corpus, the recipe or the encoders it would start from."""
    model, _ = build(job, corpus, device="meta")
    modalities = job.entry.modalities
    if set(model.reads) != set(modalities):
        raise InputError(
            f"model {job.model} has {' and '.join(model.reads)} and is registered with "
            f"{' and '.join(modalities)}: give its @entry modalities={tuple(model.reads)}"
        )
    if job.recipe.modality_dropout and len(model.reads) > 1:
        normalised, audio = job.protocol.normalised, model.reads["audio"]
        if normalised or corpus.silence(audio) is None:
            raise InputError(
                f"modality dropout {job.recipe.modality_dropout:g} needs sound whose silence is known: model "
                f"{job.model} reads {audio}{', standardised per speaker' if normalised else ''}; train it "
                "without --modality-dropout"
            )
    for modality, stream in zip(modalities, job.encoders, strict=False):  # from none, or from both
        alone, _ = build(stream, corpus, device="meta")
        if _shapes(getattr(model, modality)) != _shapes(getattr(alone, "encoder", None)):
            raise InputError(
                f"model {job.model} has another {modality} encoder than model {stream.model}, which it would "
                "start from: train it with --no-pretrain"
            )


def match_weights(jobs: Sequence[Job], corpus: PreparedCorpus) -> Match | None:
    """Match the recipe's file of video weights, if it has one, with the models that start from nothing.

    Raises:
        InputError: when none of them has a 3D ResNeXt.
    """
    file = jobs[0].recipe.video_weights
    if file is None:
        return None
    for job in {job.model: job for job in jobs if not job.encoders}.values():
        model, _ = build(job, corpus, device="meta")
        if (matched := initialise_from(model, file)) is not None:
            return matched
    raise InputError(
        f"video weights {file.path}: none of {', '.join(dict.fromkeys(job.model for job in jobs))} begins "
        "with a 3D ResNeXt; leave them out, or choose a model that sees pixels"
    )


def _try(job: Job, corpus: PreparedCorpus) -> None:
    """Try a user's own model on three clips: it must give log-probabilities, and each clip its own."""
    model, spec = build(job, corpus)
    clips = corpus.clips(model.reads, spec.look)
    batch = Batch(*map(torch.stack, zip(*(clips[place] for place in range(3)), strict=True)))
    batch = to_input(at_one_speed(batch, torch.zeros(3)), torch.device("cpu"))
    video, audio = batch.video, batch.audio
    try:
        with torch.no_grad():
            together = model.eval()(video, audio)
            alone = torch.cat([model(video[[place]], audio[[place]]) for place in range(3)])
    except RuntimeError as error:
        first = str(error).splitlines()[0]
        raise InputError(f"model {job.model} fails on three clips ({first}): mend its file") from error
    classes = len(spec.labels)
    if together.shape != (3, classes) or not _close(together.exp().sum(dim=1), torch.ones(3)):
        raise InputError(
            f"model {job.model} gives no log-probabilities of {classes} emotions: its head must end with "
            "log_softmax(dim=1)"
        )
    if not _close(together, alone):
        raise InputError(
            f"model {job.model} mixes clips: a clip's result differs by "
            f"{(together - alone).abs().max().item():.2g} with others beside it; see docs/your-own-fusion.md"
        )


def _close(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, atol=1e-3)


def _shapes(module: torch.nn.Module | None) -> dict[str, torch.Size]:
    return {} if module is None else {name: value.shape for name, value in module.state_dict().items()}
