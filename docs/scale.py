"""Figures of docs/scale.md: `compare` engines, `measure` a clip, `tasks` a second."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, process_time
from typing import Annotated

from typer import Argument, Option, Typer

app = Typer(pretty_exceptions_enable=False)

NODE = {"num_cpus": 1, "object_store_memory": 100_000_000, "include_dashboard": False}
CORPUS = ("--actors", 12)  # the demo's
PREPARE = ("--size", 64)
CROSSVAL = ("cfn_sr", "--preset", "small", "--folds", 1, "--resume")
# The rest has seconds and times.
RESULTS = ("*.safetensors", "history.jsonl", "*.csv", "config.json")


def cfnsr(*arguments: object) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "cfnsr", *map(str, arguments)], check=True, env=environment)


@contextmanager
def cluster() -> Iterator[str]:
    """Two nodes on this machine."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args=NODE)
    nodes.add_node(**NODE)
    try:
        yield nodes.address
    finally:
        nodes.shutdown()


def same(what: str, one: Path, other: Path, *names: str) -> None:
    """Print how many files of two folders are the same; end with 1 if not all."""
    first, second = (
        {path.relative_to(folder): path.read_bytes() for name in names for path in folder.rglob(name)}
        for folder in (one, other)
    )
    alike = [path for path, content in first.items() if second.get(path) == content]
    print(f"{what}: {len(alike)} of {len(first)} files the same, {len(second)} on the cluster", flush=True)
    if not len(alike) == len(first) == len(second):
        raise SystemExit(1)


@app.command()
def compare(out: Path) -> None:
    """The demo's corpus prepared, trained on and predicted by one process and by two nodes, file by file."""
    corpus, local, ray = (out / name for name in ("corpus", "local", "ray"))
    cfnsr("synthesize", corpus, *CORPUS)
    with cluster() as address:
        engines = ((local, ("--workers", 1), ()), (ray, *[("--engine", "ray", "--address", address)] * 2))
        for folder, options, _ in engines:
            cfnsr("prepare", corpus, folder / "prepared", *PREPARE, *options)
        same("prepared", local / "prepared", ray / "prepared", "*.*")
        for folder, options, _ in engines:
            given = ("--data", folder / "prepared", "--out", folder / "runs")
            cfnsr("crossval", *CROSSVAL, *given, *options)
        same("trained", local / "runs", ray / "runs", *RESULTS)
        files = sorted(corpus.glob("*/*.mp4"))[::10]
        for folder, _, options in engines:
            model = folder / "runs/nested/cfn_sr/seed_0/fold_1"
            cfnsr("predict", model, *files, "--out", folder / "predicted/lines.jsonl", *options)
    for folder in (local, ray):  # in the order of the files, not in that of their ends
        lines = folder / "predicted/lines.jsonl"
        lines.write_text("".join(sorted(lines.read_text().splitlines(keepends=True))))
    same(f"predicted, {len(files)} recordings", local / "predicted", ray / "predicted", "*.jsonl")


@app.command()
def measure(
    corpus: Path,
    out: Path,
    modalities: Annotated[str, Option()] = "video,audio",
    size: Annotated[int, Option()] = 224,
    clips: Annotated[int, Option()] = 20,
) -> None:
    """Bytes and seconds of one core that a clip takes, without the first, which loads the networks."""
    from cfnsr.corpus.scan import scan
    from cfnsr.data.prepare import prepare_corpus
    from cfnsr.data.store import Store
    from cfnsr.features.expression_net import find_net
    from cfnsr.features.preparation import Preparation
    from cfnsr.features.speech_encoder import choose_encoder

    settings = {}
    if "speech" in modalities:
        encoder = choose_encoder(None)
        settings = {"speech_encoder": encoder.name, "speech_sha256": encoder.sha256}
    if "expression" in modalities:
        settings["expression_sha256"] = find_net().sha256
    found = scan(corpus)
    preparation = Preparation(modalities=tuple(modalities.split(",")), size=size, **settings)
    store = Store.create(out, found.name, found.labels, preparation.as_json())
    prepare_corpus(found.takes[:1], store, preparation, workers=0)
    begun = process_time()
    made = prepare_corpus(found.takes[1 : clips + 1], store, preparation, workers=0).made
    seconds = process_time() - begun
    sizes = [store.path(name).stat().st_size for name in made]
    print(
        f"{modalities} at {size} px: {len(made)} clips, {sum(sizes) / len(made) / 1e6:.3f} MB and "
        f"{seconds / len(made):.3f} s of one core a clip"
    )


@app.command()
def tasks(number: Annotated[int, Argument()] = 20_000) -> None:
    """Tasks a second that one process can hand to a cluster, which is all that they do."""
    from cfnsr.cluster import connect, map_on_cluster

    with cluster() as address, connect(address):
        list(map_on_cluster(int, range(100), int))
        begun = monotonic()
        list(map_on_cluster(int, range(number), int))
        print(f"{number / (monotonic() - begun):.0f} tasks a second")


if __name__ == "__main__":
    app()
