"""OpenVINO and NNCF tell Google Analytics of their use without asking; not when cfnsr uses them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

PACKAGE = "openvino_telemetry"
SENDER = f"{PACKAGE}.utils.sender"

_one_at_a_time = RLock()


@contextmanager
def untold() -> Iterator[None]:
    """Inside, nothing of what openvino and nncf do is sent, nor an identity of this machine written.

    Merely imported, both send an event in a process of its own, unless the user has run their `opt_in_out
    --opt_out` or `CI` is "true" in the environment. They have stand-ins for a machine without
    `openvino_telemetry`, which say nothing: imported here, they find none and take those for good. Where
    another part of the program has imported them before, their sender is silent as long as this lasts.
    """
    with _one_at_a_time:
        nothing = object()
        package = sys.modules.get(PACKAGE, nothing)
        sender = getattr(sys.modules.get(SENDER), "TelemetrySender", None)
        send = getattr(sender, "send", None)
        sys.modules[PACKAGE] = None  # type: ignore[assignment]  # what `import` takes for not installed
        if sender is not None:
            sender.send = lambda *_, **__: None
        try:
            yield
        finally:
            if sender is not None:
                sender.send = send
            if package is nothing:
                del sys.modules[PACKAGE]
            else:
                sys.modules[PACKAGE] = package  # type: ignore[assignment]
