"""A tiny run to share, and a hub on this machine to share it by."""

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest

LARGE = "model.safetensors"  # what the hub keeps apart, and leads to by a redirection


@pytest.fixture(scope="session")
def runs(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of three folds of `audio`, each trained for an epoch on the synthetic corpus."""
    from cfnsr.cli.corpus import prepare_takes
    from cfnsr.cli.train import train_models
    from cfnsr.corpus.scan import scan
    from cfnsr.data.store import Store
    from cfnsr.features.preparation import Preparation
    from cfnsr.training.config import find_recipe

    place = tmp_path_factory.mktemp("sharing")
    data, preparation = place / "prepared", Preparation(modalities=("audio",))
    prepare_takes(scan(synthetic), synthetic, data, preparation, workers=0)
    recipe = find_recipe("small").changed(epochs=1)
    train_models(["audio"], Store(data), place / "runs", protocols=["nested"], recipe=recipe, folds=[1, 2])
    return place / "runs"


@pytest.fixture(scope="session")
def run(runs: Path) -> Path:
    """The first of them; read it, do not change it."""
    return runs / "nested" / "audio" / "seed_0" / "fold_1"


@dataclass
class Repository:
    """What a fake hub keeps under a name."""

    files: dict[str, bytes] = field(default_factory=dict)
    private: bool = False
    gated: bool = False
    messages: list[str] = field(default_factory=list)  # of the commits that were sent

    @property
    def sha(self) -> str:
        """Its commit: another one with every change."""
        content = {name: sha256(data) for name, data in self.files.items()}
        return hashlib.sha1(json.dumps([content, self.messages]).encode(), usedforsecurity=False).hexdigest()


@dataclass
class FakeHub:
    """As much of the hub's interface as fetching and uploading a model need; the one writer is me."""

    address: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=lambda: {"hf_mine": "me", "hf_other": "other"})
    stored: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)  # every request, as "METHOD /path"
    faults: dict[str, int] = field(default_factory=dict)  # what is answered instead, by how it begins
    stop: Callable[[], None] = lambda: None

    def add(self, name: str, folder: Path, **files: bytes) -> Repository:
        """A public repository of a folder's files."""
        here = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        self.repositories[name] = Repository({**here, **files})
        return self.repositories[name]

    @property
    def fetched(self) -> set[str]:
        """Names of the files that were asked for."""
        paths = {line.split()[1] for line in self.asked}
        return {path.partition("/resolve/")[2].partition("/")[2] for path in paths if "/resolve/" in path}


class Handler(BaseHTTPRequestHandler):
    hub: FakeHub

    def answer_anything(self) -> None:
        path = unquote(self.path.partition("?")[0])
        line = f"{self.command} {path}"
        self.hub.asked.append(line)
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.user = self.hub.tokens.get(self.headers.get("Authorization", "").removeprefix("Bearer "))
        fault = next((code for start, code in self.hub.faults.items() if line.startswith(start)), 0)
        if fault:
            self.say({"error": f"fault {fault} was asked for"}, fault)
        elif self.command in ("POST", "PUT"):
            self.written(path)
        elif path.startswith("/stored/"):
            self.send(self.hub.stored[path.removeprefix("/stored/")], {})
        else:
            self.read(path)

    do_HEAD = do_GET = do_POST = do_PUT = answer_anything  # noqa: N815

    def read(self, path: str) -> None:
        """What a repository is, which files it has, or one of them."""
        owner, model, *rest = path.removeprefix("/api/models").strip("/").split("/")
        kind, revision, file = [*rest, "", "", ""][:3]
        name = f"{owner}/{model}"
        found = self.hub.repositories.get(name)
        if found is None or (found.private and self.user != owner):
            self.say({"error": "Repository not found"}, 404 if self.user else 401, code="RepoNotFound")
        elif found.gated:
            self.say({"error": "Access is restricted"}, 403, code="GatedRepo")
        elif revision not in ("", "main", found.sha):
            self.say({"error": "Invalid rev id"}, 404, code="RevisionNotFound")
        elif kind == "tree":
            self.say([entry(each, data) for each, data in found.files.items()])
        elif kind == "resolve":
            self.resolve(found, file)
        else:
            siblings = [{"rfilename": each, "size": len(data)} for each, data in found.files.items()]
            self.say({"id": name, "sha": found.sha, "private": found.private, "siblings": siblings})

    def resolve(self, found: Repository, file: str) -> None:
        data = found.files.get(file)
        if data is None:
            self.say({"error": "Entry not found"}, 404, code="EntryNotFound")
        elif file == LARGE:
            self.hub.stored[sha256(data)] = data
            headers = {"X-Linked-Etag": f'"{sha256(data)}"', "X-Linked-Size": str(len(data))}
            headers |= {"Location": self.stored(sha256(data)), "X-Repo-Commit": found.sha}
            self.send(b"", headers, 302)
        else:
            self.send(data, {"ETag": f'"{git_hash(data)}"', "X-Repo-Commit": found.sha})

    def stored(self, oid: str) -> str:
        return f"{self.hub.address.replace('127.0.0.1', 'localhost')}/stored/{oid}"

    def written(self, path: str) -> None:
        """The steps of an upload: a repository, its card checked, what goes apart, and the commit."""
        if path == "/api/validate-yaml":
            head = json.loads(self.body)["content"].split("---\n")[1]
            bad = [line for line in head.splitlines() if not line.startswith("- ") and ":" not in line]
            self.say({"errors": [{"message": f"bad line {each}"} for each in bad]}, 400 if bad else 200)
        elif path.startswith("/stored/"):  # signed addresses need no token
            self.hub.stored[path.removeprefix("/stored/")] = self.body
            self.say({})
        elif self.user is None:
            self.say({"error": "Invalid username or password."}, 401)
        elif path == "/api/repos/create":
            self.create()
        else:
            name = "/".join(path.removeprefix("/api/models").strip("/").split("/")[:2]).removesuffix(".git")
            if name.partition("/")[0] != self.user:
                self.say({"error": "You are not the owner"}, 403)
            elif "/preupload/" in path:
                self.preupload(name)
            elif path.endswith("/info/lfs/objects/batch"):
                self.batch()
            elif "/commit/" in path:
                self.commit(name)
            else:
                self.say({"error": "no such endpoint"}, 404)

    def create(self) -> None:
        told = json.loads(self.body)
        owner = told["organization"] or self.user
        name = f"{owner}/{told['name']}"
        answer = {"url": f"{self.hub.address}/{name}"}
        if owner != self.user:
            self.say({"error": "You have no right to create a model there"}, 403)
        elif name in self.hub.repositories:
            self.say({**answer, "error": "You already created this model repo"}, 409)
        else:
            self.hub.repositories[name] = Repository(private=told.get("visibility") == "private")
            self.say({**answer, "name": name})

    def preupload(self, name: str) -> None:
        files = []
        for path in (file["path"] for file in json.loads(self.body)["files"]):
            old, large = self.hub.repositories[name].files.get(path), path == LARGE
            oid = None if old is None else sha256(old) if large else git_hash(old)
            mode = "lfs" if large else "regular"
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self.say({"files": files})

    def batch(self) -> None:
        objects = []
        for each in json.loads(self.body)["objects"]:
            answer = {"oid": each["oid"], "size": each["size"]}
            if each["oid"] not in self.hub.stored:
                answer["actions"] = {"upload": {"href": self.stored(each["oid"])}}
            objects.append(answer)
        self.say({"transfer": "basic", "objects": objects})

    def commit(self, name: str) -> None:
        found = self.hub.repositories[name]
        for line in map(json.loads, self.body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                found.messages.append(value["summary"])
            elif line["key"] == "file":
                found.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                found.files[value["path"]] = self.hub.stored[value["oid"]]
        url = f"{self.hub.address}/{name}/commit/{found.sha}"
        self.say({"success": True, "commitOid": found.sha, "commitUrl": url})

    def say(self, value: object, status: int = 200, code: str = "") -> None:
        headers = {"Content-Type": "application/json", **({"X-Error-Code": code} if code else {})}
        self.send(json.dumps(value).encode(), headers, status)

    def send(self, body: bytes, headers: dict[str, str], status: int = 200) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


def entry(file: str, data: bytes) -> dict[str, object]:
    """A file in the list of a repository's."""
    large = {"lfs": {"oid": sha256(data), "size": len(data), "pointerSize": 134}} if file == LARGE else {}
    return {"type": "file", "path": file, "size": len(data), "oid": git_hash(data), **large}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_hash(data: bytes) -> str:
    """As git calls a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub on this machine, for this process; nobody is logged in."""
    constants = pytest.importorskip("huggingface_hub.constants", reason="comes with cfnsr[pretrained]")
    hub = FakeHub()
    http = ThreadingHTTPServer(("127.0.0.1", 0), type("HandlerOfOne", (Handler,), {"hub": hub}))
    threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
    hub.address = f"http://127.0.0.1:{http.server_port}"

    def stop() -> None:
        http.shutdown()
        http.server_close()

    hub.stop = stop
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    yield hub
    hub.stop()
