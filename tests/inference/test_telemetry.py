"""What OpenVINO and NNCF would send of their use: watched from inside, in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Whatever is sent goes by way of urllib from a forked process: there it is written down, and stopped.
WATCH = """
import os, sys, time
def watch(event, arguments):
    if event in ("urllib.Request", "socket.connect", "socket.getaddrinfo"):
        with open(os.environ["SENT"], "a") as file:
            print(event, file=file)
        raise OSError("stopped by the test")
sys.addaudithook(watch)
def sent():
    return os.path.exists(os.environ["SENT"])
"""
LOUD = "import openvino\n"
# Sent from another thread: the telemetry's own way of waiting for it.
WAIT = """
import sys
if "openvino_telemetry" in sys.modules:
    sys.modules["openvino_telemetry"].Telemetry().sender.executor.shutdown(wait=True)
"""
GRAPH = """
import io, onnx
from onnx import TensorProto, helper
value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1])
graph = helper.make_graph([helper.make_node("Relu", ["in"], ["out"])], "g", [value("in")], [value("out")])
opset = helper.make_opsetid("", 18)
written = io.BytesIO(helper.make_model(graph, opset_imports=[opset]).SerializeToString())
"""
CONVERT = "openvino.convert_model(written)\n"


def traces(code: str, tmp_path: Path) -> list[str]:
    """What a program sent, and the files it left in the home folder; of a user who never answered."""
    home, sent = tmp_path / "home", tmp_path / "sent"
    home.mkdir()
    silencing = {"CI", "TF_BUILD", "JENKINS_URL", "NNCF_CI", "NNCF_DEV"}
    environment = {name: value for name, value in os.environ.items() if name not in silencing}
    done = subprocess.run(
        [sys.executable, "-c", WATCH + code + WAIT],
        env={**environment, "HOME": str(home), "SENT": str(sent)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    left = [file.name for file in home.rglob("openvino*")]
    return (sent.read_text().splitlines() if sent.exists() else []) + left


def test_without_care_it_is_sent(tmp_path: Path) -> None:
    """Otherwise the other tests would show nothing."""
    assert {"urllib.Request", "openvino_ga_cid"} <= set(traces(LOUD, tmp_path))


def test_nothing_is_sent(tmp_path: Path) -> None:
    """By an import, a conversion or a quantisation inside, and by a conversion after it."""
    code = (
        "from cfnsr.inference.telemetry import telemetry_off\n"
        "with telemetry_off():\n import openvino, nncf\n"
        "from nncf.telemetry import telemetry\n"
        "telemetry.send_event('nncf', 'test', 'test')\n"
    )
    assert traces(code + GRAPH + CONVERT, tmp_path) == []


def test_one_that_is_loaded_is_silent_for_as_long_as_it_lasts(tmp_path: Path) -> None:
    off = "from cfnsr.inference.telemetry import telemetry_off\nwith telemetry_off():\n "
    inside = LOUD + GRAPH + off + CONVERT
    after = inside + "written.seek(0)\n" + CONVERT
    counts = []
    for number, code in enumerate((LOUD, inside, after)):
        folder = tmp_path / str(number)
        folder.mkdir()
        counts.append(len(traces(code, folder)))
    assert counts[0] == counts[1] < counts[2]


def test_what_was_there_is_there_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from cfnsr.inference.telemetry import telemetry_off

    for name in [name for name in sys.modules if name.split(".")[0] == "openvino_telemetry"]:
        monkeypatch.delitem(sys.modules, name)
    with telemetry_off():
        with pytest.raises(ImportError):
            import openvino_telemetry
        with telemetry_off(), pytest.raises(ImportError):
            import openvino_telemetry
        with pytest.raises(ImportError):
            import openvino_telemetry
    import openvino_telemetry
    from openvino_telemetry.utils.sender import TelemetrySender

    send = TelemetrySender.send
    with pytest.raises(KeyError), telemetry_off():
        assert TelemetrySender.send is not send
        raise KeyError
    assert TelemetrySender.send is send and sys.modules["openvino_telemetry"] is openvino_telemetry
