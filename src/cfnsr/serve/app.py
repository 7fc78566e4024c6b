"""The web application: a page, the REST API behind it, and its documentation."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from cfnsr import __version__
from cfnsr.data import clip
from cfnsr.errors import InputError
from cfnsr.inference.predict import as_recogniser
from cfnsr.serve import pages, routes
from cfnsr.serve.examples import EXAMPLES, cache, make
from cfnsr.serve.guard import HEADERS, LOOPBACK, Guard
from cfnsr.serve.jobs import Jobs
from cfnsr.serve.limits import Limits
from cfnsr.serve.refusals import Reason, Refusal, internal
from cfnsr.serve.work import Stopped

if TYPE_CHECKING:
    from cfnsr.inference.recogniser import Recogniser
    from cfnsr.models.zoo import Model

DESCRIPTION = (
    "What a model sees and hears in a recording, when, and how sure it is. Whatever is declined has the form "
    "of `Problem`. A recording is deleted as soon as it is worked on; `POST /jobs` has the one exception."
)

log = logging.getLogger(__name__)


def create_app(
    model: Model | Recogniser,
    *,
    max_bytes: int = Limits.max_bytes,
    max_seconds: float = Limits.max_seconds,
    queue: int = Limits.queue,
    workers: int = Limits.workers,
    keep_seconds: float = Limits.keep_seconds,
    stall_seconds: float = Limits.stall_seconds,
    upload_seconds: float = Limits.upload_seconds,
    hosts: Collection[str] | None = LOOPBACK,
    examples: bool = True,
) -> FastAPI:
    """The web application of one model: the page at `/`, and the REST API that `/docs` tells of.

    Args:
        model: from `load_model` or `load_exported`, or any model of the zoo; it is put into evaluation.
        max_bytes: of an upload.
        max_seconds: of a recording.
        queue: uploads that may arrive or wait, besides those being worked on.
        workers: recordings worked on at once.
        keep_seconds: results are kept so long, and a recording where its sender asked for explanations.
        stall_seconds: an upload of which nothing arrives for so long is given up.
        upload_seconds: an upload that takes longer is given up.
        hosts: names and addresses that the server may be called by, IPv6 in brackets; None for any.
        examples: offer examples; they are drawn at the first start and kept in the user's cache.

    Raises:
        InputError: a limit that leaves nothing, a model that needs more than a recording, or no face
            detector.
    """
    recogniser = as_recogniser(model)
    _check_model(recogniser)
    limits = Limits(
        max_bytes=max_bytes,
        max_seconds=max_seconds,
        queue=queue,
        workers=workers,
        keep_seconds=keep_seconds,
        stall_seconds=stall_seconds,
        upload_seconds=upload_seconds,
    )
    jobs = Jobs(recogniser, limits)
    drawn: dict[str, Path] = {}

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with jobs.running():
            over = Event()
            drawing = asyncio.create_task(_draw(drawn, jobs, over)) if examples else None
            try:
                yield
            finally:
                over.set()
                if drawing is not None:  # waited for: its thread is not to write where all was deleted
                    await drawing

    app = FastAPI(
        title="cfnsr",
        version=__version__,
        summary="Emotions in a recording over time.",
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's own load scripts from elsewhere
        redoc_url=None,
        telemetry={"auto_configure": False, "tracing": False, "metrics": False, "logs": False},
    )
    app.state.jobs, app.state.examples = jobs, drawn if examples else None
    app.add_middleware(Guard, hosts=hosts)
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _unknown)
    app.add_exception_handler(Exception, _failed)
    app.include_router(routes.router)
    app.include_router(pages.router)
    app.mount("/page", StaticFiles(directory=pages.FOLDER), name="page")
    return app


def _check_model(recogniser: Recogniser) -> None:
    """Decline a model that cannot predict from a recording alone."""
    if recogniser.normalised:
        raise InputError(
            f"model {recogniser.name} was trained on speakers standardised over all their takes, and a "
            "recording alone cannot be: expected a model trained without --speaker-normalisation"
        )
    if "openface" in recogniser.preparation.modalities:
        raise InputError(
            f"model {recogniser.name} sees OpenFace tracks, which a recording has not: expected a model of "
            "pictures or of sound; use cfnsr predict --openface"
        )
    if "video" in recogniser.preparation.modalities:
        clip.detector()  # better missed now than at the first recording
    evaluate = getattr(getattr(recogniser, "model", None), "eval", None)
    if evaluate is not None:
        evaluate()


async def _draw(drawn: dict[str, Path], jobs: Jobs, over: Event) -> None:
    """Make the examples that are not there yet, one after the other, until it is over."""

    def step() -> None:
        if over.is_set():
            raise Stopped

    folder = await asyncio.to_thread(cache) or jobs.root
    for example in EXAMPLES:
        try:
            drawn[example.name] = await asyncio.to_thread(make, example, folder, step)
        except Stopped:
            return
        except OSError:
            log.warning("an example cannot be written", exc_info=True)


async def _refused(_: Request, error: Exception) -> JSONResponse:
    refusal = cast("Refusal", error)
    return JSONResponse(refusal.as_json(), refusal.status, refusal.headers)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    first = cast("RequestValidationError", error).errors()[0]
    where, given = first["loc"][-1], first.get("input")
    shown = f" is {str(given)[:40]!r}" if given is not None else ""
    return await _refused(request, Refusal(422, "bad request", f"{where}{shown}: {first['msg']}"))


async def _unknown(request: Request, error: Exception) -> JSONResponse:
    """No such address or method."""
    told = cast("HTTPException", error)
    reason: Reason = "not found" if told.status_code == 404 else "bad request"
    headers = dict(told.headers or {})
    message = f"{told.detail}: /docs tells what there is"
    return await _refused(request, Refusal(told.status_code, reason, message, headers))


async def _failed(_: Request, error: Exception) -> JSONResponse:
    refusal = internal()
    return JSONResponse(refusal.as_json(), refusal.status, HEADERS)  # it passes by the guard
