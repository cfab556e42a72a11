"""Checkpoints of the Hugging Face Hub, through huggingface_hub: its cache, environment variables and progress bars."""

from pathlib import Path

from igpt_export.checkpoint.generation import GENERATION_FILE
from igpt_export.checkpoint.problems import refuse
from igpt_export.checkpoint.weights import BIN_NAMES, SAFETENSORS_NAMES
from igpt_runtime.bundle.directory import CARD_FILE
from igpt_runtime.bundle.hub import explain, parse_hub_id
from igpt_runtime.errors import CheckpointError
from igpt_runtime.privacy import HUB, turn_off

__all__ = ["download", "parse_hub_id"]

_DESCRIPTION = ["config.json", "preprocessor_config.json"]
_OPTIONAL = [GENERATION_FILE, CARD_FILE]
_SAFETENSORS = [*SAFETENSORS_NAMES, "model-*-of-*.safetensors"]
_BIN = [*BIN_NAMES, "pytorch_model-*-of-*.bin"]


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
    turn_off(HUB)
    try:
        from huggingface_hub import errors, snapshot_download
    except ImportError:
        refuse(repo_id, ["downloads need huggingface_hub"], "pip install huggingface_hub, or name a local directory")

    def take(patterns: list[str]) -> Path:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=patterns))

    try:
        try:
            return take([*patterns, *_OPTIONAL])
        except errors.LocalEntryNotFoundError:  # what is in the cache may do without these
            return take(patterns)
    except Exception as error:  # the HTTP client below huggingface_hub, and so its exceptions, change with the version
        fact, remedy = explain(error, repo_id, revision)
        name = repo_id if revision is None else f"{repo_id}@{revision}"
        raise CheckpointError(f"{name}: {fact} - {remedy}") from error
