"""Checkpoints of the Hugging Face Hub, through huggingface_hub: its cache, environment variables and progress bars."""

import re
from pathlib import Path

from igpt_export.checkpoint.problems import one_line, refuse
from igpt_export.checkpoint.weights import BIN_NAMES, SAFETENSORS_NAMES
from igpt_runtime.errors import CheckpointError

_HUB_ID = re.compile(r"(?P<id>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>\w[\w./-]*))?", re.ASCII)

_DESCRIPTION = ["config.json", "preprocessor_config.json"]
_SAFETENSORS = [*SAFETENSORS_NAMES, "model-*-of-*.safetensors"]
_BIN = [*BIN_NAMES, "pytorch_model-*-of-*.bin"]


def parse_hub_id(source: str) -> tuple[str, str | None] | None:
    """`owner/name` or `owner/name@revision` as (id, revision or None); None for anything else."""
    match = _HUB_ID.fullmatch(source)
    return (match["id"], match["revision"]) if match else None


def download(repo_id: str, revision: str | None) -> Path:
    """The cached snapshot of a repository, a directory named by its commit; what is missing is downloaded.

    Takes safetensors, and pickled weights only where there are none. Raises CheckpointError for everything that can go
    wrong on the way.
    """
    snapshot = _snapshot(repo_id, revision, [*_DESCRIPTION, *_SAFETENSORS])
    if any((snapshot / name).is_file() for name in SAFETENSORS_NAMES):
        return snapshot
    return _snapshot(repo_id, snapshot.name, [*_DESCRIPTION, *_BIN])


def _snapshot(repo_id: str, revision: str | None, patterns: list[str]) -> Path:
    try:
        import huggingface_hub
    except ImportError:
        refuse(repo_id, ["downloads need huggingface_hub"], "pip install huggingface_hub, or name a local directory")
    try:
        return Path(huggingface_hub.snapshot_download(repo_id, revision=revision, allow_patterns=patterns))
    except Exception as error:  # the HTTP client below huggingface_hub, and so its exceptions, change with the version
        raise _explained(error, repo_id, revision) from error


def _explained(error: Exception, repo_id: str, revision: str | None) -> CheckpointError:
    """`error` as one line: what happened and what to do."""
    from huggingface_hub import constants, errors

    online = "check the connection, or name a local directory"
    if isinstance(error, errors.HFValidationError):
        fact, remedy = "neither a directory nor a valid id of the Hugging Face Hub", "check the name"
    elif isinstance(error, errors.GatedRepoError):
        fact = "access is restricted by its owner"
        remedy = f"accept the terms at https://huggingface.co/{repo_id}, then run `hf auth login` or set HF_TOKEN"
    elif isinstance(error, errors.RepositoryNotFoundError):
        fact = "neither a directory nor a public repository of the Hugging Face Hub"
        remedy = "check the name; if it is private, run `hf auth login` or set HF_TOKEN"
    elif isinstance(error, errors.RevisionNotFoundError):
        fact, remedy = f"has no revision {revision!r}", f"see https://huggingface.co/{repo_id}/commits/main"
    elif isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        if constants.HF_HUB_OFFLINE:
            fact = "not a directory, and not (wholly) in the Hugging Face cache while HF_HUB_OFFLINE is set"
            remedy = "unset HF_HUB_OFFLINE to download it, or name a local directory"
        else:
            fact, remedy = "not in the Hugging Face cache, and the Hub cannot be reached", online
    else:
        fact, remedy = f"download failed: {type(error).__name__}: {one_line(error)}", online
    name = repo_id if revision is None else f"{repo_id}@{revision}"
    return CheckpointError(f"{name}: {fact} - {remedy}")
