"""A synthetic corpus in RAVDESS's own layout: actors who are drawn, and who speak."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import astuple, dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cfnsr.emotions import RAVDESS
from cfnsr.errors import InputError
from cfnsr.files import check_folder, write_text
from cfnsr.media.encode import write_video
from cfnsr.processes import WorkerDied, cores, map_surviving
from cfnsr.synthesis.acting import MASKED, Performance, mask, perform, show, speak
from cfnsr.synthesis.cast import Person, cast
from cfnsr.synthesis.face import paint
from cfnsr.synthesis.speech import SAMPLE_RATE, opening_at, utter, voice
from cfnsr.synthesis.tracks import write_tracks

VERSION = 3  # of the recipe: raise it when the same seed gives other takes
RECORD = "synthesis.json"
FPS = 30
STRENGTHS = {1: 0.8, 2: 1.0}  # of an expression, by RAVDESS's intensity
MOST_ACTORS = 24  # as in RAVDESS, whose names hold no others
SMALLEST, LARGEST = 96, 2160  # sides of a picture in pixels


@dataclass(frozen=True, order=True)
class Part:
    """One take, as the numbers of a RAVDESS name.

    >>> Part(actor=12, emotion=3, intensity=2, statement=1, repetition=2).name
    '01-01-03-02-01-02-12'
    """

    actor: int
    emotion: int
    intensity: int
    statement: int
    repetition: int

    @property
    def masked(self) -> bool:
        """True if face and voice must be combined: the second repetitions of `MASKED`, in every corpus.

        >>> Part(12, 3, 1, 1, repetition=2).masked, Part(12, 3, 1, 1, repetition=1).masked
        (True, False)
        """
        return self.repetition == 2 and RAVDESS.emotions[self.emotion - 1] in MASKED

    @property
    def name(self) -> str:
        """Stem of the take's files: audio-video, speech, and the numbers."""
        numbers = (1, 1, self.emotion, self.intensity, self.statement, self.repetition, self.actor)
        return "-".join(f"{number:02d}" for number in numbers)

    def files(self, folder: Path) -> tuple[Path, Path]:
        """Paths of the take's video and landmarks in a corpus."""
        video = folder / f"Actor_{self.actor:02d}" / f"{self.name}.mp4"
        return video, folder / "landmarks" / f"{self.name}.csv"


def is_masked(name: str) -> bool:
    """Recognise a masked take of a synthetic corpus by its name; see `Part`.

    Args:
        name: of the take or clip, which ends with RAVDESS's numbers.

    >>> is_masked("01-01-03-02-01-02-12"), is_masked("01-01-04-02-01-02-12")
    (True, False)
    """
    emotion, intensity, statement, repetition, actor = map(int, name.split("-")[-5:])
    return Part(actor, emotion, intensity, statement, repetition).masked


def plan(actors: int = 24, takes: int = 21) -> list[Part]:
    """List the takes of a corpus: RAVDESS's 60 for each actor, in an order that suits smaller numbers.

    First come the eight emotions, then six masked takes, the strong showings (neutral has none) and the
    second repetitions that are not masked; then all of it again with the other statement. The statement also
    alternates from take to take.

    Args:
        actors: how many, from number 1.
        takes: for each actor, up to 60.

    Raises:
        InputError: no actors or takes, or more than there are.

    >>> [part.name for part in plan(actors=1, takes=2)], len(plan())
    (['01-01-01-01-01-01-01', '01-01-02-01-02-01-01'], 504)
    """
    if not 1 <= actors <= MOST_ACTORS:
        raise InputError(f"{actors} actors: expected 1 to {MOST_ACTORS}; give another number")
    if not 1 <= takes <= 60:
        raise InputError(f"{takes} takes for each actor: expected 1 to 60 as in RAVDESS; give another number")

    def turn(part: Part) -> int:
        if part.masked:
            return 1
        return 3 if part.repetition == 2 else 2 * (part.intensity - 1)

    emotions = range(1, len(RAVDESS) + 1)
    shown = [(emotion, 1) for emotion in emotions] + [(emotion, 2) for emotion in emotions if emotion > 1]
    parts = []
    for actor, again in product(range(1, actors + 1), (0, 1)):
        half = []
        for repetition, (emotion, intensity) in product((1, 2), shown):
            statement = 1 + ((actor - 1) // 2 + emotion + intensity + again) % 2
            half.append(Part(actor, emotion, intensity, statement, repetition))
        parts += sorted(half, key=turn)[: max(0, takes - again * len(half))]
    return parts


def synthesize(
    folder: Path,
    *,
    actors: int = 24,
    takes: int = 21,
    seed: int = 0,
    workers: int | None = None,
    size: tuple[int, int] = (320, 240),
    progress: Callable[[Part], None] | None = None,
) -> Path:
    """Write a corpus of drawn actors: `Actor_NN/*.mp4` with sound, and OpenFace-like `landmarks/*.csv`.

    Every take draws from its own generator, so that the files depend on the seed alone, not on the workers. A
    second run makes only what is missing.

    Args:
        folder: of the corpus; made if need be.
        actors: how many; odd numbers are men.
        takes: for each actor, see `plan`.
        seed: another seed is another company of actors.
        workers: processes; None for one a core.
        size: (width, height) of the pictures in pixels, even.
        progress: called with each take when its files are there.

    Raises:
        InputError: numbers that make no sense, or a folder that holds another corpus.
        OSError: a file cannot be written.
    """
    parts = plan(actors, takes)
    if any(side % 2 or not SMALLEST <= side <= LARGEST for side in size):
        sides = f"even sides of {SMALLEST} to {LARGEST} pixels"
        raise InputError(f"pictures of {size[0]} x {size[1]}: expected {sides}; give another size")
    if seed < 0:
        raise InputError(f"seed {seed}: expected 0 or more; give another number")
    if workers is not None and workers < 1:
        raise InputError(f"{workers} workers: expected 1 or more; give another number")
    _claim(folder, json.dumps({"version": VERSION, "seed": seed, "size": size}))
    missing = [part for part in parts if not all(path.is_file() for path in part.files(folder))]
    report = progress or (lambda part: None)
    for part in sorted(set(parts) - set(missing)):
        report(part)
    play_one = partial(play, folder=folder, seed=seed, size=size)
    processes = 0 if workers == 1 else workers or cores()  # nothing here can hang
    for part, _ in map_surviving(play_one, missing, processes, _crashed):
        report(part)
    return folder


def _claim(folder: Path, recipe: str) -> None:
    """Note in the folder what it holds, so that takes of another recipe never mix with these."""
    record = folder / RECORD
    check_folder(folder)
    if record.is_file():
        found = record.read_text(encoding="utf-8", errors="replace").strip()
        if found != recipe:
            holds = f"{folder} holds a synthetic corpus made otherwise ({found})"
            raise InputError(f"{holds}: expected {recipe}; give an empty folder")
    elif any(folder.glob("Actor_*")):
        raise InputError(
            f"{folder} holds takes that were not synthesized: expected an empty folder; give another name"
        )
    else:
        write_text(record, recipe + "\n")


def _crashed(part: Part, death: WorkerDied) -> None:
    raise InputError(
        f"take {part.name}: the process that made it died, most likely for want of memory: expected room for "
        "one more in each process; give fewer --workers, what is made stays"
    )


def play(part: Part, folder: Path, seed: int, size: tuple[int, int]) -> None:
    """Act, film and track one take, and write its two files into the corpus."""
    scene = act(part, seed)
    landmarks, pictures = paint(scene.person, scene.performance, size, scene.rng)
    video, tracks = part.files(folder)
    for path in (video, tracks):
        for left in path.parent.glob(f".{path.stem}.*"):  # by a run that was killed
            left.unlink(missing_ok=True)
    write_tracks(tracks, landmarks, scene.performance, FPS, scene.rng)
    write_video(video, pictures, FPS, scene.waveform, SAMPLE_RATE)


@dataclass(frozen=True)
class Scene:
    """A take before it is filmed: the actor, the face, the sound, and the generator so far."""

    person: Person
    performance: Performance
    waveform: NDArray[np.float32]
    rng: np.random.Generator


def act(part: Part, seed: int) -> Scene:
    """Act one take; everything it draws comes from the seed and its own numbers."""
    rng = np.random.default_rng((seed, *astuple(part)))
    person = cast(part.actor, seed)
    emotion = RAVDESS.emotions[part.emotion - 1]
    strength = STRENGTHS[part.intensity] * rng.uniform(0.95, 1.05)
    if part.masked:
        apex, prosody = mask(emotion, strength, rng)
    else:
        apex, prosody = show(emotion, strength, rng), speak(emotion, strength, rng)
    frames = int(rng.integers(93, 100))
    seconds = frames / FPS
    start = rng.uniform(0.56, 0.68)
    utterance = utter(part.statement, prosody, person.throat, seconds, start, rng)
    waveform = voice(utterance, prosody, person.throat, seconds, rng)
    performance = perform(apex, opening_at(utterance, FPS, frames), FPS, rng)
    return Scene(person, performance, waveform, rng)
