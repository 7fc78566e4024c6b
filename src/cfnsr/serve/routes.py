"""The REST API: recordings in, predictions and explanations out."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi import Path as PathParameter
from fastapi.responses import JSONResponse

from cfnsr import __version__
from cfnsr.errors import InputError
from cfnsr.inference.prediction import Prediction
from cfnsr.inference.subtitles import to_srt, to_vtt
from cfnsr.inference.windows import HOP, LEAST_HOP, LONGEST, spans
from cfnsr.inference.writers import to_csv, to_json
from cfnsr.media.container import Streams
from cfnsr.serve import schemas
from cfnsr.serve.jobs import Job, Jobs, explainable
from cfnsr.serve.refusals import Refusal
from cfnsr.serve.uploads import PART, receive
from cfnsr.serve.words import in_words
from cfnsr.serve.work import Options

ASK_AGAIN = 0.25  # seconds between two looks whether a client that waits is still there

MEANINGS = {
    400: "The request is damaged, or the server is not called so.",
    403: "Another site asked.",
    404: "There is no such job, window or person; or no longer.",
    408: "The upload was too slow.",
    409: "The job is not done, or was cancelled.",
    410: "The recording was deleted.",
    413: "The file is too large.",
    415: "The body is no form.",
    422: "The recording or a parameter cannot be used.",
    429: "Too many recordings wait; `Retry-After` says how many seconds to wait.",
    500: "The server failed.",
    501: "The model cannot do this.",
    507: "The server's disk is full.",
}
UPLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [PART],
                    "properties": {
                        PART: {
                            "type": "string",
                            "format": "binary",
                            "description": "A video, or a sound file for a model that only hears. Only the "
                            "suffix of its name is looked at.",
                        }
                    },
                }
            }
        },
    }
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What an operation may decline, for its documentation."""
    return {status: {"model": schemas.Problem, "description": MEANINGS[status]} for status in statuses}


UPLOADING = problems(400, 403, 408, 413, 415, 422, 429, 500, 507)

router = APIRouter()


def jobs_of(request: Request) -> Jobs:
    """The jobs of the application that was asked."""
    return cast("Jobs", request.app.state.jobs)


AllJobs = Annotated[Jobs, Depends(jobs_of)]


def job_of(
    id: Annotated[str, PathParameter(description="What `POST /jobs` answered.")], jobs: AllJobs
) -> Job:
    """The job that an address names."""
    return jobs.find(id)


OneJob = Annotated[Job, Depends(job_of)]


def options_of(
    jobs: AllJobs,
    window: Annotated[
        float | None,
        Query(
            description="Seconds of a window, 1.5 to 30 for most models; if not given, a recording of up to "
            "6 s is one window."
        ),
    ] = None,
    hop: Annotated[
        float, Query(ge=LEAST_HOP, le=LONGEST, description="Seconds from one window to the next.")
    ] = HOP,
    all_faces: Annotated[
        bool, Query(description="Follow everyone in the picture, not only the largest face.")
    ] = False,
    video_stream: Annotated[
        int | None,
        Query(
            ge=1,
            description="Which stream of pictures, where the recording has several, counted from 1; if not "
            "given, the one that is marked default, else the first.",
        ),
    ] = None,
    audio_stream: Annotated[int | None, Query(ge=1, description="The same of the sound.")] = None,
) -> Options:
    """How to predict."""
    if all_faces and not looks_for_faces(jobs):
        name = jobs.recogniser.name
        raise Refusal(422, "unsupported", f"model {name} looks for no faces: leave all_faces out")
    try:
        spans(0.0, jobs.recogniser.preparation, window, hop)
    except InputError as error:
        raise Refusal(422, "bad request", str(error).replace("--", "")) from None
    return Options(window, hop, all_faces, streams=Streams(video_stream, audio_stream))


HowTo = Annotated[Options, Depends(options_of)]


def looks_for_faces(jobs: Jobs) -> bool:
    """Whether the model sees pictures."""
    return jobs.recogniser.reads.get("video") == "video"


async def _received(request: Request, jobs: Jobs, options: Options) -> Job:
    """A job that waits for its turn, with the recording of a request."""
    job = await jobs.open(options)
    try:
        file = await receive(request, job.folder, jobs.limits)
    except BaseException:
        await asyncio.shield(jobs.remove(job))
        raise
    jobs.begin(job, file)
    return job


@router.post(
    "/predict",
    tags=["recordings"],
    summary="Predict, and wait for the answer",
    response_description="The prediction.",
    response_model=schemas.Explained,
    response_model_exclude_unset=True,
    responses={**UPLOADING, **problems(501)},
    openapi_extra=UPLOAD,
)
async def predict(
    request: Request,
    jobs: AllJobs,
    options: HowTo,
    explain: Annotated[
        bool, Query(description="Explain every window too, up to 60: several times the work.")
    ] = False,
) -> dict[str, Any]:
    """The answer is what `cfnsr predict --json` prints of one file.

    The recording is deleted before the answer is sent, and when the client goes away.
    """
    if explain:
        explainable(jobs.recogniser)
    job = await _received(request, jobs, replace(options, explain=explain))
    try:
        while not job.over.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(job.over.wait(), ASK_AGAIN)
            if await request.is_disconnected():
                break
        told = job.answer().as_json()
        return {**told, "explanations": job.explained} if explain else told
    finally:
        await asyncio.shield(jobs.remove(job))


@router.post(
    "/jobs",
    tags=["recordings"],
    summary="Predict, and ask for the answer later",
    response_description="The job waits for its turn; `Location` is its address.",
    status_code=202,
    response_model=schemas.Accepted,
    responses={**UPLOADING, **problems(501)},
    openapi_extra=UPLOAD,
)
async def send(
    request: Request,
    response: Response,
    jobs: AllJobs,
    options: HowTo,
    explain: Annotated[
        bool,
        Query(
            description="Keep the recording for `keep_seconds` after the prediction, so that windows can be "
            "explained; else it is deleted at once."
        ),
    ] = False,
) -> dict[str, Any]:
    """Answers when the recording has arrived; `GET /jobs/{id}` then tells how far the work is."""
    if explain:
        explainable(jobs.recogniser)
    job = await _received(request, jobs, replace(options, keep=explain))
    response.headers["location"] = f"/jobs/{job.id}"
    return {"id": job.id, "state": job.state}


@router.get(
    "/jobs/{id}",
    tags=["recordings"],
    summary="A job's state, and its result",
    response_description="How far it is.",
    response_model=schemas.Job,
    response_model_exclude_unset=True,
    responses=problems(404, 422),
)
async def state(job: OneJob, jobs: AllJobs) -> dict[str, Any]:
    """The result is there once the state is `done`."""
    waiting = jobs.waiting()
    result = job.prediction if job.state == "done" else None
    told = [] if result is None else [result, *result.people]
    return {
        "id": job.id,
        "state": job.state,
        "progress": {"done": job.done, "total": job.total},
        "before": waiting.index(job) if job in waiting else 0,
        "explainable": job.state == "done" and job.file is not None,
        "seconds_left": job.seconds_left(),
        "error": None if job.refusal is None else job.refusal.as_json()["error"],
        "words": [in_words(each) for each in told],
        "result": None if result is None else result.as_json(),
    }


@router.delete(
    "/jobs/{id}",
    tags=["recordings"],
    summary="Stop a job and delete all there is of it",
    response_description="It is deleted.",
    status_code=204,
    responses=problems(403, 404, 422),
)
async def delete(job: OneJob, jobs: AllJobs) -> None:
    """Its recording and its result; a worker stops at its next window."""
    await jobs.remove(job)


Writer = Callable[[Prediction, Jobs], str | bytes]


def _png(prediction: Prediction, jobs: Jobs) -> bytes:
    from cfnsr.inference.plot import plot

    with tempfile.TemporaryDirectory(dir=jobs.root) as folder:
        return plot(prediction, Path(folder) / "timeline.png").read_bytes()


WRITERS: dict[str, tuple[str, Writer]] = {
    "csv": (
        "text/csv",
        lambda prediction, jobs: to_csv(prediction, emotions=jobs.recogniser.labels.emotions),
    ),
    "json": ("application/json", lambda prediction, _: to_json(prediction)),
    "png": ("image/png", _png),
    "srt": ("application/x-subrip", lambda prediction, _: to_srt(prediction)),
    "vtt": ("text/vtt", lambda prediction, _: to_vtt(prediction)),
}


@router.get(
    "/jobs/{id}/timeline.{kind}",
    tags=["recordings"],
    summary="A job's timeline as a file",
    response_class=Response,
    responses={
        200: {"content": {kind: {} for kind, _ in WRITERS.values()}, "description": "The file."},
        **problems(404, 409, 422),
    },
)
async def timeline(
    job: OneJob,
    jobs: AllJobs,
    kind: Annotated[Literal["csv", "json", "png", "srt", "vtt"], PathParameter(description="Of file.")],
) -> Response:
    """A table, the result itself, a picture, or subtitles."""
    media_type, write = WRITERS[kind]
    content = await asyncio.to_thread(write, job.answer(), jobs)
    headers = {"content-disposition": f'attachment; filename="timeline.{kind}"'}
    return Response(content, media_type=media_type, headers=headers)


@router.get(
    "/jobs/{id}/explanation",
    tags=["recordings"],
    summary="What the answer in one window rests on",
    response_model=schemas.Explanation,
    responses={
        200: {
            "content": {"image/png": {}},
            "description": "The explanation, or with `format=png` a picture.",
        },
        **problems(404, 409, 410, 422, 429, 500, 501),
    },
)
async def explanation(
    job: OneJob,
    jobs: AllJobs,
    window: Annotated[int, Query(ge=0, description="Its number in the timeline, from 0.")],
    person: Annotated[int | None, Query(ge=1, description="Whose timeline; see `people`.")] = None,
    format: Annotated[Literal["json", "png"], Query(description="Numbers, or a picture.")] = "json",
) -> Response:
    """Worked out when asked for, from the recording: the job must have been sent with `explain=true`."""
    sheet = await jobs.explain(job, window, person, drawn=format == "png")
    if sheet.png is not None and format == "png":
        return Response(sheet.png, media_type="image/png")
    return JSONResponse({"window": window, **sheet.told})


@router.get(
    "/health",
    tags=["server"],
    summary="Which model, and how busy",
    response_description="The server lives.",
    response_model=schemas.Health,
)
async def health(jobs: AllJobs) -> dict[str, Any]:
    """Answers as long as the server lives, however busy it is."""
    recogniser, limits = jobs.recogniser, jobs.limits
    return {
        "status": "ok",
        "version": __version__,
        "model": recogniser.name,
        "labels": list(recogniser.labels.emotions),
        "reads": dict(recogniser.reads),
        "explains": explains(jobs),
        "all_faces": looks_for_faces(jobs),
        "queue": {
            "waiting": len(jobs.waiting()),
            "working": jobs.working(),
            "busy": jobs.busy,
            "places": limits.places,
        },
        "limits": {
            "max_bytes": limits.max_bytes,
            "max_seconds": limits.max_seconds,
            "windows": limits.windows,
            "keep_seconds": limits.keep_seconds,
        },
    }


def explains(jobs: Jobs) -> bool:
    """Whether the model can be explained."""
    try:
        explainable(jobs.recogniser)
    except Refusal:
        return False
    return True
