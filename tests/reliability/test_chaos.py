"""Kills in short; `make chaos` has fifty of each verb."""

from pathlib import Path

import pytest

chaos = pytest.importorskip("chaos")


@pytest.mark.long
def test_three_kills_of_each_verb(tmp_path: Path) -> None:
    outcomes = chaos.kill_all(tmp_path, kills=3, seed=1)
    assert list(outcomes) == ["prepare", "crossval", "report"]
    assert [each.faults for each in outcomes.values()] == [[], [], []]
    assert all(each.kills >= 3 and each.compared for each in outcomes.values())


def test_what_was_done_again_is_found(tmp_path: Path) -> None:
    kept, gone = tmp_path / "kept", tmp_path / "gone"
    for path in (kept, gone):
        path.write_text("weights")
    done = {path: chaos._stamp(path) for path in (kept, gone)}
    assert chaos._touched(done) == []
    gone.rename(tmp_path / "other")
    gone.write_text("weights")
    assert chaos._touched(done) == [gone]


def test_seconds_alone_may_differ(tmp_path: Path) -> None:
    for name, seconds, epoch in (("a", 1, 2), ("b", 3, 2), ("c", 1, 3)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(f'{{"fold": {{"seconds": {seconds}, "epoch": {epoch}}}}}')
    one, same, other = (chaos.runs(tmp_path / name) for name in "abc")
    assert one == same != other
