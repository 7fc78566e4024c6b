"""The web application: a page, the REST API behind it, and its documentation."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, Response
from fastapi.staticfiles import StaticFiles
from jinja2 import ChainableUndefined, Environment
from markupsafe import Markup, escape
from starlette.exceptions import HTTPException

from cfnsr import __version__
from cfnsr.data import preparer
from cfnsr.errors import InputError
from cfnsr.inference.palette import colours
from cfnsr.inference.recogniser import as_recogniser
from cfnsr.serve import routes
from cfnsr.serve.examples import EXAMPLES, draw
from cfnsr.serve.guard import HEADERS, LOOPBACK, Guard
from cfnsr.serve.jobs import Jobs, explains
from cfnsr.serve.limits import Limits
from cfnsr.serve.refusals import Refusal, internal
from cfnsr.serve.uploads import SUFFIXES

if TYPE_CHECKING:
    from cfnsr.inference.recogniser import Recogniser
    from cfnsr.models.entries import Model

PAGE = Path(__file__).parent / "page"
DESCRIPTION = (
    "Emotions in a recording over time, by video and audio. Every request that is declined answers with a "
    "`Problem`. A recording is deleted as soon as it is worked on; `POST /jobs` has the one exception."
)

pages = APIRouter(include_in_schema=False)


@pages.get("/")
async def page() -> Response:
    """Send the page itself: a file that knows nothing of the model, and asks for `/settings`."""
    return FileResponse(PAGE / "index.html", headers={"cache-control": "no-cache"})


@pages.get("/favicon.ico")  # which some browsers ask for though the page names another
async def icon() -> Response:
    return FileResponse(PAGE / "icon.svg", media_type="image/svg+xml")


@pages.get("/settings")
async def settings(request: Request, jobs: routes.AllJobs) -> dict[str, Any]:
    """Describe the model, the limits and the examples to the page."""
    recogniser, limits, examples = jobs.recogniser, jobs.limits, request.app.state.examples
    return {
        "model": recogniser.name,
        "version": __version__,
        "colours": colours(recogniser.labels.emotions),
        "sees": "video" in recogniser.reads,
        "hears": "audio" in recogniser.reads,
        "either": recogniser.handles_missing,
        "about": request.app.state.about,
        "allFaces": jobs.sees_faces,
        "explains": explains(recogniser),
        "maxBytes": limits.max_bytes,
        "maxSeconds": limits.max_seconds,
        "keepSeconds": limits.keep_seconds,
        "suffixes": sorted(SUFFIXES),
        "examples": [{"name": name, "title": title} for name, (title, _) in examples.items()],
    }


@pages.get("/examples/{name}.mp4")
async def example(name: str, request: Request, jobs: routes.AllJobs) -> Response:
    """Send an example, which is drawn when it is first asked for."""
    if name not in request.app.state.examples:
        raise Refusal(404, "not found", f"there is no example {name[:80]!r}: the page shows those there are")
    async with request.app.state.drawing:  # one at a time: two would write the same file
        path = await asyncio.to_thread(draw, name, jobs.root)
    return FileResponse(path, media_type="video/mp4")


@pages.get("/docs")
async def docs(request: Request) -> Response:
    """Describe the API, from `/openapi.json`; without scripts, so that nothing is loaded from elsewhere."""
    environment = Environment(autoescape=True, undefined=ChainableUndefined)
    environment.filters["marked"] = lambda text: Markup(  # noqa: S704 - escaped first
        re.sub("`(.*?)`", r"<code>\1</code>", str(escape(text or "")))
    )
    template = environment.from_string(PAGE.with_name("docs.html").read_text(encoding="utf-8"))
    return HTMLResponse(template.render(request.app.openapi()), headers={"cache-control": "no-cache"})


def create_app(
    model: Model | Recogniser,
    *,
    hosts: Collection[str] | None = LOOPBACK,
    examples: bool = True,
    about: str = "",
    **limits: Any,
) -> FastAPI:
    """Build the web application of one model: the page at `/`, and the REST API that `/docs` describes.

    Args:
        model: from `load_model` or `load_exported`, or any model of the zoo; it is put into evaluation.
        hosts: names and addresses that the server may be called by, IPv6 in brackets; None for any.
        about: what the page says of the model, beside its name.
        examples: offer examples; they are drawn when first asked for, and kept in the user's cache.
        limits: fields of `Limits`, such as `max_bytes`.

    Raises:
        InputError: a limit that leaves nothing, a model that needs more than a recording, or no face
            detector.
    """
    recogniser = as_recogniser(model)
    _check_model(recogniser)
    jobs = Jobs(recogniser, Limits(**limits))
    app = FastAPI(
        title="cfnsr",
        version=__version__,
        summary="Emotions in a recording over time.",
        description=DESCRIPTION,
        lifespan=lambda _: jobs.running(),
        docs_url=None,  # FastAPI's own load scripts from elsewhere
        redoc_url=None,
        telemetry={"auto_configure": False, "tracing": False, "metrics": False, "logs": False},
    )
    app.state.about = about
    app.state.jobs, app.state.examples, app.state.drawing = jobs, EXAMPLES if examples else {}, asyncio.Lock()
    app.add_middleware(Guard, hosts=hosts)
    for kind in (Refusal, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _declined)
    app.include_router(routes.router)
    app.include_router(pages)
    app.mount("/page", StaticFiles(directory=PAGE), name="page")
    return app


def _check_model(recogniser: Recogniser) -> None:
    """Decline a model that cannot predict from a recording alone."""
    if recogniser.normalised:
        raise InputError(
            f"model {recogniser.name} was trained on speakers standardised over all their takes, and a "
            "recording alone cannot be: expected a model trained without --speaker-normalisation"
        )
    if recogniser.preparation.of_openface:
        raise InputError(
            f"model {recogniser.name} sees OpenFace tracks, which a recording has not: expected a model of "
            "pictures or of sound; use cfnsr predict --openface"
        )
    if recogniser.preparation.of_pictures:
        preparer.detector()  # better missed now than at the first recording
    if explains(recogniser):
        recogniser.model.eval()


async def _declined(_: Request, error: Exception) -> Response:
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        given = first.get("input")
        shown = "" if given is None else f" is {str(given)[:40]!r}"
        error = Refusal(422, "bad request", f"{first['loc'][-1]}{shown}: {first['msg']}")
    elif isinstance(error, HTTPException):  # no such address or method
        message = f"{error.detail}: /docs lists what there is"
        reason: Any = "not found" if error.status_code == 404 else "bad request"
        error = Refusal(error.status_code, reason, message, dict(error.headers or {}))
    elif not isinstance(error, Refusal):
        error = internal()
        error.headers.update(HEADERS)  # it passes by the guard
    return error.response()
