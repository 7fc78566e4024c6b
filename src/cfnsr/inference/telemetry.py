"""Telemetry off: openvino and nncf report their use to Google Analytics by default; not under cfnsr."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

PACKAGE = "openvino_telemetry"
SENDER = f"{PACKAGE}.utils.sender"

_one_at_a_time = RLock()


@contextmanager
def telemetry_off() -> Iterator[None]:
    """Keep openvino and nncf from sending telemetry inside, and from writing an identity of this machine.

    Merely imported, both send an event. They have stand-ins for a machine without `openvino_telemetry`, which
    send nothing: imported here, they find none and keep those for good. Where another part of the program has
    imported them before, their sender is silent as long as this lasts.
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
