"""The parameters of requests and the forms of answers, for `/openapi.json` and `/docs`.

The forms describe what the library's `as_json` methods give. Its dataclasses cannot do that themselves: they
hold arrays, and leave out what is empty.
"""

from __future__ import annotations

from pydantic import BaseModel, Field

from cfnsr.data.windows import HOP, LEAST_HOP, LONGEST
from cfnsr.inference.timeline import Window
from cfnsr.media.container import Streams


class Options(BaseModel):
    """Parameters of a request that predicts; they are described to its sender."""

    model_config = {"frozen": True}

    window: float | None = Field(
        None,
        description="Seconds of a window, 1.5 to 30 for most models; if not given, a recording of up to 6 s "
        "is one window.",
    )
    hop: float = Field(
        HOP, ge=LEAST_HOP, le=LONGEST, description="Seconds from one window to the next, 0.1 to 30."
    )
    all_faces: bool = Field(False, description="Follow everyone in the picture, not only the largest face.")
    video_stream: int | None = Field(
        None,
        ge=1,
        description="Which stream of pictures, where the recording has several, counted from 1; if not "
        "given, the one that is marked default, else the first.",
    )
    audio_stream: int | None = Field(None, ge=1, description="The same of the sound.")
    explain: bool = Field(
        False,
        description="`/predict`: explain every window too, up to 60, which is several times the work. "
        "`/jobs`: keep the recording for `keep_seconds` after the prediction, to explain single windows.",
    )

    @property
    def streams(self) -> Streams:
        """Those of the recording to read, where it has several."""
        return Streams(self.video_stream, self.audio_stream)


class Contribution(BaseModel):
    """Change of the answer when one modality is taken away.

    `instead` is what the model was given in its place. `change` is the probability of the answer with both
    modalities, less that without this one; `log_change` the same of log-probabilities, in nats.
    """

    modality: str
    instead: str
    probabilities: dict[str, float]
    change: float
    log_change: float


class Block(BaseModel):
    """One cross-modal block: token weights inside the model, which are no proof of cause.

    `places` are over time, height and width, `steps` over the sound; each sum to 1. `centres` are the middle
    of what each place sees, from 0 to 1 along each axis. `moved` is the log-probability of the answer, less
    what it is with uniform weights; `effective` is whether that is 0.01 nats or more.
    """

    stage: int
    weighs: str
    places: list[list[list[float]]]
    steps: list[float]
    centres: list[list[float]]
    moved: float
    effective: bool


class Explanation(BaseModel):
    """The grounds of the answer in one window.

    `window` is its number in the timeline, from 0. `features` are names of the rows of `places`, of a model
    of OpenFace tracks. `tolerant` is whether the model was trained to do without a modality.
    """

    window: int
    emotion: str
    probabilities: dict[str, float]
    blocks: list[Block]
    contributions: list[Contribution]
    features: list[str]
    tolerant: bool


class Prediction(BaseModel):
    """A recording's emotions: as `cfnsr predict --json` prints it.

    `file` is `upload` with a suffix: the file's own name is never looked at. `emotion` and `probabilities`
    are null where the model abstains all along. `notes`, on which of several streams were read, `person` and
    `people`, with `all_faces`, are left out where there are none.
    """

    file: str
    emotion: str | None
    probabilities: dict[str, float] | None
    timeline: list[Window]
    notes: list[str] = []
    person: int | None = None
    people: list[Prediction] = []


class Explained(Prediction):
    """A prediction, with explanations where `explain` asked for them."""

    explanations: list[Explanation] = []


class Error(BaseModel):
    """Why a request was declined or a job failed."""

    reason: str = Field(description="One of a closed set, such as `too large`, `busy`, `broken`, `no sound`.")
    message: str = Field(description="What was given, what was expected, what to do.")


class Problem(BaseModel):
    """Every answer that is no success has this form."""

    error: Error


class Accepted(BaseModel):
    """A job that waits for its turn. Its `id` is unguessable: who knows it may ask for the result."""

    id: str
    state: str


class Progress(BaseModel):
    """Windows that are recognised, and all of them; 0 of 0 before they are known."""

    done: int
    total: int


class Job(Accepted):
    """A job's state: waiting, working, done, failed or cancelled; and its result once it is done.

    `before` are the jobs that wait in front of it. It is `explainable` while the recording is there.
    `seconds_left` are until all is deleted. `words` are the result in a few sentences, then each person's.
    """

    progress: Progress
    before: int
    explainable: bool
    seconds_left: float | None
    error: Error | None
    words: list[str]
    result: Prediction | None


class Queue(BaseModel):
    """Work at hand. A server whose `busy` equals its `places` answers 429."""

    waiting: int
    working: int
    busy: int
    places: int


class Bounds(BaseModel):
    """Limits of the server."""

    max_bytes: int
    max_seconds: float
    windows: int
    keep_seconds: float


class Health(BaseModel):
    """The served model, with its emotions in class order and its inputs, and how busy the server is."""

    status: str
    version: str
    model: str
    labels: list[str]
    reads: dict[str, str]
    explains: bool
    all_faces: bool
    queue: Queue
    limits: Bounds
