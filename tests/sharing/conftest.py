"""A tiny run to share, and a hub on this machine to share it by."""

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

LARGE = "model.safetensors"  # what the hub keeps apart, and leads to by a redirection


@pytest.fixture(scope="session")
def runs(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of three folds of `audio`, each trained for an epoch on the synthetic corpus."""
    from cfnsr.cli.corpus import prepare_takes
    from cfnsr.cli.train import train_models
    from cfnsr.corpus.scan import scan
    from cfnsr.features.preparation import Preparation
    from cfnsr.training.config import find_recipe

    place = tmp_path_factory.mktemp("sharing")
    prepare_takes(
        scan(synthetic), synthetic, place / "prepared", Preparation(modalities=("audio",)), workers=1
    )
    recipe = find_recipe("small").changed(epochs=1)
    train_models(
        ["audio"], place / "prepared", place / "runs", protocols=["nested"], recipe=recipe, folds=[1, 2]
    )
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
        content = {name: hashlib.sha256(data).hexdigest() for name, data in self.files.items()}
        return hashlib.sha1(json.dumps([content, self.messages]).encode(), usedforsecurity=False).hexdigest()


@dataclass
class FakeHub:
    """As much of the hub's interface as fetching and uploading a model need; the one writer is me.

    Args:
        tokens: who may sign in with what.
        asked: every request, as "METHOD /path", with its range if it has one.
        faults: what is answered instead, by how the request begins.
        cut: of how many bodies only a half is sent, by path.
        large: the files that are uploaded apart.
        elsewhere: the address of the store they are kept in, to which nobody's token is to be sent.
        told_elsewhere: what authorisation it was sent all the same.
    """

    address: str = ""
    elsewhere: str = ""
    told_elsewhere: list[str] = field(default_factory=list)
    repositories: dict[str, Repository] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=lambda: {"hf_mine": "me", "hf_other": "other"})
    stored: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    large: tuple[str, ...] = (LARGE,)
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

    def do_HEAD(self) -> None:
        self.answer_anything()

    def do_GET(self) -> None:
        self.answer_anything()

    def do_POST(self) -> None:
        self.answer_anything()

    def do_PUT(self) -> None:
        self.answer_anything()

    def answer_anything(self) -> None:
        path = unquote(self.path.partition("?")[0])
        wanted = f" {self.headers['Range']}" if "Range" in self.headers else ""
        line = f"{self.command} {path}"
        self.hub.asked.append(line + wanted)
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.user = self.hub.tokens.get(self.headers.get("Authorization", "").removeprefix("Bearer "))
        fault = next((code for start, code in self.hub.faults.items() if line.startswith(start)), 0)
        if fault:
            self.say({"error": f"fault {fault} was asked for"}, fault)
        elif self.command in ("POST", "PUT"):
            self.written(path)
        elif path.startswith("/stored/"):
            self.hub.told_elsewhere.append(self.headers.get("Authorization", ""))
            self.send(self.hub.stored[path.removeprefix("/stored/")], {})
        else:
            self.read(path)

    def read(self, path: str) -> None:
        """What a repository is, which files it has, or one of them."""
        name = "/".join(path.removeprefix("/api/models").strip("/").split("/")[:2])
        rest = path.removeprefix("/api/models").strip("/").removeprefix(name).strip("/")
        kind, _, rest = rest.partition("/")
        revision, _, file = rest.partition("/")
        found = self.hub.repositories.get(name)
        if found is None or (found.private and self.user != name.partition("/")[0]):
            self.say({"error": "Repository not found"}, 404 if self.user else 401, code="RepoNotFound")
        elif found.gated:
            self.say({"error": "Access is restricted"}, 403, code="GatedRepo")
        elif revision not in ("", "main", found.sha):
            self.say({"error": "Invalid rev id"}, 404, code="RevisionNotFound")
        elif kind == "tree":
            self.say([self.entry(name, each) for each in found.files])
        elif kind == "resolve":
            self.resolve(found, file)
        else:
            siblings = [{"rfilename": each, "size": len(found.files[each])} for each in found.files]
            self.say({"id": name, "sha": found.sha, "private": found.private, "siblings": siblings})

    def entry(self, name: str, file: str) -> dict[str, Any]:
        data = self.hub.repositories[name].files[file]
        entry: dict[str, Any] = {"type": "file", "path": file, "size": len(data), "oid": git_hash(data)}
        if file == LARGE:
            entry["lfs"] = {"oid": sha256(data), "size": len(data), "pointerSize": 134}
        return entry

    def resolve(self, found: Repository, file: str) -> None:
        data = found.files.get(file)
        if data is None:
            self.say({"error": "Entry not found"}, 404, code="EntryNotFound")
        elif file == LARGE:
            self.hub.stored[sha256(data)] = data
            headers = {
                "Location": f"{self.hub.elsewhere}/stored/{sha256(data)}",
                "X-Linked-Etag": f'"{sha256(data)}"',
                "X-Linked-Size": str(len(data)),
                "X-Repo-Commit": found.sha,
            }
            self.send(b"", headers, 302)
        else:
            self.send(data, {"ETag": f'"{git_hash(data)}"', "X-Repo-Commit": found.sha})

    def written(self, path: str) -> None:
        """The steps of an upload: a repository, its card checked, what goes apart, and the commit."""
        if path == "/api/validate-yaml":
            head = json.loads(self.body)["content"].split("---\n")[1]
            bad = [line for line in head.splitlines() if not line.startswith("- ") and ":" not in line]
            self.say({"errors": [{"message": f"bad line {each}"} for each in bad]}, 400 if bad else 200)
        elif path.startswith("/stored/"):  # signed addresses need no token
            self.hub.told_elsewhere.append(self.headers.get("Authorization", ""))
            self.hub.stored[path.removeprefix("/stored/")] = self.body
            self.say({})
        elif self.user is None:
            self.say({"error": "Invalid username or password."}, 401)
        elif path == "/api/repos/create":
            told = json.loads(self.body)
            owner = told["organization"] or self.user
            name = f"{owner}/{told['name']}"
            if owner != self.user:
                self.say({"error": "You have no right to create a model there"}, 403)
            elif name in self.hub.repositories:
                url = f"{self.hub.address}/{name}"
                self.say({"error": "You already created this model repo", "url": url}, 409)
            else:
                self.hub.repositories[name] = Repository(private=told.get("visibility") == "private")
                self.say({"url": f"{self.hub.address}/{name}", "name": name})
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

    def preupload(self, name: str) -> None:
        there = self.hub.repositories[name].files
        files = []
        for file in json.loads(self.body)["files"]:
            path = file["path"]
            old = there.get(path)
            large = path in self.hub.large
            oid = None if old is None else sha256(old) if large else git_hash(old)
            mode = "lfs" if large else "regular"
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self.say({"files": files})

    def batch(self) -> None:
        objects = []
        for each in json.loads(self.body)["objects"]:
            answer = {"oid": each["oid"], "size": each["size"]}
            if each["oid"] not in self.hub.stored:
                answer["actions"] = {"upload": {"href": f"{self.hub.elsewhere}/stored/{each['oid']}"}}
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
        whole = len(body)
        if "Range" in self.headers and status == 200:
            first = int(self.headers["Range"].removeprefix("bytes=").partition("-")[0])
            body, status = body[first:], 206
            headers["Content-Range"] = f"bytes {first}-{whole - 1}/{whole}"
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body)), "Accept-Ranges": "bytes"}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            path = unquote(self.path.partition("?")[0])
            if self.hub.cut.get(path, 0):
                self.hub.cut[path] -= 1
                body = body[: len(body) // 2]
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_hash(data: bytes) -> str:
    """As git calls a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@pytest.fixture
def server() -> Iterator[FakeHub]:
    """A hub on this machine, for another process: HF_ENDPOINT is its address."""
    hub = FakeHub()
    handler = type("HandlerOfOne", (Handler,), {"hub": hub})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
    hub.address = f"http://127.0.0.1:{http.server_port}"
    hub.elsewhere = f"http://localhost:{http.server_port}"

    def stop() -> None:
        http.shutdown()
        http.server_close()

    hub.stop = stop
    yield hub
    hub.stop()


@pytest.fixture
def hub(server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """The same for this process, which has read the environment already; nobody is logged in."""
    constants = pytest.importorskip("huggingface_hub.constants", reason="comes with cfnsr[pretrained]")
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    return server
