"""On a Ray cluster of two nodes, one of which is killed at work: what the local engine makes, bit for bit."""

import json
import operator
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from cfnsr.cluster import TRIES, connect, map_on_cluster, say_if_waiting
from cfnsr.data.store import Store
from cfnsr.errors import InputError

utils = pytest.importorskip("ray.cluster_utils", reason="a cluster needs cfnsr[ray]")
pytestmark = pytest.mark.long

Run = Callable[..., subprocess.CompletedProcess[str]]
Doomed = Callable[[str, str], AbstractContextManager[Path]]

# A GPU that is none: cells share it, and train on the CPU.
NODE = {"num_cpus": 1, "num_gpus": 1, "object_store_memory": 100_000_000, "include_dashboard": False}
PREPARE = ("--size", 64, "--frames", 8)
CROSSVAL = ("multiplication", "--preset", "small", "--protocol", "leave_one_actor_out", "--folds", 1)
CROSSVAL += ("--epochs", 2, "--set", "fused_epochs=2")
RESULTS = ("config.json", "model.safetensors", "history.jsonl", "*.csv")
# A plugin: on the node that is to die the function waits for that, once it has been called a few times.
GATE = """
import os
import time
from pathlib import Path
import ray
import {module} as module

calls = 0
if ray.is_initialized():  # else it is a worker of such a process
    os.environ["TEST_NODE"] = ray.get_runtime_context().get_node_id()

def gated(*arguments, inner=module.{name}, **named):
    global calls
    calls += 1
    here = os.environ.get("TEST_NODE") == "{node}"
    with Path("{log}").open("a") as log:
        print(here, calls, file=log)
    while here and calls > {passes}:
        time.sleep(1)
    return inner(*arguments, **named)

module.{name} = gated
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    started = utils.Cluster(initialize_head=True, head_node_args=NODE)
    yield started
    started.shutdown()
    left = [process.name() for process in psutil.Process().children(recursive=True)]
    assert not {"raylet", "gcs_server"} & set(left), left


@pytest.fixture
def doomed(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Doomed:
    """Within it the cluster has a second node, which is killed when it is about to call a function."""

    @contextmanager
    def within(module: str, name: str, passes: int = 0) -> Iterator[Path]:
        node = cluster.add_node(**NODE)
        log, plugin = tmp_path / "calls.txt", tmp_path / "gate.py"
        gate = {"module": module, "name": name, "passes": passes, "node": node.node_id, "log": log}
        plugin.write_text(GATE.format(**gate))
        monkeypatch.setattr("cfnsr.plugin._loaded", {plugin: None})
        ended = threading.Event()

        def kill() -> None:
            while not ended.wait(0.1):
                if log.exists() and f"True {passes + 1}\n" in log.read_text():
                    cluster.remove_node(node, allow_graceful=False)
                    return

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            yield log
        finally:
            ended.set()
            killer.join()
        assert node not in cluster.list_all_nodes(), "the node had nothing to do"

    return within


def contents(folder: Path, names: Sequence[str] = ("*",)) -> dict[str, bytes]:
    paths = [path for name in names for path in folder.rglob(name) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def prepared(cfnsr: Run, synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("local") / "prepared"
    assert cfnsr("prepare", synthetic, out, *PREPARE, "--workers", 1).returncode == 0
    return out


@pytest.fixture(scope="module")
def runs(cfnsr: Run, prepared: Path) -> Path:
    out = prepared.parent / "runs"
    assert cfnsr("crossval", *CROSSVAL, "--data", prepared, "--out", out).returncode == 0
    return out


def test_a_map_has_all_results_and_a_crash_costs_its_item_alone(cluster: Any, tmp_path: Path) -> None:
    deadly = partial(os.system, f"echo >> '{tmp_path}/tries'; kill -9 $PPID")
    items = [*(partial(int, number) for number in range(20)), deadly]
    with connect(cluster.address):
        found = list(map_on_cluster(operator.call, items, lambda item, death: str(death)))
        bad = [partial(operator.floordiv, 1, number) for number in range(4)]
        with pytest.raises(ZeroDivisionError):
            list(map_on_cluster(operator.call, bad, lambda item: 0))
    assert sorted(items.index(item) for item, _ in found) == list(range(21))
    assert {result for _, result in found} == {*range(20), "the process that read it died (-9)"}
    assert (tmp_path / "tries").read_text().count("\n") == TRIES


# As a codec that never returns: no Python runs any more.
HANGS = """
import signal, time
from pathlib import Path
from cfnsr import processes
with Path({log!r}).open("a") as log:
    print(file=log)
processes.PATIENCE = 0.2
with processes.time_limit(None):
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.valid_signals()) - {{signal.SIGALRM}})
    time.sleep(600)
"""
GREEDY = "import numpy, resource; numpy.ones(resource.getrlimit(resource.RLIMIT_DATA)[0] // 8)"


def test_an_item_has_its_time_and_memory_as_in_a_local_worker(cluster: Any, tmp_path: Path) -> None:
    log = tmp_path / "tries"
    hangs, greedy = partial(exec, HANGS.format(log=str(log)), {}), partial(exec, GREEDY, {})
    with connect(cluster.address):
        items = [hangs, *(partial(int, number) for number in range(4))]
        found = list(map_on_cluster(operator.call, items, lambda item, death: str(death)))
        with pytest.raises(MemoryError):
            list(map_on_cluster(operator.call, [greedy], lambda item, death: None))
    assert {result for _, result in found} == {0, 1, 2, 3, "it took too long"}
    assert log.read_text() == "\n", "it is not tried again"


def test_an_address_at_which_nobody_answers(cfnsr: Run, synthetic: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]  # free, once it is closed
    for address in (f"127.0.0.1:{port}", "head", "ray://head:10001"):
        done = cfnsr("prepare", synthetic, tmp_path / "out", "--engine", "ray", "--address", address)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done
        assert f"cfnsr: no Ray cluster at {address}" in done.stderr


def test_what_no_node_has_is_waited_for_with_a_word(cluster: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with connect(cluster.address):
        say_if_waiting(1, 0.5)
        assert capsys.readouterr().err == ""
        say_if_waiting(1, 2)
    assert "no node of the cluster has 1 CPUs and 2 GPUs: waiting" in capsys.readouterr().err


def test_a_plugin_that_fails_on_the_nodes_ends_with_its_line(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = tmp_path / "only_here.py"
    plugin.write_text("missing\n")
    monkeypatch.setattr("cfnsr.plugin._loaded", {plugin: None})
    with connect(cluster.address), pytest.raises(InputError, match=r"only_here\.py line 1 fails"):
        list(map_on_cluster(int, range(3), int))


def test_prepare(
    cfnsr: Run, cluster: Any, doomed: Doomed, synthetic: Path, prepared: Path, tmp_path: Path
) -> None:
    out, ray = tmp_path / "prepared", ("--engine", "ray", "--address", cluster.address)
    with doomed("cfnsr.data.prepare", "prepare_clip"):
        done = cfnsr("prepare", synthetic, out, *PREPARE, *ray)
    assert done.returncode == 0 and "12 clips made, 0 kept, 0 failed" in done.stdout, done
    found, local = contents(out), contents(prepared)
    assert found.pop("index.sqlite") != local.pop("index.sqlite"), "it holds the times of the files"
    assert found == local and Store(out).headers() == Store(prepared).headers()


def test_crossval(
    cfnsr: Run, cluster: Any, doomed: Doomed, prepared: Path, runs: Path, tmp_path: Path
) -> None:
    ray = ("--engine", "ray", "--address", cluster.address, "--cpus-per-run", 1, "--gpus-per-run", 0.5)
    with doomed("cfnsr.training.loop", "Trainer._train_epoch", passes=1) as log:
        done = cfnsr("crossval", *CROSSVAL, "--data", prepared, "--out", tmp_path / "runs", *ray)
    assert done.returncode == 0, done
    # Three cells of two epochs; one epoch was begun on the node that died, and again on the other.
    assert len(log.read_text().splitlines()) == 3 * 2 + 1
    assert contents(tmp_path / "runs", RESULTS) == contents(runs, RESULTS)


def test_predict(
    cfnsr: Run, cluster: Any, doomed: Doomed, synthetic: Path, runs: Path, yunet: Path, tmp_path: Path
) -> None:
    ray = ("--engine", "ray", "--address", cluster.address)
    model = next(runs.glob("*/multiplication/seed_0/fold_1"))
    files = [*sorted(synthetic.glob("*/*.mp4")), tmp_path / "none.mp4"]
    files, out = files[-6:], tmp_path / "ray.jsonl"
    with doomed("cfnsr.inference.lines", "predict"):
        assert cfnsr("predict", model, *files, "--out", out, *ray).returncode == 2
    assert cfnsr("predict", model, *files, "--out", tmp_path / "local.jsonl").returncode == 2
    found, local = ((tmp_path / f"{name}.jsonl").read_text().splitlines() for name in ("ray", "local"))
    assert sorted(found) == sorted(local)
    assert [json.loads(line)["file"] for line in local if "error" in json.loads(line)] == [str(files[-1])]
