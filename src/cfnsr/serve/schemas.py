"""The forms of the answers, as the documentation of the API tells them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

PROBABILITIES = {"neutral": 0.06, "calm": 0.62, "happy": 0.12, "sad": 0.2}
WINDOW = {
    "start": 0.0,
    "end": 3.3,
    "probabilities": PROBABILITIES,
    "face": True,
    "speech": True,
    "uses": ["video", "audio"],
}
NOTHING: dict[str, Any] = {
    "start": 3.3,
    "end": 6.3,
    "probabilities": None,
    "face": False,
    "speech": False,
    "uses": [],
}
PREDICTION: dict[str, Any] = {
    "file": "upload.mp4",
    "emotion": "calm",
    "probabilities": PROBABILITIES,
    "timeline": [WINDOW, NOTHING],
}
EXPLANATION: dict[str, Any] = {
    "window": 0,
    "emotion": "calm",
    "probabilities": PROBABILITIES,
    "blocks": [
        {
            "stage": 3,
            "weighs": "video",
            "places": [[[0.3, 0.2], [0.1, 0.4]]],
            "steps": [0.5, 0.3, 0.2],
            "centres": [[0.5], [0.25, 0.75], [0.25, 0.75]],
            "moved": 0.04,
            "effective": True,
        }
    ],
    "contributions": [
        {
            "modality": "video",
            "instead": "pictures of one plain colour",
            "probabilities": {"neutral": 0.2, "calm": 0.3, "happy": 0.2, "sad": 0.3},
            "change": 0.32,
            "log_change": 0.73,
        }
    ],
    "features": [],
    "tolerant": False,
}
JOB: dict[str, Any] = {
    "id": "3q2-7wVzT0WmXyJqkq3x2g",
    "state": "done",
    "progress": {"done": 2, "total": 2},
    "before": 0,
    "explainable": True,
    "seconds_left": 597.2,
    "error": None,
    "words": ["Calm all the time. No face, no speech from 0:03 to 0:06: no answer."],
    "result": PREDICTION,
}
HEALTH: dict[str, Any] = {
    "status": "ok",
    "version": "0.1.0",
    "model": "cfn_sr",
    "labels": ["neutral", "calm", "happy", "sad"],
    "reads": {"video": "video", "audio": "audio"},
    "explains": True,
    "all_faces": True,
    "queue": {"waiting": 0, "working": 1, "busy": 1, "places": 17},
    "limits": {"max_bytes": 209_715_200, "max_seconds": 600.0, "windows": 600, "keep_seconds": 600.0},
}


class Window(BaseModel):
    """A stretch of the recording and what the model made of it."""

    start: float = Field(description="Seconds.")
    end: float = Field(description="Seconds.")
    probabilities: dict[str, float] | None = Field(
        description="Of each emotion; null where the model abstains."
    )
    face: bool | None = Field(
        description="Whether a face was seen in half of the pictures; null if not looked for."
    )
    speech: bool | None = Field(
        description="Whether its sound is louder than silence; null if not listened for."
    )
    uses: list[str] = Field(description="What the answer rests on: video, audio, both or nothing.")


class Contribution(BaseModel):
    """How the answer changes when one modality is taken away."""

    modality: str
    instead: str = Field(description="What the model was given in its place.")
    probabilities: dict[str, float]
    change: float = Field(description="Probability of the answer with both, less without this modality.")
    log_change: float = Field(description="The same of its log-probability, in nats.")


class Block(BaseModel):
    """What one cross-modal block looked at. Weights inside the model; not proof of cause."""

    stage: int
    weighs: str
    places: list[list[list[float]]] = Field(description="Weights over time, height and width; they sum to 1.")
    steps: list[float] = Field(description="Weights over the steps of the sound; they sum to 1.")
    centres: list[list[float]] = Field(
        description="Middle of what each place sees, from 0 to 1 along each axis."
    )
    moved: float = Field(
        description="Log-probability of the answer, less what it is when all places weigh the same."
    )
    effective: bool = Field(description="Whether that is 0.01 nats or more; else the map had no effect.")


class Explanation(BaseModel):
    """What the answer in one window rests on."""

    model_config = {"json_schema_extra": {"example": EXPLANATION}}

    window: int = Field(description="Its number in the timeline, from 0.")
    emotion: str
    probabilities: dict[str, float]
    blocks: list[Block]
    contributions: list[Contribution]
    features: list[str] = Field(description="Names of the rows of `places`, of a model of OpenFace tracks.")
    tolerant: bool = Field(description="Whether the model was trained to do without a modality.")


class Prediction(BaseModel):
    """What the model makes of a recording: as `cfnsr predict --json` prints it."""

    model_config = {"json_schema_extra": {"example": PREDICTION}}

    file: str = Field(description="Always `upload` with a suffix: the file's own name is never looked at.")
    emotion: str | None = Field(description="The most probable one; null where the model abstains all along.")
    probabilities: dict[str, float] | None = Field(description="Means over the timeline, in class order.")
    timeline: list[Window]
    notes: list[str] = Field(
        default=[], description="How the recording was read: which of several streams. Only if there are any."
    )
    person: int | None = Field(
        default=None, description="Number from 1; only where several people are followed."
    )
    people: list[Prediction] = Field(default=[], description="With `all_faces`: each person's prediction.")


class Explained(Prediction):
    """A prediction with explanations, where `explain` asked for them."""

    explanations: list[Explanation] = []


class Progress(BaseModel):
    """Windows that are recognised, and all of them; 0 of 0 before they are known."""

    done: int
    total: int


class Error(BaseModel):
    """A reason for programs and a line for people."""

    reason: str = Field(description="One of a closed set, such as `too large`, `busy`, `broken`, `no sound`.")
    message: str = Field(description="What was given, what was expected, what to do.")


class Problem(BaseModel):
    """Every answer that is no success has this form."""

    model_config = {
        "json_schema_extra": {
            "example": {
                "error": {
                    "reason": "broken",
                    "message": "upload.mp4 is empty: expected a video or sound file; copy it again",
                }
            }
        }
    }

    error: Error


class Accepted(BaseModel):
    """A job that waits for its turn."""

    model_config = {"json_schema_extra": {"example": {"id": JOB["id"], "state": "waiting"}}}

    id: str = Field(description="Unguessable: who knows it may ask for the result.")
    state: str


class Job(BaseModel):
    """A job's state, and its result once there is one."""

    model_config = {"json_schema_extra": {"example": JOB}}

    id: str
    state: str = Field(description="waiting, working, done, failed or cancelled.")
    progress: Progress
    before: int = Field(description="Jobs that wait in front of it.")
    explainable: bool = Field(
        description="Whether the recording is still there, so that it can be explained."
    )
    seconds_left: float | None = Field(description="Until job, result and recording are deleted.")
    error: Error | None = Field(description="Why it failed.")
    words: list[str] = Field(description="The result in a few sentences; then those of each person.")
    result: Prediction | None


class Queue(BaseModel):
    """How much there is to do. A server whose `busy` equals its `places` answers 429."""

    waiting: int
    working: int
    busy: int
    places: int


class Bounds(BaseModel):
    """What the server takes."""

    max_bytes: int
    max_seconds: float
    windows: int
    keep_seconds: float


class Health(BaseModel):
    """Which model is served, and how busy the server is."""

    model_config = {"json_schema_extra": {"example": HEALTH}}

    status: str
    version: str
    model: str
    labels: list[str] = Field(description="Emotions in class order.")
    reads: dict[str, str] = Field(description="What the model sees and hears.")
    explains: bool
    all_faces: bool
    queue: Queue
    limits: Bounds


class Example(BaseModel):
    """A recording to try: a drawn face that speaks, no person."""

    name: str
    title: str
    file: str = Field(description="Its address on this server.")
    seconds: float
