"""The documents keep what they say: the tutorial runs, links lead somewhere, the site builds."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from html import unescape
from importlib import import_module
from importlib.metadata import PackageNotFoundError, metadata
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
from packaging.specifiers import SpecifierSet

import cfnsr
from cfnsr.models.entries import ENTRIES, TABLES

Type = Callable[[str], None]

REPOSITORY = Path(__file__).resolve().parents[1]
DOCS = REPOSITORY / "docs"
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
TUTORIAL, OWN_INPUT = (
    (DOCS / f"your-own-{what}.md").read_text(encoding="utf-8") for what in ("fusion", "input")
)
# How the tests run the tutorial in less time than a reader does; all else is run as it is written.
SHORTER = {
    "--actors 12": "--actors 3",
    "--preset small --folds 1,2": "--preset small --folds 1 --epochs 1",
    "--preset features --folds 1,2": "--preset features --folds 1 --epochs 1",
    'find_recipe("small")': 'find_recipe("small").changed(epochs=1)',
    "folds=[1, 2]": "folds=[1]",
}


def test_every_pinned_version_takes_the_oldest_python_promised() -> None:
    """Debian 12 has 3.11.2; a pin that wants more lets `make setup` fail there."""
    wanting = {}
    for line in (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines():
        with suppress(PackageNotFoundError):  # of an extra that is not installed
            wants = metadata(line.split("==")[0])["Requires-Python"]
            if wants and not SpecifierSet(wants).contains("3.11.0"):
                wanting[line] = wants
    assert not wanting


def blocks(language: str, page: str = TUTORIAL) -> list[str]:
    """A page's code blocks in one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "200", "PYTHONPATH": str(folder)}
    done = subprocess.run(arguments, cwd=folder, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def shortened(text: str) -> str:
    for as_written, shorter in SHORTER.items():
        text = text.replace(as_written, shorter)
    return text


def commands(text: str) -> list[list[str]]:
    """The `cfnsr` lines of a block, for the package these tests run in."""
    lines = [shlex.split(line) for line in text.replace("\\\n", " ").splitlines() if line]
    assert all(line[0] == "cfnsr" for line in lines)
    return [[sys.executable, "-m", *line] for line in lines]


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Type]:
    """Type Python into a folder that has `gate.py`; what it registers is forgotten afterwards."""
    before, entries = set(sys.modules), dict(ENTRIES)
    (tmp_path / "gate.py").write_text(blocks("python")[0], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda code: exec(code, {})  # noqa: S102 - it is our own page
    for name in {"gate", "head", "mix"} - before:
        sys.modules.pop(name, None)
    ENTRIES.clear()
    ENTRIES.update(entries)


def test_each_shortening_is_of_something_the_tutorial_says() -> None:
    assert [text for text in SHORTER if text not in TUTORIAL + OWN_INPUT] == []


@pytest.mark.parametrize(("page", "lines"), [(TUTORIAL, 30), (OWN_INPUT, 41)])
def test_a_file_of_ones_own_is_short(page: str, lines: int) -> None:
    assert blocks("python", page)[0].count("\n") <= lines


@pytest.mark.long
def test_an_input_of_ones_own(tmp_path: Path) -> None:
    """Prepared, trained, reported and predicted from as the page says."""
    (tmp_path / "head_pose.py").write_text(blocks("python", OWN_INPUT)[0], encoding="utf-8")
    done = [run(each, tmp_path) for each in commands(shortened(blocks("bash", OWN_INPUT)[0]))]
    assert "63 clips made, 0 kept, 0 failed" in done[1].stdout
    rows = json.loads((tmp_path / "runs" / "results.json").read_text(encoding="utf-8"))["rows"]
    names = {row["model"] for row in rows}
    assert names == {"video+head_pose", "audio", "multiplication+head_pose", "cfn_sr+head_pose"}
    assert "surprised" in done[-1].stdout


@pytest.mark.long
def test_the_tutorial(tmp_path: Path, typed: Type) -> None:
    """From the corpus to the report, a prediction, and the same from Python, which finds all done."""
    for command in commands(shortened(blocks("bash")[0])):
        run(command, tmp_path)
    runs = tmp_path / "runs"
    rows = json.loads((runs / "results.json").read_text(encoding="utf-8"))["rows"]
    found = {row["model"]: row for row in rows}
    assert set(found) == {"video", "audio", "cfn_sr", "gate"}
    mine, theirs = found["gate"], found["cfn_sr"]
    assert mine["paper"] is None and mine["protocol"] == theirs["protocol"] == "nested"
    # One gate at each of two stages, each with two linear layers: 128 x 32 and 256 x 64 channels.
    gates = sum(2 * video * audio + video + audio for video, audio in ((128, 32), (256, 64)))
    encoders = found["video"]["params"] + found["audio"]["params"] - 8  # the heads' second bias
    assert mine["params"] == encoders + gates
    tested, beside = ([fold["test_actors"] for fold in row["folds"]] for row in (mine, theirs))
    assert tested == beside
    sections = (runs / "tables.md").read_text(encoding="utf-8").split("\n## ")
    (table,) = [text for text in sections if "\n| gate | model |" in text]
    assert "\n| CFN-SR | model |" in table

    (command,) = commands(blocks("bash")[1])
    assert "surprised" in run(command, tmp_path).stdout

    written = runs / "nested" / "gate" / "seed_0" / "fold_1" / "run.json"
    before = written.stat().st_mtime_ns
    typed(shortened(blocks("python")[1]))
    assert written.stat().st_mtime_ns == before


def test_the_checks_pass(typed: Type) -> None:
    typed(blocks("python")[2])


def test_the_head_passes_the_checks(tmp_path: Path, typed: Type) -> None:
    (tmp_path / "head.py").write_text(blocks("python")[3], encoding="utf-8")
    typed(blocks("python")[2].replace("import gate ", "import head ").replace('("gate"', '("trust"'))


def test_the_checks_find_a_model_that_mixes_clips(tmp_path: Path, typed: Type) -> None:
    right, wrong = "video.mean(dim=(2, 3, 4))", "video.mean(dim=(0, 2, 3, 4)).expand(len(video), -1)"
    assert right in blocks("python")[0]
    mixing = blocks("python")[0].replace(right, wrong).replace('entry("gate"', 'entry("mix"')
    (tmp_path / "mix.py").write_text(mixing, encoding="utf-8")
    with pytest.raises(AssertionError, match="/ 24 "):  # of 3 clips x 8 emotions
        typed(blocks("python")[2].replace("import gate ", "import mix ").replace('("gate"', '("mix"'))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_to_files(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\((?![a-z]+:|#)([^)#\s]+)", text)
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.fixture
def fill(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script that writes the pages' figures."""
    monkeypatch.syspath_prepend(DOCS)
    return import_module("fill")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_figures_are_those_of_the_kept_results(page: Path, fill: ModuleType) -> None:
    """What a page marks as a figure of a results file is what the file says."""
    text = page.read_text(encoding="utf-8")
    filled, wrong, missing = fill.fill(text)
    assert (wrong, missing, filled.splitlines()) == ([], [], text.splitlines())


def test_kept_results_are_small_and_stand_in_a_page(fill: ModuleType) -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for path in fill.RESULTS.glob("*.json"):
        text = path.read_text(encoding="utf-8")
        assert len(text) <= fill.LARGEST and f" {path.name} " in pages, path.name
        content = json.loads(text)
        if "version" in content:  # of `cfnsr report`: other scripts of docs write what they like
            assert fill.slim(content) == text, f"{path.name}: keep it with docs/fill.py --store"


def test_the_task_is_kept_as_its_table_reads_it(
    tmp_path: Path, fill: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every fused row that is trained by gradient, each where its block looks for the answer."""
    task = import_module("interaction")
    met = []

    def accuracy(name: str, places: int, *, answer_in: str) -> float:
        met.append(name)
        return 1 / places

    monkeypatch.setattr(task, "accuracy", accuracy)
    task.main(tmp_path / "results" / "interaction.json")
    page = "<!-- table task interaction.json -->\n<!-- end -->"
    filled, wrong, missing = fill.fill(page, tmp_path / "results")
    assert (wrong, missing) == ([], [])
    for name in met:
        side = "audio" if name == "cfn_sr_video_to_audio" else "video"
        assert f"| {name} | {side} | no | 8.3 | 1.0 |" in filled
    tables = {name for table in TABLES.values() for _, name in table}
    assert tables - set(met) == {"video", "audio", "eranns"}
    assert "cfn_sr_features" in met and not {"lda", "logistic_late"} & set(met)


def test_the_architecture_page_names_what_there_is() -> None:
    """Every room stands in its table, and the formats have the numbers that the code has."""
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    rooms = page[page.index("## Rooms") : page.index("## The way of a take")]
    package = REPOSITORY / "src" / "cfnsr"
    names = [path.name for path in package.glob("*.py") if not path.name.startswith("__")]
    names += [f"{path.parent.name}/" for path in package.glob("*/__init__.py")]
    assert [name for name in names if f"`{name}`" not in rooms] == []
    formats = re.findall(r"\| `(cfnsr[.\w]+)\.([A-Z]+)` \| (\d+) \|", page)
    assert len(formats) == 5
    for module, constant, number in formats:
        assert getattr(import_module(module), constant) == int(number), f"{module}.{constant}"


@pytest.mark.long
def test_the_site_builds_without_warnings(tmp_path: Path) -> None:
    for needed in ("sphinx", "myst_parser", "furo"):
        if find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed: it comes with cfnsr[dev]")
    run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(DOCS), "site"],
        tmp_path,
    )
    shown = (tmp_path / "site" / "api" / "index.html").read_text(encoding="utf-8")
    for name in cfnsr.__all__:
        assert re.search(rf'<a [^>]*href="[^"#]+#cfnsr[\w.]+\.{name}"', shown), name
    shown = (tmp_path / "site" / "api" / "models.html").read_text(encoding="utf-8")
    words = unescape(re.sub(r"<[^>]+>", "", shown))
    for expected in ("class CrossModal", "create_model(", "Float[Tensor, 'B C T H W']"):
        assert expected in words
    assert "jaxtyping" not in words
