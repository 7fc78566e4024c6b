"""Load in short; `make soak` has half an hour of it."""

from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the server needs cfnsr[serve]")
pytest.importorskip("onnxruntime", reason="the exported model needs cfnsr[export]")
soak = pytest.importorskip("soak")


@pytest.mark.long
def test_three_minutes(tmp_path: Path, shared: Path, yunet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CFNSR_SHARED", str(shared))
    seen = soak.soak(tmp_path, minutes=3)
    assert seen.faults == []
    assert sum(seen.statuses.values()) > soak.CLIENTS and seen.seconds


def test_growth_is_found() -> None:
    level = 500 * 2**20
    flat = soak.Seen(memory=[level + 2**20 * (place % 7) for place in range(40)], threads=[20] * 40)
    assert soak.grown(flat) == []
    leaking = soak.Seen(memory=[level + 8 * 2**20 * place for place in range(40)], threads=[20] * 40)
    assert [fault.split()[0] for fault in soak.grown(leaking)] == ["memory"]
    threads = soak.Seen(memory=[level] * 40, threads=list(range(40)))
    assert [fault.split()[0] for fault in soak.grown(threads)] == ["threads"]
