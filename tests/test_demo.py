"""The demo from end to end, on fewer actors and for one epoch."""

from pathlib import Path

import pytest

from cfnsr.cli import demo
from cfnsr.training.config import PRESETS


@pytest.mark.long
def test_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(demo, "ACTORS", 3)
    monkeypatch.setitem(PRESETS, "small", PRESETS["small"].changed(epochs=1))
    demo.demo(tmp_path)
    printed = capsys.readouterr().out
    for part in ("report: ", "contact sheet: ", "the actor played: happy"):
        assert part in printed
    for file in ("runs/report.html", "runs/results.json", "prepared/contact_sheet.png"):
        assert (tmp_path / file).stat().st_size > 1000
    demo.demo(tmp_path)  # a second run goes on from what is there
    assert "0 clips made, 63 kept, 0 failed" in capsys.readouterr().out
