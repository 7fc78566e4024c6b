"""The REST API: recordings in, predictions and explanations out."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi import Path as PathParameter
from fastapi.responses import JSONResponse

from cfnsr import __version__
from cfnsr.data.windows import spans
from cfnsr.errors import InputError
from cfnsr.inference.timeline import Prediction
from cfnsr.inference.writers import WRITERS, to_csv
from cfnsr.serve import schemas
from cfnsr.serve.jobs import Job, Jobs, explains
from cfnsr.serve.refusals import Refusal
from cfnsr.serve.schemas import Options
from cfnsr.serve.uploads import PART, drain, receive
from cfnsr.serve.words import in_words

ASK_AGAIN = 0.25  # seconds between two looks whether a client that waits is still there

DECLINED: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "model": schemas.Problem,
        "description": "400: the request is damaged, or the server not called so. 403: another site asked. "
        "404: no such job, window or person; or no longer. 408: the upload was too slow. 409: the job is not "
        "done, or was cancelled. 410: the recording was deleted. 413: the file is too large. 415: the body "
        "is no form. 422: the recording or a parameter cannot be used. 429: too many recordings wait; "
        "`Retry-After` says how many seconds to wait.",
    },
    "5XX": {
        "model": schemas.Problem,
        "description": "500: the server failed. 501: the model cannot do this. 503: too many requests; "
        "`Retry-After` says how many seconds to wait. 507: the disk is full.",
    },
}
FILE = {
    "type": "string",
    "format": "binary",
    "description": "A video, or a sound file for a model that only hears; of its name, the suffix is used.",
}
FORM = {"type": "object", "required": [PART], "properties": {PART: FILE}}
UPLOAD = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": FORM}}}}

router = APIRouter(responses=DECLINED)


def all_jobs(request: Request) -> Jobs:
    return cast("Jobs", request.app.state.jobs)


AllJobs = Annotated[Jobs, Depends(all_jobs)]


def one_job(
    id: Annotated[str, PathParameter(description="What `POST /jobs` answered.")], jobs: AllJobs
) -> Job:
    return jobs.find(id)


OneJob = Annotated[Job, Depends(one_job)]


def check_options(jobs: AllJobs, options: Annotated[Options, Query()]) -> Options:
    """Decline options that the model cannot follow."""
    if options.explain:
        jobs.explainer()
    if options.all_faces and not jobs.sees_faces:
        name = jobs.recogniser.name
        raise Refusal(422, "unsupported", f"model {name} looks for no faces: leave all_faces out")
    try:
        spans(0.0, jobs.recogniser.preparation, options.window, options.hop)
    except InputError as error:
        raise Refusal(422, "bad request", str(error).replace("--", "")) from None
    return options


HowTo = Annotated[Options, Depends(check_options)]


async def _received(request: Request, jobs: Jobs, options: Options, *, keep: bool = False) -> Job:
    """Receive a request's recording, and let its job wait for its turn."""
    try:
        job = jobs.open(options, keep=keep)
    except Refusal:
        await drain(request)
        raise
    try:
        file = await receive(request, job.folder, jobs.limits)
    except BaseException:
        jobs.remove(job)
        raise
    jobs.begin(job, file)
    return job


@router.post(
    "/predict",
    summary="Predict, and wait for the answer",
    response_description="The prediction.",
    response_model=schemas.Explained,
    response_model_exclude_unset=True,
    openapi_extra=UPLOAD,
)
async def predict(request: Request, jobs: AllJobs, options: HowTo) -> dict[str, Any]:
    """The answer is what `cfnsr predict --json` prints of one file.

    The recording is deleted before the answer is sent, and when the client goes away.
    """
    job = await _received(request, jobs, options)
    try:
        while not job.over.is_set() and not await request.is_disconnected():
            with suppress(TimeoutError):
                await asyncio.wait_for(job.over.wait(), ASK_AGAIN)
        answer = job.answer().as_json()
        return {**answer, "explanations": job.explained} if options.explain else answer
    finally:
        jobs.remove(job)


@router.post(
    "/jobs",
    summary="Predict, and ask for the answer later",
    response_description="The job waits for its turn; `Location` is its address.",
    status_code=202,
    response_model=schemas.Accepted,
    openapi_extra=UPLOAD,
)
async def send(request: Request, response: Response, jobs: AllJobs, options: HowTo) -> dict[str, Any]:
    """Answers when the recording has arrived; `GET /jobs/{id}` then says how far the work is."""
    job = await _received(request, jobs, options, keep=options.explain)
    response.headers["location"] = f"/jobs/{job.id}"
    return {"id": job.id, "state": job.state}


@router.get(
    "/jobs/{id}",
    summary="A job's state, and its result",
    response_description="How far it is.",
    response_model=schemas.Job,
    response_model_exclude_unset=True,
)
async def state(job: OneJob, jobs: AllJobs) -> dict[str, Any]:
    """The result is there once the state is `done`."""
    waiting = jobs.waiting()
    result = job.prediction if job.state == "done" else None
    everyone = [] if result is None else [result, *result.people]
    return {
        "id": job.id,
        "state": job.state,
        "progress": {"done": job.done, "total": job.total},
        "before": waiting.index(job) if job in waiting else 0,
        "explainable": job.state == "done" and job.file is not None,
        "seconds_left": job.seconds_left(),
        "error": None if job.refusal is None else job.refusal.as_json(),
        "words": [in_words(each) for each in everyone],
        "result": None if result is None else result.as_json(),
    }


@router.delete(
    "/jobs/{id}",
    summary="Stop a job and delete all there is of it",
    response_description="It is deleted.",
    status_code=204,
)
async def delete(job: OneJob, jobs: AllJobs) -> None:
    """Its recording and its result; a worker stops at its next window."""
    jobs.remove(job)


MEDIA_TYPES = {
    "csv": "text/csv",
    "json": "application/json",
    "png": "image/png",
    "srt": "application/x-subrip",
    "vtt": "text/vtt",
}


def _write(prediction: Prediction, kind: str, jobs: Jobs) -> str | bytes:
    if kind == "csv":
        return to_csv(prediction, emotions=jobs.recogniser.labels.emotions)
    if kind != "png":
        return WRITERS[f".{kind}"](prediction)
    from cfnsr.inference.plot import plot

    with tempfile.TemporaryDirectory(dir=jobs.root) as folder:
        return plot(prediction, Path(folder) / "timeline.png").read_bytes()


@router.get(
    "/jobs/{id}/timeline.{kind}",
    summary="A job's timeline as a file",
    response_class=Response,
    responses={200: {"content": {kind: {} for kind in MEDIA_TYPES.values()}, "description": "The file."}},
)
async def timeline(
    job: OneJob,
    jobs: AllJobs,
    kind: Annotated[Literal["csv", "json", "png", "srt", "vtt"], PathParameter(description="Of file.")],
) -> Response:
    """A table, the result itself, a picture, or subtitles."""
    content = await asyncio.to_thread(_write, job.answer(), kind, jobs)
    headers = {"content-disposition": f'attachment; filename="timeline.{kind}"'}
    return Response(content, media_type=MEDIA_TYPES[kind], headers=headers)


@router.get(
    "/jobs/{id}/explanation",
    summary="What the answer in one window rests on",
    response_model=schemas.Explanation,
    responses={
        200: {"content": {"image/png": {}}, "description": "The explanation, or with `format=png` a picture."}
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
    explained = await jobs.explain(job, window, person, png=format == "png")
    if isinstance(explained, bytes):
        return Response(explained, media_type="image/png")
    return JSONResponse({"window": window, **explained})


@router.get(
    "/health",
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
        "explains": explains(jobs.recogniser),
        "all_faces": jobs.sees_faces,
        "queue": {
            "waiting": len(jobs.waiting()),
            "working": sum(job.state == "working" for job in jobs.jobs.values()),
            "busy": jobs.busy,
            "places": limits.places,
        },
        "limits": {name: getattr(limits, name) for name in schemas.Bounds.model_fields},
    }
