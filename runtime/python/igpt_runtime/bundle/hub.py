"""Bundles by their name on the Hugging Face Hub, through huggingface_hub: its cache, environment variables and bars.

The Hub's client and its exceptions are looked at here and nowhere else; the exporter takes its sentences from here too.
"""

import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path

from igpt_runtime.bundle.directory import CARD_FILE, MANIFEST_FILE, is_file_name, read_manifest
from igpt_runtime.bundle.manifest import shortened
from igpt_runtime.errors import BundleError, DeviceError
from igpt_runtime.privacy import HUB, turn_off

__all__ = ["explain", "find_bundle", "one_line", "parse_hub_id"]

_HUB_ID = re.compile(r"(?P<id>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>\w[\w./-]*))?", re.ASCII)
_LONGEST = 300  # characters kept of another library's message


def find_bundle(name: str, sha256: str | None = None) -> Path:
    """The directory of a bundle: `name` itself if it exists, else what `owner/name[@revision]` is on the Hub.

    A bundle of the Hub is a snapshot in huggingface_hub's cache, named by its commit. What is missing of it is
    downloaded: the manifest, the files it names, and the card. Without a connection the cached one is taken. The
    variables HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE, HF_TOKEN and HF_ENDPOINT mean what they mean to huggingface_hub.

    A name that is neither comes back as a path, which `open_bundle` refuses. So does `owner/name` where there is a
    directory `owner`: it is a mistyped path, of which the Hub is told nothing.

    sha256: see `open_bundle`; nothing else of another bundle is downloaded.

    Raises:
        DeviceError: it must be downloaded, and huggingface_hub is not installed.
        BundleError: there is no such repository, or no bundle in it, or it cannot be downloaded.
    """
    is_local = os.path.exists(name) or os.path.isdir(os.path.dirname(name))
    hub = None if is_local else parse_hub_id(name)
    return Path(name) if hub is None else _snapshot(*hub, sha256)


def parse_hub_id(source: str) -> tuple[str, str | None] | None:
    """`owner/name` or `owner/name@revision` as (id, revision or None); None for anything else."""
    match = _HUB_ID.fullmatch(source)
    if match is None or ".." in (match["revision"] or "").split("/"):
        return None
    return match["id"], match["revision"]


def _snapshot(repo_id: str, revision: str | None, sha256: str | None) -> Path:
    name = repo_id if revision is None else f"{repo_id}@{revision}"
    fetch = _fetcher(repo_id, name)
    directory = fetch(MANIFEST_FILE, revision).parent
    files = read_manifest(directory, sha256).files
    foreign = next((file for file in files if not is_file_name(file)), None)
    if foreign is not None:
        raise BundleError(
            f"{name}: its {MANIFEST_FILE} names {shortened(repr(foreign))}, which is not a file of the bundle"
        )
    missing = [file for file in files if not (directory / file).is_file()]
    for file in missing:
        fetch(file, directory.name)
    if missing:
        with contextlib.suppress(BundleError):  # a bundle without its card is still one
            fetch(CARD_FILE, directory.name)
    return directory


def _fetcher(repo_id: str, name: str) -> Callable[[str, str | None], Path]:
    """A function from a file of a repository and a revision to its path in the cache, where it is from then on."""
    turn_off(HUB)
    try:
        import huggingface_hub
    except ImportError as error:
        raise DeviceError(
            f"{name} is no directory here, and to open it from the Hugging Face Hub huggingface_hub is needed; "
            "run: pip install huggingface_hub, or name the directory of a bundle"
        ) from error

    def fetch(file: str, revision: str | None) -> Path:
        try:
            return Path(huggingface_hub.hf_hub_download(repo_id, file, revision=revision))
        except Exception as error:  # the HTTP client below, and so its exceptions, change with the version
            fact, remedy = _explain_missing(error, repo_id, file) or explain(error, repo_id, revision)
            raise BundleError(f"{name}: {fact}; {remedy}") from error

    return fetch


def _explain_missing(error: Exception, repo_id: str, file: str) -> tuple[str, str] | None:
    """A fact and a remedy for a repository without a file; None if that is not what happened."""
    from huggingface_hub import errors

    if not isinstance(error, errors.EntryNotFoundError) or isinstance(error, errors.LocalEntryNotFoundError):
        return None
    if file != MANIFEST_FILE:
        return f"its {MANIFEST_FILE} names {file}, which the repository has not", "upload the bundle again, whole"
    return f"no bundle: the repository has no {MANIFEST_FILE}", (
        f"make a bundle of a checkpoint with: igpt-export --checkpoint {repo_id}"
    )


def explain(error: Exception, repo_id: str, revision: str | None) -> tuple[str, str]:
    """What huggingface_hub raised while it looked for a repository, as a fact and what to do about it."""
    from huggingface_hub import constants, errors

    online = "check the connection, or name a local directory"
    if isinstance(error, errors.HFValidationError):
        return "neither a directory nor a valid id of the Hugging Face Hub", "check the name"
    if isinstance(error, errors.GatedRepoError):
        address = f"{constants.ENDPOINT}/{repo_id}"
        return "access is restricted by its owner", (
            f"accept the terms at {address}, then run `hf auth login` or set HF_TOKEN"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return "neither a directory nor a public repository of the Hugging Face Hub", (
            "check the name; if it is private, run `hf auth login` or set HF_TOKEN"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"has no revision {revision!r}", f"see {constants.ENDPOINT}/{repo_id}/commits/main"
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        if not constants.HF_HUB_OFFLINE:
            return "no directory here, not in the Hugging Face cache, and the Hub cannot be reached", online
        fact = "not a directory, and not (wholly) in the Hugging Face cache while HF_HUB_OFFLINE is set"
        return fact, "unset HF_HUB_OFFLINE to download it, or name a local directory"
    return f"download failed: {type(error).__name__}: {one_line(error)}", online


def one_line(text: object) -> str:
    """`text` on one line, unprintable characters blanked, cut to a readable length."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return line if len(line) <= _LONGEST else line[:_LONGEST] + "..."
