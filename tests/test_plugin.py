"""A user's own Python file: what it registers, and what is said when it fails."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import cfnsr
from cfnsr import plugin
from cfnsr.errors import InputError
from cfnsr.models.entries import ENTRIES
from cfnsr.models.parameters import count_parameters
from cfnsr.plugin import load_plugin

GATE = """
from torch import nn
from cfnsr.models.zoo import entry

class Gate(nn.Module):
    def __init__(self, video_channels, audio_channels):
        super().__init__()
        self.gate = nn.Linear(audio_channels, video_channels)

    def forward(self, video, audio):
        return video * self.gate(audio.mean(2)).sigmoid()[:, :, None, None, None], audio

@entry("gate", fusion="model")
def gate(settings):
    return settings.fuse(Gate)
"""


@pytest.fixture(autouse=True)
def clean_zoo() -> Iterator[None]:
    """What a test registers is gone after it, for the worker processes of other tests too."""
    before = dict(ENTRIES)
    yield
    ENTRIES.clear()
    ENTRIES.update(before)
    plugin._loaded.clear()


def test_a_plugin_registers_a_model(tmp_path: Path) -> None:
    (tmp_path / "gate.py").write_text(GATE)
    load_plugin(tmp_path / "gate.py")
    assert cfnsr.list_models()[-1] == "gate"
    ours = count_parameters(cfnsr.create_model("gate"))
    assert ours - count_parameters(cfnsr.create_model("cfn_sr_no_cross_modal")) == 64 * 2048 + 2048


def test_a_run_can_tell_other_code_of_the_same_name(tmp_path: Path) -> None:
    path = tmp_path / "gate.py"
    path.write_text(GATE)
    load_plugin(path)
    before = ENTRIES.pop("gate").source
    assert len(before) == 64 and ENTRIES["cfn_sr"].source == ""
    path.write_text(GATE.replace("sigmoid", "tanh"))
    load_plugin(path)
    assert ENTRIES["gate"].source != before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nothing_of_that_name", r"line 1 fails with ModuleNotFoundError: .*nothing_of_that_name"),
        ("x = 1\n\n1 / 0", "line 3 fails with ZeroDivisionError"),
        ("x = (", "line 1 fails with SyntaxError"),
        ("import sys\nsys.exit(3)", "line 2 fails with SystemExit: 3"),
        (
            "from cfnsr.models.zoo import entry\nentry('a', fusion='soup')(print)",
            "'soup': expected one of none",
        ),
        ("from cfnsr.models.zoo import entry\nentry('cfn_sr', fusion='late')(print)", "registered already"),
    ],
)
def test_a_plugin_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    monkeypatch.chdir(tmp_path)
    for given in (path, Path("mine.py")):
        with pytest.raises(InputError, match=message) as error:
            load_plugin(given)
        assert str(path) in str(error.value)


def test_no_plugin_at_all(tmp_path: Path) -> None:
    for path in (tmp_path / "none.py", tmp_path):
        with pytest.raises(InputError, match=r"expected a Python file, such as gate\.py"):
            load_plugin(path)
