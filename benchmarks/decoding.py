"""A file decoded and nothing else; alone here, so that a process that does it loads nothing else either."""

from pathlib import Path


def decode(path: Path) -> int:
    """Decode all pictures and sound of a file, and do nothing with them; gives their number."""
    import av

    count = 0
    with av.open(str(path)) as container:
        for stream in container.streams:
            stream.thread_count = 1  # type: ignore[attr-defined]
        for _ in container.decode():
            count += 1
    return count
