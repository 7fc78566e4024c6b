"""The Hugging Face hub: three files of a repository fetched, or sent (extra `cfnsr[pretrained]`)."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cfnsr import __version__
from cfnsr.errors import InputError, require
from cfnsr.features.spec import LARGEST
from cfnsr.sharing.folder import CARD, CONFIG, FILES, WEIGHTS

if TYPE_CHECKING:
    from huggingface_hub import HfApi

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*")
TIMEOUT = 10.0  # seconds until the hub is taken for out of reach

Token = str | bool | None  # None takes that of `hf auth login`, False none at all


def fetch(
    name: str,
    accept: Callable[[Path], object],
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: Token = None,
    local_files_only: bool = False,
) -> Path:
    """Fetch config.json, model.safetensors and README.md of a model, and nothing else; return their folder.

    What was fetched stays in Hugging Face's cache, which serves where there is no network. The options are
    those of `cfnsr.from_pretrained`.

    Args:
        accept: is given the folder once config.json is there; what it raises spares fetching the weights.

    Raises:
        InputError: no hub name, no network, no such model or a private one, one without these files.
    """
    if not NAME.fullmatch(name):
        raise InputError(
            f"{name} is no folder here, and no name on the Hugging Face hub: expected a folder, or owner/name"
        )
    api = _api(token)
    offline = "local_files_only forbids to ask the hub" if local_files_only else _look(api, name, revision)

    def snapshot(revision: str | None, files: tuple[str, ...]) -> Path:
        try:
            folder = api.snapshot_download(
                name,
                revision=revision,
                cache_dir=cache_dir,
                allow_patterns=list(files),
                local_files_only=bool(offline),
            )
        except Exception as error:  # the hub, its HTTP client and the file system each raise their own
            why = f"is not in the cache, and {offline}" if offline else f"cannot be fetched ({_said(error)})"
            raise InputError(
                f"{name} is no folder here and {why}: expected a network, or a model that was fetched before"
            ) from None
        return Path(folder)

    folder = snapshot(revision, (CONFIG,))
    accept(folder)
    return snapshot(folder.name, FILES)  # named after its commit, so that both are of one


def upload(folder: Path, name: str, *, private: bool = False, token: Token = None) -> str:
    """Send the three files of a folder to a repository of the hub, in one commit; return its address.

    Args:
        name: owner/name; the repository is made if it is not there.
        private: a new repository is for its owner alone.

    Raises:
        InputError: no hub name, no network, nobody who may write there, or a public repository where a
            private one is asked for.
    """
    check_name(name)
    api = _api(token)
    try:
        api.create_repo(name, private=private, exist_ok=True)
        public = private and not api.model_info(name).private
        if not public:
            api.upload_folder(
                repo_id=name,
                folder_path=folder,
                commit_message=f"A model of cfnsr {__version__}",
                allow_patterns=list(FILES),
            )
    except Exception as error:  # the hub and its HTTP client each raise their own, an upload wraps it
        why = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        raise InputError(f"{name} was not written: {_said(why)}") from None
    if public:
        raise InputError(f"{name} is public on the hub already: expected another name for a private model")
    return f"{api.endpoint}/{name}"


def check_name(name: str) -> None:
    """Refuse what cannot be uploaded to, before anything is written."""
    if not NAME.fullmatch(name):
        raise InputError(f"{name!r} is no name on the Hugging Face hub: expected owner/name, as in me/cfn-sr")
    require("pretrained", "huggingface_hub")


def _api(token: Token) -> "HfApi":
    require("pretrained", "huggingface_hub")
    from huggingface_hub import HfApi

    return HfApi(token=token, library_name="cfnsr", library_version=__version__)


def _look(api: "HfApi", name: str, revision: str | None) -> str:
    """Refuse a repository for what it holds before anything is fetched; if it is out of reach, say why."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        found = api.model_info(name, revision=revision, files_metadata=True, timeout=TIMEOUT)
    except HFValidationError as error:
        raise InputError(f"{name} is no folder here, and no name on the hub: {_said(error)}") from None
    except HfHubHTTPError as error:
        if error.response.status_code == 429 or error.response.status_code >= 500:
            return f"the hub answers {error.response.status_code}"
        raise InputError(f"{name} is no folder here, and the hub refuses it: {_said(error)}") from None
    except Exception as error:  # its HTTP client raises its own, and changed with the hub's versions
        return f"the hub is out of reach ({type(error).__name__})"
    sizes = {file.rfilename: file.size or 0 for file in found.siblings or ()}
    if missing := [file for file in (CONFIG, WEIGHTS) if file not in sizes]:
        raise InputError(
            f"{name} on the hub has no {' and no '.join(missing)}: expected a model that cfnsr put there "
            "(pickled weights are never read)"
        )
    for file in (CONFIG, CARD):
        if sizes.get(file, 0) > LARGEST:
            raise InputError(
                f"{name} on the hub has a {file} of {sizes[file]:,} bytes: expected one that cfnsr put there"
            )
    return ""


def _said(error: BaseException) -> str:
    """Put an error's own message in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
