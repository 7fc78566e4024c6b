"""The hub: three files fetched and sent, nothing else, and one line for whatever goes wrong."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import cfnsr
from cfnsr.errors import InputError
from cfnsr.sharing import hub as sharing
from cfnsr.sharing.pretrained import push_to_hub

FILES = {"config.json", "model.safetensors", "README.md"}
NAME = "me/cfn-sr"
MINE, OTHERS, NOBODYS = "hf_mine", "hf_other", "hf_wrong"  # tokens

Hub = Any  # the fixture's


@pytest.fixture(scope="module")
def shared(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as a folder; read it, do not change it."""
    return cfnsr.save_pretrained(cfnsr.load_model(run), tmp_path_factory.mktemp("hub") / "shared")


def states(model: torch.nn.Module) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


def refused(message: str, action: Callable[..., object], *arguments: object, **options: object) -> str:
    with pytest.raises(InputError, match=message) as error:
        action(*arguments, **options)
    assert "\n" not in str(error.value) and "hf_" not in str(error.value), "no token is told"
    return str(error.value)


def test_a_model_is_fetched_once(hub: Hub, shared: Path, synthetic: Path, tmp_path: Path) -> None:
    hub.add(NAME, shared)
    model = cfnsr.from_pretrained(NAME)
    assert hub.fetched == FILES
    assert model.folder.parents[1] == tmp_path / "cache" / "models--me--cfn-sr"
    ours = cfnsr.load_model(shared)
    assert states(model) == states(ours) and model.config == ours.config
    file = next(synthetic.glob("Actor_01/*.mp4"))
    assert cfnsr.predict(model, file).probabilities == cfnsr.predict(ours, file).probabilities
    again = cfnsr.save_pretrained(model, tmp_path / "again")
    assert {path.name: path.read_bytes() for path in again.iterdir()} == {
        path.name: path.read_bytes() for path in shared.iterdir()
    }, "its card and its bytes come along"
    hub.asked.clear()
    assert states(cfnsr.from_pretrained(Path(NAME))) == states(ours)
    assert not hub.fetched, "whether there is a newer one is asked, no file is"


def test_a_newer_commit_is_fetched_and_an_older_one_is_kept(hub: Hub, shared: Path, tmp_path: Path) -> None:
    found = hub.add(NAME, shared)
    first = found.sha
    cfnsr.from_pretrained(NAME)
    elsewhere = cfnsr.from_pretrained(NAME, cache_dir=tmp_path / "mine")
    assert elsewhere.folder.is_relative_to(tmp_path / "mine")
    told = json.loads(found.files["config.json"])
    found.files["config.json"] = json.dumps({**told, "temperature": 0.5}).encode()
    hub.asked.clear()
    newer = cfnsr.from_pretrained(NAME)
    assert newer.config.temperature == 0.5 and newer.folder.name == found.sha != first
    assert not any(line.startswith("GET /stored/") for line in hub.asked), "the weights are the same"
    older = cfnsr.from_pretrained(NAME, revision=first, local_files_only=True)
    assert older.folder.name == first and older.config.temperature == told["temperature"] != 0.5


def test_only_our_three_files_are_asked_for(hub: Hub, shared: Path) -> None:
    """Whatever else a repository holds, under whatever name."""
    evil = pickle.dumps(shared)
    found = hub.add(NAME, shared)
    for name in (
        "pytorch_model.bin",
        "../config.json",
        "../../../evil.py",
        "sub/config.json",
        "/etc/config.json",
        "config.json.py",
        "model.safetensors.index.json",
        "README.md/../../evil",
        "modeling.py",
        "CONFIG.JSON",
    ):
        found.files[name] = evil
    model = cfnsr.from_pretrained(NAME)
    assert hub.fetched == FILES
    assert {path.name for path in model.folder.iterdir()} == FILES


def test_a_repository_is_looked_at_before_anything_is_fetched(hub: Hub, shared: Path) -> None:
    found = hub.add(NAME, shared)
    found.files["README.md"] = b"x" * (2**20 + 1)
    refused(r"has a README\.md of 1,048,577 bytes: expected one", cfnsr.from_pretrained, NAME)
    found.files["config.json"] = b"{" + b" " * 2**21
    refused(r"has a config\.json of 2,097,153 bytes: expected one", cfnsr.from_pretrained, NAME)
    del found.files["config.json"], found.files["model.safetensors"]
    found.files["pytorch_model.bin"] = pickle.dumps(1)
    refused(r"no config\.json and no model\.safetensors.*pickled weights", cfnsr.from_pretrained, NAME)
    assert not hub.fetched


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (b'{"model_type": "bert"}', "me/cfn-sr is no model of cfnsr, for its config.json names none"),
        (b'{"cfnsr": "9.0", "format": 9}', r"format 9 \(written by cfnsr 9\.0\)"),
        (b"[" * 100_000, "me/cfn-sr is no model of cfnsr"),
    ],
)
def test_other_models_weights_are_not_fetched(hub: Hub, shared: Path, config: bytes, message: str) -> None:
    hub.add(NAME, shared, **{"config.json": config})
    refused(message, cfnsr.from_pretrained, NAME)
    assert hub.fetched == {"config.json"}


def test_a_model_that_is_not_there_or_not_shown(hub: Hub, shared: Path) -> None:
    """One that is not there and one that is another's look alike to who is not signed in."""
    hub.add(NAME, shared).private = True
    message = r"me/.* is no folder here, and the hub refuses it: RepositoryNotFoundError: 401 .*authenticated"
    refused(message, cfnsr.from_pretrained, "me/none")
    refused(message, cfnsr.from_pretrained, NAME)
    refused("RepositoryNotFoundError: 404", cfnsr.from_pretrained, NAME, token=OTHERS)
    assert states(cfnsr.from_pretrained(NAME, token=MINE)) == states(cfnsr.load_model(shared))
    hub.add("me/gated", shared).gated = True
    refused("the hub refuses it: GatedRepoError: 403.*gated", cfnsr.from_pretrained, "me/gated")
    hub.add("me/open", shared)
    refused("RevisionNotFoundError: 404.*/v9", cfnsr.from_pretrained, "me/open", revision="v9")


@pytest.mark.parametrize(
    "name", ["nowhere", "runs/nested/audio", "./owner/name", "/no/where", "owner/../name", "a/b?c", "", "ä/ö"]
)
def test_what_is_no_name(hub: Hub, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if name:
        refused("is no folder here, and no name on the Hugging Face hub", cfnsr.from_pretrained, name)
    refused("is no name on the Hugging Face hub: expected owner/name", push_to_hub, "x", name)
    assert not hub.asked


def test_names_that_only_the_hub_refuses(hub: Hub) -> None:
    refused(
        r"a--b is no folder here, and no name on the hub: .*Cannot have --", cfnsr.from_pretrained, "me/a--b"
    )
    assert not hub.asked


def test_a_folder_goes_before_the_hub(
    hub: Hub, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(shared, tmp_path / NAME)
    monkeypatch.chdir(tmp_path)
    assert cfnsr.from_pretrained(NAME).folder == tmp_path / NAME and not hub.asked


def test_without_a_network_the_cache_serves(hub: Hub, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(NAME, shared)
    expected = states(cfnsr.from_pretrained(NAME))
    hub.faults["GET /api/models"] = 503
    assert states(cfnsr.from_pretrained(NAME)) == expected
    missing = "me/other is no folder here and is not in the cache, and "
    refused(f"{missing}the hub answers 503: expected", cfnsr.from_pretrained, "me/other")
    hub.stop()
    assert states(cfnsr.from_pretrained(NAME)) == expected
    message = rf"{missing}the hub is out of reach \(ConnectError\): expected a network"
    refused(message, cfnsr.from_pretrained, "me/other")
    assert states(cfnsr.from_pretrained(NAME, local_files_only=True)) == expected
    refused("forbids to ask the hub", cfnsr.from_pretrained, "me/other", local_files_only=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert states(cfnsr.from_pretrained(NAME)) == expected
    refused(r"out of reach \(OfflineModeIsEnabled\)", cfnsr.from_pretrained, "me/other")


def test_what_fails_halfway_is_not_half_there(hub: Hub, shared: Path) -> None:
    hub.add(NAME, shared)
    hub.faults["GET /stored/"] = 403
    refused(r"me/cfn-sr is no folder here and cannot be fetched \(.*403", cfnsr.from_pretrained, NAME)
    refused("is not in the cache, and local_files_only", cfnsr.from_pretrained, NAME, local_files_only=True)
    hub.faults.clear()
    assert states(cfnsr.from_pretrained(NAME)) == states(cfnsr.load_model(shared))


def test_without_huggingface_hub_one_line_says_what_to_install(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cfnsr.errors.find_spec", lambda package: None)
    message = r"huggingface-hub is not installed: run pip install 'cfnsr\[pretrained\]'"
    refused(message, cfnsr.from_pretrained, NAME)
    refused(message, push_to_hub, shared, NAME)
    assert states(cfnsr.from_pretrained(shared)), "folders do without"


def test_a_run_is_sent_as_three_files_in_one_commit(hub: Hub, run: Path, shared: Path) -> None:
    """Nothing else of the run's folder, neither its predictions nor its history; then it is fetched again."""
    page = push_to_hub(run, NAME, token=MINE)
    assert page == f"{hub.address}/{NAME}"
    sent = hub.repositories[NAME]
    assert sent.files == {path.name: path.read_bytes() for path in shared.iterdir()}
    assert sent.messages == [f"A model of cfnsr {cfnsr.__version__}"] and not sent.private
    assert states(cfnsr.from_pretrained(NAME)) == states(cfnsr.load_model(run))
    puts = [line for line in hub.asked if line.startswith("PUT ")]
    assert len(puts) == 1, "the weights go apart"
    sharing.upload(run, "me/run", token=MINE)
    assert set(hub.repositories["me/run"].files) == {"config.json", "model.safetensors"}


def test_a_model_is_sent_and_sent_again(hub: Hub, run: Path) -> None:
    model = cfnsr.load_model(run)
    push_to_hub(model, NAME, token=MINE)
    push_to_hub(model, NAME, token=MINE)
    assert len(hub.repositories[NAME].messages) == 1, "nothing has changed"
    with torch.no_grad():
        model.classify.bias.add_(1)
    push_to_hub(model, NAME, token=MINE)
    assert len(hub.repositories[NAME].messages) == 2
    assert b"accuracy %" not in hub.repositories[NAME].files["README.md"]
    assert states(cfnsr.from_pretrained(NAME)) == states(model)


def test_what_else_a_repository_has_stays(hub: Hub, shared: Path) -> None:
    hub.add(NAME, shared, LICENSE=b"mine", **{"config.json": b"{}"})
    push_to_hub(shared, NAME, token=MINE)
    assert hub.repositories[NAME].files["LICENSE"] == b"mine"
    assert set(hub.repositories[NAME].files) == {*FILES, "LICENSE"}


def test_private_is_private(hub: Hub, shared: Path) -> None:
    push_to_hub(shared, NAME, private=True, token=MINE)
    assert hub.repositories[NAME].private and set(hub.repositories[NAME].files) == FILES
    refused("RepositoryNotFoundError: 401", cfnsr.from_pretrained, NAME)
    push_to_hub(shared, NAME, private=True, token=MINE)
    hub.repositories["me/open"] = type(hub.repositories[NAME])()
    refused("me/open is public on the hub already", push_to_hub, shared, "me/open", private=True, token=MINE)
    assert not hub.repositories["me/open"].files


def test_who_may_not_write(hub: Hub, shared: Path) -> None:
    refused("me/cfn-sr was not written: .*401", push_to_hub, shared, NAME)
    refused("me/cfn-sr was not written: .*401", push_to_hub, shared, NAME, token=NOBODYS)
    message = "other/model was not written: .*403 Forbidden.*Make sure your token has the correct permissions"
    refused(message, push_to_hub, shared, "other/model", token=MINE)
    hub.add("other/model", shared)
    refused(message, push_to_hub, shared, "other/model", token=MINE)
    assert set(hub.repositories) == {"other/model"}


@pytest.mark.parametrize("fault", ["PUT /stored", "POST /me/cfn-sr.git", "POST /api/models/me/cfn-sr/commit"])
def test_an_upload_that_fails_leaves_no_half_of_it(hub: Hub, shared: Path, fault: str) -> None:
    hub.faults[fault] = 403
    refused("me/cfn-sr was not written: .*403 Forbidden", push_to_hub, shared, NAME, token=MINE)
    assert not hub.repositories[NAME].files
    hub.faults.clear()
    push_to_hub(shared, NAME, token=MINE)
    assert set(hub.repositories[NAME].files) == FILES


def test_a_hub_that_is_full_or_away(hub: Hub, shared: Path) -> None:
    hub.faults["POST /api/models"] = 507
    refused("was not written: HfHubHTTPError: .*507.*fault 507", push_to_hub, shared, NAME, token=MINE)
    hub.stop()
    refused("me/cfn-sr was not written: ConnectError: ", push_to_hub, shared, NAME)


def test_a_card_the_hub_refuses(hub: Hub, shared: Path, tmp_path: Path) -> None:
    edited = Path(shutil.copytree(shared, tmp_path / "edited"))
    text = (edited / "README.md").read_text()
    (edited / "README.md").write_text(text.replace("library_name: cfnsr", "library_name cfnsr"))
    message = "was not written: ValueError: Invalid metadata in README.*bad line library_name cfnsr"
    refused(message, push_to_hub, edited, NAME, token=MINE)
    assert not hub.repositories[NAME].files


def test_what_cannot_be_shared_is_not_sent(hub: Hub, run: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    refused("nowhere is no folder: expected that of a run", push_to_hub, nowhere, NAME, token=MINE)
    refused("does not say what it is", push_to_hub, cfnsr.create_model("audio"), NAME, token=MINE)
    unfinished = Path(shutil.copytree(run, tmp_path / "run"))
    told = json.loads((run / "run.json").read_text())
    (unfinished / "run.json").write_text(json.dumps({**told, "finished": False}))
    refused("is a run that is not finished", push_to_hub, unfinished, NAME, token=MINE)
    assert not hub.asked
