"""The page in a real Chromium, without a screen: what people do with it, by mouse, by keyboard, by ear."""

import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cfnsr.inference.timeline import Prediction, Window, segments

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright to test the page")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium to test the page with")

Make = Callable[..., Any]
PATIENCE = 60_000  # milliseconds
FAKE_CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as running:
        unboxed = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium has no sandbox for root
        browser = running.chromium.launch(
            executable_path=CHROMIUM,
            args=[*FAKE_CAMERA, "--autoplay-policy=no-user-gesture-required", *unboxed],
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def served(serve: Make, new_seer: Make) -> Iterator[Any]:
    with serve(new_seer(modality_dropout=0.3), max_bytes=3_000_000, max_seconds=60) as served:
        yield served


@pytest.fixture
def open_page(browser: Any) -> Iterator[Make]:
    """Opens a server's page, and afterwards looks whether anything went wrong in it."""
    contexts, wrong = [], []

    def open_page(served: Any, *, width: int = 1000, fine: str = "", script: str = "", **how: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 800}, **how)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "console",
            lambda said: (
                said.type == "error" and not (fine and fine in said.text) and wrong.append(said.text)
            ),
        )
        page.on(
            "request",
            lambda request: request.url.startswith((served.address, "blob:")) or wrong.append(request.url),
        )
        page.add_init_script(script)
        page.goto(f"{served.address}/")
        until_true(page, "document.querySelector('#bounds').textContent")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture(scope="module")
def talk(film: Make) -> Path:
    """9.5 s: a face, silent at first and gone at the end."""
    file: Path = film(9.5, lambda time: [("r", 20)] if time < 6.5 else [], silent=(0, 3))
    return file


def until_true(page: Any, expression: str) -> None:
    """Wait until it is true in the page; Playwright's own way evaluates text there, which is forbidden."""
    for _ in range(PATIENCE // 20):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(20)
    raise AssertionError(f"never true: {expression}")


def look(page: Any, file: Path) -> None:
    """Choose a file and wait for its timeline."""
    page.set_input_files("#file", file)
    page.wait_for_selector("#result:not([hidden])")
    until_true(page, "document.querySelector('#player').readyState > 0")


def now(page: Any) -> float:
    """Where the player is."""
    until_true(page, "!document.querySelector('#player').seeking")
    second: float = page.evaluate("document.querySelector('#player').currentTime")
    return second


def test_from_a_file_to_its_downloads(open_page: Make, served: Any, talk: Path, until: Make) -> None:
    page = open_page(served)
    look(page, talk)
    (job,) = served.app.state.jobs.jobs.values()
    windows = job.prediction.timeline
    assert page.inner_text("#result-title") == "film.mp4"
    words = page.inner_text("#words")
    assert "No face from 0:0" in words and "voice alone" in words
    assert page.inner_text("#status") == f"Done. {words}" or page.text_content("#status") == f"Done. {words}"

    track = page.locator("#track")
    box = track.bounding_box()
    track.click(position={"x": 0.75 * box["width"], "y": 20})
    assert now(page) == pytest.approx(0.75 * windows[-1].end, abs=0.1)
    here = page.inner_text("#here")
    assert re.fullmatch(r"0:0\d\.\d to 0:0\d\.\d: [a-z]+ \d+ %(, no face: voice alone)?", here)
    assert track.get_attribute("aria-valuetext") == here

    rows = page.locator("#table tbody tr")
    page.click("#table summary")
    starts = [cut.start for cut in segments(job.prediction)]
    assert rows.count() == len(starts)
    rows.nth(1).get_by_role("button").click()
    assert now(page) == pytest.approx(starts[1], abs=0.02)
    assert page.inner_text("#here").startswith(page.inner_text("#table tbody tr:nth-child(2) button"))

    for kind in ("JSON", "CSV", "SRT", "VTT", "Picture"):
        with page.expect_download() as download:
            page.get_by_role("button", name=kind, exact=True).click()
        name = download.value.suggested_filename
        suffix = kind.lower() if kind != "Picture" else "png"
        assert name == f"film.{suffix}"
        content = Path(download.value.path()).read_bytes()
        if kind == "JSON":
            assert json.loads(content) == json.loads(json.dumps(job.prediction.as_json()))
        else:
            assert content == served.client.get(f"/jobs/{job.id}/timeline.{suffix}").content

    assert len(served.left()) == 2
    page.click("#forget")
    until(lambda: served.left() == [] and served.app.state.jobs.jobs == {})
    until(lambda: page.locator("#explain").is_disabled())
    assert "in this browser alone" in page.inner_text("#kept")


def test_a_deletion_that_fails_is_told(open_page: Make, served: Any, talk: Path, until: Make) -> None:
    page = open_page(served)
    look(page, talk)
    page.evaluate("() => { real = fetch; fetch = () => Promise.reject(new TypeError('no network')); }")
    page.click("#forget")
    page.locator("#error").wait_for()
    assert "did not delete it" in page.inner_text("#error") and page.locator("#forget").is_enabled()
    page.evaluate("() => { fetch = real; }")
    page.click("#forget")
    until(lambda: "Deleted." in page.inner_text("#kept"))
    assert served.left() == []


def test_an_explanation_that_comes_late_is_not_shown_for_another_person(
    open_page: Make, served: Any, film: Make
) -> None:
    both = film(9, lambda time: [("r", 20)] + ([("b", 130)] if 2 < time < 8 else []))
    page = open_page(served)
    page.click("#options summary")
    page.get_by_label("Follow everyone in the picture").check()
    look(page, both)
    waiting: list[Any] = []
    page.route("**/explanation?*", lambda route: waiting.append(route))
    page.locator("#track").focus()
    page.keyboard.press("Home")
    page.click("#explain")
    page.locator("#explain[aria-busy]").wait_for()
    assert page.locator("#explain").is_disabled(), "one question at a time"
    page.get_by_label("Person 1").check()
    page.wait_for_timeout(50)
    for route in waiting:
        route.continue_()
    page.locator("#explain:not([aria-busy])").wait_for()
    assert page.locator("#explanation").is_hidden() and page.locator("#error").is_hidden()


def test_a_part_is_explained_on_demand(open_page: Make, served: Any, talk: Path) -> None:
    page = open_page(served)
    look(page, talk)
    page.locator("#track").focus()
    page.keyboard.press("End")
    chosen = page.inner_text("#here")
    page.click("#explain")
    page.wait_for_selector("#explanation:not([hidden])")
    title = page.inner_text("#explanation-title")
    assert title.startswith(f"Why {chosen.split()[3]}: the window from 0:0")
    reasons = page.locator("#reasons li").all_inner_texts()
    assert re.fullmatch(r"Probability of \w+ by all that was seen and heard: \d+ %\.", reasons[0])
    assert re.fullmatch(r"Without the pictures \(pictures of one plain colour\): \d+ %\.", reasons[1])
    assert re.fullmatch(r"Without the sound \(silence\): \d+ %\.", reasons[2])
    until_true(page, "document.querySelector('#sheet').naturalWidth > 500")
    assert "figures are in the list" in page.get_attribute("#sheet", "alt")
    assert page.evaluate("document.activeElement.id") == "explanation-title"


def test_the_playhead_goes_with_the_player(open_page: Make, served: Any, talk: Path) -> None:
    page = open_page(served)
    look(page, talk)
    page.evaluate("document.querySelector('#player').playbackRate = 4")
    page.locator("#track").focus()
    page.keyboard.press("Enter")
    until_true(page, "document.querySelector('#player').currentTime > 3")
    page.keyboard.press(" ")
    until_true(page, "document.querySelector('#player').paused")
    second = now(page)
    end = served.app.state.jobs.jobs.popitem()[1].prediction.timeline[-1].end
    until_true(
        page,
        f"Math.abs(parseFloat(document.querySelector('.playhead').style.left) - {100 * second / end}) < 1",
    )


OUTLINE = """() => {
  const at = document.activeElement;
  const { outlineStyle, outlineWidth } = getComputedStyle(at.id === 'file' ? at.nextElementSibling : at);
  return [outlineStyle, outlineWidth];
}"""


def tab_to(page: Any, what: str) -> None:
    """Press Tab until the focus is there."""
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate(f"document.activeElement.matches({what!r})"):
            style, wide = page.evaluate(OUTLINE)
            assert style != "none" and wide != "0px", f"the focus on {what} is not to be seen"
            return
    raise AssertionError(f"{what} is not reached by Tab")


VALUE = "document.querySelector('#track').getAttribute('aria-valuenow') === ({}).toFixed(1)"


def test_by_keyboard_alone(serve: Make, new_seer: Make, open_page: Make, small_examples: None) -> None:
    with serve(new_seer(modality_dropout=0.3), examples=True) as served:
        page = open_page(served, reduced_motion="reduce")
        tab_to(page, "#file")
        tab_to(page, "#record")
        tab_to(page, "#examples li:nth-child(3) button")
        page.keyboard.press("Enter")
        page.wait_for_selector("#result:not([hidden])")
        until_true(page, "document.querySelector('#player').readyState > 0")
        assert page.evaluate("document.activeElement.id") == "result-title"
        tab_to(page, "#track")
        cut = segments(served.app.state.jobs.jobs.popitem()[1].prediction, join=False)
        assert len(cut) > 5
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        assert now(page) == pytest.approx(cut[2].start, abs=0.02)
        until_true(page, VALUE.format(cut[2].start))
        page.keyboard.press("ArrowLeft")
        assert now(page) == pytest.approx(cut[1].start, abs=0.02)
        until_true(page, VALUE.format(cut[1].start))
        page.keyboard.press("End")
        assert now(page) == pytest.approx(cut[-1].start, abs=0.02)
        until_true(page, VALUE.format(cut[-1].start))
        page.keyboard.press("ArrowRight")
        assert page.get_attribute("#track", "aria-valuenow") == f"{cut[-1].start:.1f}"
        page.keyboard.press("Home")
        assert now(page) == 0
        tab_to(page, "#table summary")
        page.keyboard.press("Enter")
        tab_to(page, "#table tbody tr button")
        tab_to(page, "#downloads button")
        tab_to(page, "#forget")


def test_an_example_at_a_click(
    serve: Make, new_ear: Make, open_page: Make, small_examples: None, tmp_path: Path
) -> None:
    with serve(new_ear(), examples=True) as served:
        page = open_page(served)
        names = page.locator("#examples button").all_inner_texts()
        assert names == [
            "A drawn woman, happy",
            "A drawn man, angry",
            "A drawn woman: calm, then gone, then happy",
        ]
        assert "nobody's own" in page.inner_text("#examples")
        page.get_by_role("button", name=names[1]).click()
        page.wait_for_selector("#result:not([hidden])")
        assert page.inner_text("#result-title") == "angry.mp4"
        assert page.locator("#all-faces-field").is_hidden(), "the model sees nothing"
        assert page.locator("#explain").is_hidden(), "and cannot be explained"
    kept = sorted(path.name for path in tmp_path.rglob("*.mp4"))
    assert "angry.mp4" in kept and set(kept) <= {"angry.mp4", "changing.mp4", "happy.mp4"}


def test_what_is_no_recording(open_page: Make, served: Any, tmp_path: Path) -> None:
    page = open_page(served, fine="the server responded with a status of 422")
    (tmp_path / "&lt;b>notes.mp4").write_text("no film")
    page.set_input_files("#file", tmp_path / "&lt;b>notes.mp4")
    alert = page.get_by_role("alert")
    alert.wait_for()
    assert alert.inner_text().startswith("&lt;b>notes.mp4 is not media: expected a video or sound file")
    assert page.locator("#busy").is_hidden() and page.locator("#result").is_hidden()

    (tmp_path / "large.mp4").write_bytes(bytes(3_200_000))
    page.set_input_files("#file", tmp_path / "large.mp4")
    until_true(page, "document.querySelector('#error').textContent.startsWith('large.mp4 has 3 MiB')")
    page.click("#options summary")
    page.fill("#hop", "0.001")
    page.set_input_files("#file", tmp_path / "&lt;b>notes.mp4")
    until_true(page, "document.querySelector('#error').textContent.startsWith('Hop is')")


def test_a_server_that_is_gone(serve: Make, new_ear: Make, open_page: Make, talk: Path) -> None:
    with serve(new_ear()) as served:
        page = open_page(served, fine="ERR_CONNECTION_REFUSED")
    page.set_input_files("#file", talk)
    page.get_by_role("alert").wait_for()
    assert page.get_by_role("alert").inner_text().startswith("The server does not answer")


def test_work_is_cancelled(serve: Make, new_ear: Make, open_page: Make, talk: Path, until: Make) -> None:
    gate = threading.Event()
    model = new_ear(gate)
    with serve(model) as served:
        page = open_page(served)
        page.set_input_files("#file", talk)
        try:
            assert model.reached.wait(60)
            until_true(page, "document.querySelector('#phase').textContent.includes('of 8 windows')")
            assert page.get_attribute("#progress", "max") == "8"
            page.click("#cancel")
            until(lambda: served.app.state.jobs.jobs == {} and served.left() == [])
            assert page.locator("#busy").is_hidden() and page.locator("#error").is_hidden()
            assert page.evaluate("document.activeElement.id") == "file"
        finally:
            gate.set()


def test_who_leaves_the_page_leaves_nothing_behind(
    open_page: Make, served: Any, talk: Path, until: Make
) -> None:
    page = open_page(served)
    before = set(served.left())
    look(page, talk)
    assert len(set(served.left()) - before) == 2
    page.goto("about:blank")
    until(lambda: set(served.left()) <= before)


def test_recording_with_the_webcam(open_page: Make, served: Any) -> None:
    page = open_page(served)
    page.click("#record")
    page.wait_for_selector("#start:visible")
    until_true(page, "document.querySelector('#preview').videoWidth > 0")
    page.click("#start")
    until_true(page, "document.querySelector('#elapsed').textContent === 'Recording: 0:03'")
    page.click("#stop")
    page.wait_for_selector("#result:not([hidden])")
    assert page.inner_text("#result-title") == "recording.webm"
    until_true(page, "Number.isFinite(document.querySelector('#player').duration)")
    page.locator("#track").click(position={"x": 100, "y": 10})
    assert now(page) > 0
    assert page.locator("#studio").is_hidden() and page.evaluate(
        "!document.querySelector('#preview').srcObject"
    )


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            "navigator.mediaDevices.getUserMedia = () => Promise.reject({ name: 'NotAllowedError' })",
            "The browser did not let the page use camera and microphone",
        ),
        (
            "navigator.mediaDevices.getUserMedia = () => Promise.reject({ name: 'NotFoundError' })",
            "No camera or no microphone was found",
        ),
        ("delete window.MediaRecorder", "The browser lets no page record here"),
    ],
)
def test_a_webcam_that_is_refused(open_page: Make, served: Any, script: str, message: str) -> None:
    page = open_page(served, script=script)
    page.click("#record")
    page.get_by_role("alert").wait_for()
    assert page.get_by_role("alert").inner_text().startswith(message)
    assert page.locator("#studio").is_hidden()


def test_several_people(open_page: Make, served: Any, film: Make) -> None:
    both = film(9, lambda time: [("r", 20)] + ([("b", 130)] if 2 < time < 8 else []))
    page = open_page(served)
    page.click("#options summary")
    page.get_by_label("Follow everyone in the picture").check()
    look(page, both)
    assert page.locator("#people label").all_inner_texts() == ["Largest face", "Person 1", "Person 2"]
    page.get_by_label("Person 2").check()
    page.locator("#track").focus()
    page.keyboard.press("Home")
    assert "no face: no answer" in page.inner_text("#here"), "the second is not there at first"
    assert page.locator("#explain").is_disabled()
    page.keyboard.press("ArrowRight")
    assert page.locator("#explain").is_enabled()


SMALL = """() => [...document.querySelectorAll('button, input, summary, [role=slider]')]
  .filter(each => each.offsetParent && Math.min(each.offsetWidth, each.offsetHeight) < 17)
  .map(each => each.outerHTML)"""


@pytest.mark.parametrize(("scheme", "width"), [("light", 1000), ("dark", 320)])
def test_any_width_and_scheme(open_page: Make, served: Any, talk: Path, scheme: str, width: int) -> None:
    page = open_page(served, width=width, color_scheme=scheme)
    look(page, talk)
    page.click("#options summary")
    page.click("#table summary")
    page.wait_for_selector("#table tbody tr")
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "it scrolls sideways"
    red, green, blue = map(
        int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))
    )
    assert (red + green + blue < 200) == (scheme == "dark")
    small = page.evaluate(SMALL)
    assert small == [], "too small for a finger"
    page.goto(f"{served.address}/docs")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


NAMELESS = """() => [...document.querySelectorAll('button, input, video, progress, [role]')]
  .filter(each => each.offsetParent && !each.labels?.length && !each.textContent.trim() && !each.ariaLabel)
  .filter(each => !each.getAttribute('aria-labelledby') && each.role !== 'status')
  .map(each => each.id)"""


def test_what_a_screen_reader_hears(open_page: Make, served: Any, talk: Path) -> None:
    page = open_page(served)
    look(page, talk)
    page.click("#options summary")
    assert page.evaluate(NAMELESS) == ["player"], "which browsers name"
    read = page.locator("main").aria_snapshot()
    assert 'slider "Timeline"' in read and 'heading "A recording"' in read
    assert 'button "Choose a file"' in read and "group" in read
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.locator("h1").count() == 1


CUT = """async (timeline) => {
  const { segments, joined, mark } = await import('/page/segments.js');
  const cut = segments(timeline, timeline[0].start, timeline.at(-1).end);
  return {
    cut: cut.map(each => [each.start, each.end, each.emotion, mark(each), each.window]),
    joined: joined(cut).map(each => [each.start, each.end, each.emotion, mark(each), each.probability]),
  };
}"""


def test_the_page_cuts_a_timeline_as_the_library_does(open_page: Make, served: Any) -> None:
    page = open_page(served)
    rng = np.random.default_rng(0)
    for _ in range(20):
        starts = np.cumsum(rng.uniform(0.2, 3, 12))
        windows = []
        for start in starts.tolist():
            face, speech = rng.uniform(size=2) < 0.7
            uses = tuple(np.array(["video", "audio"])[[face, speech]].tolist())
            happy = float(rng.uniform())
            answer = {"happy": happy, "sad": 1 - happy} if uses else None
            windows.append(Window(start, start + 3.0, answer, bool(face), bool(speech), uses))
        prediction = Prediction("", None, None, tuple(windows))
        found = page.evaluate(CUT, [window.as_json() for window in windows])
        cut = segments(prediction, join=False)
        assert [row[:2] for row in found["cut"]] == [pytest.approx([each.start, each.end]) for each in cut]
        assert [row[2:4] for row in found["cut"]] == [[each.emotion, each.mark] for each in cut]
        whole = segments(prediction)
        assert [row[:2] for row in found["joined"]] == [
            pytest.approx([each.start, each.end]) for each in whole
        ]
        assert [row[2:4] for row in found["joined"]] == [[each.emotion, each.mark] for each in whole]
        assert [row[4] for row in found["joined"]] == [pytest.approx(each.probability) for each in whole]
