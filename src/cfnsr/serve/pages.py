"""What a browser shows: the page, the examples on it, and the documentation of the API."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, HTMLResponse, Response

from cfnsr import __version__
from cfnsr.inference.palette import colours
from cfnsr.serve.examples import EXAMPLES
from cfnsr.serve.reference import reference
from cfnsr.serve.refusals import Refusal
from cfnsr.serve.routes import AllJobs, explains, looks_for_faces
from cfnsr.serve.uploads import SUFFIXES

FOLDER = Path(__file__).parent / "page"

router = APIRouter(include_in_schema=False)


@router.get("/")
async def page() -> Response:
    """The page itself: a file that knows nothing of the model, and asks for `/settings`."""
    return FileResponse(FOLDER / "index.html", headers={"cache-control": "no-cache"})


@router.get("/favicon.ico")
async def icon() -> Response:
    """What some browsers ask for though the page names another."""
    return FileResponse(FOLDER / "icon.svg", media_type="image/svg+xml")


@router.get("/settings")
async def settings(request: Request, jobs: AllJobs) -> dict[str, Any]:
    """What the page needs to know."""
    recogniser, limits = jobs.recogniser, jobs.limits
    return {
        "model": recogniser.name,
        "version": __version__,
        "colours": colours(recogniser.labels.emotions),
        "sees": "video" in recogniser.reads,
        "hears": "audio" in recogniser.reads,
        "allFaces": looks_for_faces(jobs),
        "explains": explains(jobs),
        "maxBytes": limits.max_bytes,
        "maxSeconds": limits.max_seconds,
        "keepSeconds": limits.keep_seconds,
        "suffixes": sorted(SUFFIXES),
        "examples": [
            {"name": each.name, "title": each.title} for each in EXAMPLES if drawn_by(request) is not None
        ],
    }


def drawn_by(request: Request) -> dict[str, Path] | None:
    """The examples that are drawn by now; None where none are offered."""
    return cast("dict[str, Path] | None", request.app.state.examples)


@router.get("/examples/{name}.mp4")
async def example(name: str, request: Request) -> Response:
    """An example, once it is drawn."""
    drawn = drawn_by(request)
    if drawn is None or name not in drawn:
        raise Refusal(404, "not found", "the example is still being drawn, or there is none: try again")
    return FileResponse(drawn[name], media_type="video/mp4")


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    """The API in words, from the same description as `/openapi.json`."""
    return HTMLResponse(reference(request.app.openapi()), headers={"cache-control": "no-cache"})
