"""The Hugging Face hub: three files of a repository fetched, or sent there.

Needs the extra `cfnsr[pretrained]`; huggingface_hub is imported when a name of the hub is given, not before.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cfnsr import __version__
from cfnsr.errors import InputError, require
from cfnsr.sharing.folder import CARD, CONFIG, FILES, WEIGHTS

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*")
LARGEST_TEXT = 2**20  # bytes of config.json and of the card; cfnsr's have a hundredth of it
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

    What was fetched stays in Hugging Face's cache, which serves where there is no network.

    Args:
        name: owner/name.
        accept: is given the folder once config.json is there; what it raises spares fetching the weights.
        revision: a branch, tag or commit; None is the main branch.
        cache_dir: None is Hugging Face's own.
        token: for a private model.
        local_files_only: ask nobody, take what was fetched before.

    Raises:
        InputError: no hub name, no network, no such model or a private one, one without these files.
    """
    if not NAME.fullmatch(name):
        raise InputError(
            f"{name} is no folder here, and no name on the Hugging Face hub: expected a folder, or owner/name"
        )
    require("pretrained", "huggingface_hub")
    from huggingface_hub import HfApi, snapshot_download

    api = HfApi(token=token, library_name="cfnsr", library_version=__version__)
    apart = "local_files_only forbids to ask the hub" if local_files_only else _look(api, name, revision)

    def snapshot(revision: str | None, files: tuple[str, ...]) -> Path:
        try:
            folder = snapshot_download(
                name,
                revision=revision,
                cache_dir=cache_dir,
                token=token,
                allow_patterns=list(files),
                local_files_only=bool(apart),
                library_name="cfnsr",
                library_version=__version__,
            )
        except Exception as error:  # the hub, its HTTP client and the file system each raise their own
            if apart:
                raise InputError(
                    f"{name} is no folder here and not in the cache, and {apart}: expected a network, or a "
                    "model that was fetched before"
                ) from None
            raise InputError(
                f"{name} cannot be fetched from the hub ({_reason(error)}): check the network, then try again"
            ) from None
        return Path(folder)

    folder = snapshot(revision, (CONFIG,))
    accept(folder)
    return snapshot(folder.name, FILES)  # named after its commit, so that both are of one


def upload(folder: Path, name: str, *, private: bool = False, token: Token = None) -> str:
    """Send the three files of a folder to a repository of the hub, in one commit; return its address.

    Args:
        folder: as `save_pretrained` writes it.
        name: owner/name; the repository is made if it is not there.
        private: whether a new repository is for its owner alone.
        token: that may write; None takes that of `hf auth login`.

    Raises:
        InputError: no hub name, no network, nobody who may write there, or a public repository where a
            private one is asked for.
    """
    check_name(name)
    from huggingface_hub import HfApi

    api = HfApi(token=token, library_name="cfnsr", library_version=__version__)
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
    except Exception as error:  # the hub, its HTTP client and its upload each raise their own
        raise _not_written(name, error) from None
    if public:
        raise InputError(f"{name} is public on the hub already: expected another name for a private model")
    return f"{api.endpoint}/{name}"


def check_name(name: str) -> None:
    """Refuse what cannot be uploaded to, before anything is written."""
    if not NAME.fullmatch(name):
        raise InputError(f"{name!r} is no name on the Hugging Face hub: expected owner/name, as in me/cfn-sr")
    require("pretrained", "huggingface_hub")


def _look(api: "HfApi", name: str, revision: str | None) -> str:
    """Refuse a repository for what it holds before anything is fetched; if it is out of reach, say why."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        told = api.model_info(name, revision=revision, files_metadata=True, timeout=TIMEOUT)
    except HFValidationError as error:
        raise InputError(f"{name} is no folder here, and no name on the hub: {_line(error)}") from None
    except HfHubHTTPError as error:
        if error.response.status_code == 429 or error.response.status_code >= 500:
            return f"the hub answers {error.response.status_code}"
        raise _not_read(name, revision, error) from None
    except Exception as error:  # its HTTP client raises its own, and changed with the hub's versions
        return f"the hub is out of reach ({type(error).__name__})"
    sizes = {file.rfilename: file.size or 0 for file in told.siblings or ()}
    missing = [file for file in (CONFIG, WEIGHTS) if file not in sizes]
    if missing:
        raise InputError(
            f"{name} on the hub has no {' and no '.join(missing)}: expected a model that cfnsr put there "
            "(pickled weights are never read)"
        )
    for file in (CONFIG, CARD):
        if sizes.get(file, 0) > LARGEST_TEXT:
            raise InputError(
                f"{name} on the hub has a {file} of {sizes[file]:,} bytes: expected one that cfnsr put there"
            )
    return ""


def _not_read(name: str, revision: str | None, error: "HfHubHTTPError") -> InputError:
    from huggingface_hub.errors import GatedRepoError, RevisionNotFoundError

    status = error.response.status_code
    if isinstance(error, GatedRepoError):
        return InputError(
            f"{name} is gated on the hub ({status}): accept its terms on its page, then log in with "
            "`hf auth login` or give a token"
        )
    if isinstance(error, RevisionNotFoundError):
        return InputError(f"{name} on the hub has no revision {revision}: expected a branch, tag or commit")
    if status in (401, 403, 404):
        return InputError(
            f"{name} is no folder here, and the hub has no such model or does not show it to you ({status}): "
            "check the name, log in with `hf auth login`, or give a token"
        )
    return InputError(f"{name} cannot be fetched: the hub answers {_reason(error)}")


def _not_written(name: str, error: BaseException) -> InputError:
    from huggingface_hub.errors import HfHubHTTPError

    answer: BaseException | None = error
    while answer is not None and not isinstance(answer, HfHubHTTPError):
        answer = answer.__cause__
    status = 0 if answer is None else answer.response.status_code
    if status == 401:
        return InputError(
            f"{name} was not written: the hub does not know you (401); log in with `hf auth login`, or give "
            "a token that may write"
        )
    if status in (403, 404):
        return InputError(
            f"{name} was not written: you may not write there ({status}); expected a name under your own or "
            "your organisation's, and a token that may write"
        )
    if answer is None:
        return InputError(f"{name} was not written ({_reason(error)}): check the network, then try again")
    reasons = dict.fromkeys([_reason(error), _reason(answer)])
    return InputError(f"{name} was not written: the hub refuses it ({'; '.join(reasons)})")


def _reason(error: BaseException) -> str:
    """Reason of an error, in one line."""
    said = getattr(error, "server_message", None) or _line(error)
    status = getattr(getattr(error, "response", None), "status_code", "")
    return " ".join(f"{type(error).__name__} {status} {said}".split())[:200]


def _line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")
