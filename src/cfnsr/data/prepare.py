"""A corpus -> a store of prepared clips, on all cores, doing only what is missing or changed."""

import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field, fields
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

from cfnsr.corpus.take import Take
from cfnsr.data.clip import fingerprint, prepare_clip, sources
from cfnsr.data.index import Stamp
from cfnsr.data.store import Header, Store
from cfnsr.errors import InputError
from cfnsr.features.preparation import Preparation
from cfnsr.features.speech_encoder import find_encoder
from cfnsr.files import ESCAPED, FULL, to_csv, write_atomically
from cfnsr.media.errors import MediaError
from cfnsr.media.face import yunet_weights
from cfnsr.media.openface import is_means
from cfnsr.plugin import blamed
from cfnsr.processes import Spread, WorkerDied, cores, map_surviving, time_limit

MACHINE = (*FULL, errno.EROFS, errno.EMFILE, errno.ENFILE)  # errors that are no recording's


@dataclass(frozen=True)
class Failure:
    """A take that could not be prepared: one line of the failure report."""

    name: str
    file: str
    reason: str
    message: str


Made: TypeAlias = tuple[Header, Stamp]  # a clip that was written: what the index needs of it


@dataclass
class Outcome:
    """Result of a run of the preparation."""

    made: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


def is_current(header: Header | None, take: Take, preparation: Preparation) -> bool:
    """Look whether preparing this take again would give the same clip."""
    facts = ("emotion", "actor", "sex", "attributes")
    if header is None or header.preparation != _as_json(preparation):
        return False
    if any(getattr(header, name) != getattr(take, name) for name in facts):
        return False
    now = sources(take, preparation)
    return now.keys() == header.sources.keys() and all(
        _unchanged(path, take, header.sources[role]) for role, path in now.items()
    )


@cache
def _as_json(preparation: Preparation) -> dict[str, Any]:
    return preparation.as_json()


def _unchanged(path: Path, take: Take, recorded: Mapping[str, Any]) -> bool:
    try:
        if "bytes" in recorded:
            status = path.stat()
            same_size = status.st_size == recorded["bytes"]
            if same_size and status.st_mtime_ns == recorded["mtime_ns"]:
                return True
            if not same_size and not is_means(path):
                return False
        # A copied or touched file has another time and the same content; a grown table has the same row.
        return bool(fingerprint(path, take)["sha256"] == recorded["sha256"])
    except MediaError:
        return False


def prepare_corpus(
    takes: Sequence[Take],
    store: Store,
    preparation: Preparation,
    *,
    workers: int | None = None,
    spread: Spread | None = None,
    progress: Callable[[Take, str], None] = lambda take, state: None,
) -> Outcome:
    """Prepare every take that is missing or changed; a take that fails is reported and the run goes on.

    Args:
        workers: processes; all cores when None. 0 is this process, which a hostile file may take down.
        spread: the map over takes in their place, such as `map_on_cluster`.
        progress: called after each take with "made", "kept" or "failed".

    Raises:
        InputError: when the disk is full (what was made stays), or the speech encoder cannot be had.
    """
    outcome = Outcome()
    todo = []
    with store.index(whole=True) as index:
        there = store.update(index)
        for take in takes:
            if is_current(store.known(index, there, take.name), take, preparation):
                outcome.kept.append(take.name)
                progress(take, "kept")
            else:
                todo.append(take)
        with _failures(store) as report:
            todo, faceless = _without_detector(todo, preparation)
            if todo and preparation.pretrained:  # fetched once, before the workers ask for it
                find_encoder(preparation.speech_encoder, preparation.speech_sha256)
            prepare = partial(_prepare_one, store=store, preparation=preparation)
            spread = spread or partial(map_surviving, workers=cores() if workers is None else workers)
            for take, result in chain(faceless, spread(prepare, todo, failed=_died)):
                if isinstance(result, Failure):
                    outcome.failures.append(result)
                    report(result)
                    progress(take, "failed")
                else:
                    header, stamp = result
                    index.put(store.file(take.name), stamp, vars(header))
                    outcome.made.append(take.name)
                    progress(take, "made")
        if todo:
            store.update(index)
    return outcome


def _without_detector(
    takes: list[Take], preparation: Preparation
) -> tuple[list[Take], list[tuple[Take, Failure]]]:
    """Fetch the detector's weights once, before workers ask for them; in vain, set aside who needs them."""
    if not preparation.of_pictures:
        return takes, []
    # Means do not say where in the picture the face is.
    needing = [take for take in takes if take.openface is None or is_means(take.openface)]
    try:
        if needing:
            yunet_weights()
    except InputError as error:
        if len(needing) == len(takes):
            raise
        failures = [(take, _failure(take, "missing", str(error))) for take in needing]
        return [take for take in takes if take not in needing], failures
    return takes, []


def _failure(take: Take, reason: str, message: str) -> Failure:
    return Failure(take.name, _file(take), reason, message)


def _file(take: Take) -> str:
    return str(take.video or take.audio or take.openface)


def _died(take: Take, death: WorkerDied) -> Failure:
    return _failure(take, "timeout" if death.late else "crash", str(death))


def _prepare_one(take: Take, store: Store, preparation: Preparation) -> Made | Failure:
    try:
        with time_limit(take.video, take.audio, take.openface):
            clip = prepare_clip(take, preparation, threads=1)
        return clip.header, store.write(clip.header, clip.tensors)
    except MediaError as error:
        return _failure(take, error.reason, f"{error}{_set_aside(take, store, preparation)}")
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise InputError(
                f"the disk of {store.folder} is full: expected room for more clips; free some and run the "
                "same command again, what is prepared stays"
            ) from None
        return _failure(take, *fault(error, _file(take)))


def fault(error: Exception, file: str) -> tuple[str, str]:
    """Tell what is wrong with a recording by what reading it raised: a reason and words.

    Raises what is nothing about the recording, for the next would fail alike: the machine's errors, a
    plugin's, and any other `InputError`.
    """
    if isinstance(error, MediaError):
        return error.reason, str(error)
    if isinstance(error, OSError) and error.errno not in MACHINE:
        return "broken", str(error)
    if isinstance(error, (InputError, OSError)):
        raise error
    if isinstance(error, MemoryError):
        return "too large", f"{file} takes more memory than a worker may have"
    if plugin := blamed(error):
        raise InputError(f"plugin {plugin} fails with {type(error).__name__}: {error}; mend it") from None
    # A codec's or OpenCV's own.
    return "broken", f"{file}: {type(error).__name__}: {' '.join(str(error).split())}"


def _set_aside(take: Take, store: Store, preparation: Preparation) -> str:
    """Move a clip whose recording changed and can no longer be prepared out of the training; say so."""
    header = store.header(take.name)
    now = sources(take, preparation)
    if not header or all(
        role not in header.sources or _unchanged(path, take, header.sources[role])
        for role, path in now.items()
    ):
        return ""
    clip = store.path(take.name)
    outdated = store.folder / "outdated" / clip.name
    write_atomically(outdated, lambda temporary: temporary.write_bytes(clip.read_bytes()))
    clip.unlink()
    return f"; the clip made before it changed is now {outdated}"


@contextmanager
def _failures(store: Store) -> Iterator[Callable[[Failure], None]]:
    """Begin the failure report anew; gives what adds a line to it, which is there at once on a disk."""
    with (store.folder / "failures.csv").open("w", encoding="utf-8", errors=ESCAPED, newline="") as file:

        def add(*cells: object) -> None:
            file.write(to_csv([cells]))
            file.flush()

        add(*(column.name for column in fields(Failure)))
        yield lambda failure: add(*astuple(failure))
