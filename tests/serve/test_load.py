"""Eight clients at once: no failure, no file left, neither more memory nor more threads than before."""

import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

psutil = pytest.importorskip("psutil")
pytestmark = pytest.mark.long

Make = Callable[..., Any]
CLIENTS, REQUESTS = 8, 200
MOST_GROWTH = 16 * 1024 * 1024  # bytes; what is sent is 40 MB


def test_eight_clients_and_two_hundred_requests(
    serve: Make, new_ear: Make, record: Make, until: Make
) -> None:
    recordings = [record(seconds).read_bytes() for seconds in (2, 3, 8, 12)]
    broken = recordings[1][:-12_000]

    def ask(number: int) -> int:
        """One request out of five kinds: the status of its answer."""
        content = broken if number % 5 == 4 else recordings[number % 4]
        files = {"file": ("talk.wav", content)}
        client = served.client  # which has a connection for each thread
        sent = client.post("/jobs" if number % 5 == 3 else "/predict", files=files, params={"hop": 4})
        if number % 10 == 3:
            client.delete(f"/jobs/{sent.json()['id']}")
        status: int = sent.status_code
        return status

    process = psutil.Process()
    with serve(new_ear()) as served, ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(ask, range(40)))
        before = process.memory_info().rss
        statuses = list(clients.map(ask, range(REQUESTS)))
        until(lambda: served.client.get("/health").json()["queue"]["busy"] == 0)
        grown = process.memory_info().rss - before
        expected = [422 if number % 5 == 4 else 202 if number % 5 == 3 else 200 for number in range(REQUESTS)]
        assert statuses == expected
        assert served.left() == []
        assert grown < MOST_GROWTH


def test_films_leave_no_threads_and_no_memory(serve: Make, new_seer: Make, film: Make, until: Make) -> None:
    """Decoders have threads of their own, and their pictures are large."""
    content = film(3, lambda time: [("r", 20)]).read_bytes()

    def ask(number: int) -> int:
        status: int = served.client.post("/predict", files={"file": ("film.mp4", content)}).status_code
        return status

    process = psutil.Process()
    gc.collect()
    threads = process.num_threads()
    with serve(new_seer()) as served, ThreadPoolExecutor(CLIENTS) as clients:
        assert set(clients.map(ask, range(16))) == {200}
        memory = process.memory_info().rss
        assert set(clients.map(ask, range(48))) == {200}
        until(lambda: served.client.get("/health").json()["queue"]["busy"] == 0)
        assert process.num_threads() <= threads + 60, "clients, server and one decoder; not one a picture"
        assert process.memory_info().rss - memory < 4 * MOST_GROWTH
        assert served.left() == []
