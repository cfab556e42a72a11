"""Checkpoints by Hub id: through huggingface_hub's own cache and variables, every failure one line. No network."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from hub_server import COMMIT, hub_server
from huggingface_hub import constants, errors
from safetensors.torch import load_file

from igpt_export.checkpoint.checkpoint import load_checkpoint
from igpt_export.checkpoint.hub import parse_hub_id
from igpt_runtime.errors import CheckpointError

Write = Callable[..., Path]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("openai/imagegpt-small", ("openai/imagegpt-small", None)),
        ("openai/imagegpt-small@refs/pr/1", ("openai/imagegpt-small", "refs/pr/1")),
        ("a/b.c@v1.0", ("a/b.c", "v1.0")),
        *(
            (text, None)
            for text in ("small", "/a/b", "./a", "../a", "a/b/c", "a\\b", "C:/a", "a/b@", "a/b@-x", "a b/c")
        ),
    ],
)
def test_parse_hub_id(source: str, expected: tuple[str, str | None] | None) -> None:
    assert parse_hub_id(source) == expected


def fake_download(monkeypatch: pytest.MonkeyPatch, snapshot: Path | Exception) -> list[dict[str, Any]]:
    """Replace huggingface_hub's download; returns the list that its calls are noted in."""
    calls: list[dict[str, Any]] = []

    def snapshot_download(repo_id: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        calls.append({"repo_id": repo_id, "revision": revision, "allow_patterns": allow_patterns})
        if isinstance(snapshot, Exception):
            raise snapshot
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return calls


def test_safetensors_are_downloaded(write_checkpoint: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_download(monkeypatch, write_checkpoint(name=COMMIT))
    checkpoint = load_checkpoint("acme/tiny-igpt@main")
    assert (checkpoint.name, checkpoint.source) == ("tiny-igpt", f"acme/tiny-igpt@{COMMIT}")
    assert [(call["repo_id"], call["revision"]) for call in calls] == [("acme/tiny-igpt", "main")]
    assert not any("bin" in pattern for pattern in calls[0]["allow_patterns"])


def test_pickled_weights_are_downloaded_if_there_is_nothing_else(
    write_checkpoint: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = write_checkpoint(name=COMMIT)
    torch.save(load_file(snapshot / "model.safetensors"), snapshot / "pytorch_model.bin")
    (snapshot / "model.safetensors").unlink()
    calls = fake_download(monkeypatch, snapshot)
    load_checkpoint("acme/tiny")
    assert [call["revision"] for call in calls] == [None, COMMIT]  # both halves of one commit
    assert "pytorch_model.bin" in calls[1]["allow_patterns"]


def test_a_directory_goes_before_the_hub(write_checkpoint: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_download(monkeypatch, OSError())
    directory = write_checkpoint()
    monkeypatch.chdir(directory.parent.parent)
    load_checkpoint(f"{directory.parent.name}/tiny")
    assert not calls


def http_error(kind: type[errors.HfHubHTTPError]) -> Exception:
    error = kind.__new__(kind)
    Exception.__init__(error, "401 Client Error.\n\nlong explanation")
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            http_error(errors.RepositoryNotFoundError),
            "neither a directory nor a public repository of the Hugging Face Hub",
        ),
        (
            http_error(errors.GatedRepoError),
            "access is restricted by its owner - accept the terms at https://huggingface",
        ),
        (http_error(errors.RevisionNotFoundError), "has no revision 'v1'"),
        (
            http_error(errors.HfHubHTTPError),
            "download failed: HfHubHTTPError: 401 Client Error. long explanation - check",
        ),
        (
            errors.LocalEntryNotFoundError("x\ny"),
            "no directory here, not in the Hugging Face cache, and the Hub cannot be reached - check",
        ),
        (errors.HFValidationError("x\ny"), "neither a directory nor a valid id"),
        (OSError(28, "No space left on device"), "download failed: OSError: [Errno 28] No space left on device"),
        (RuntimeError("proxy\nrefused"), "download failed: RuntimeError: proxy refused"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_failed_downloads(monkeypatch: pytest.MonkeyPatch, error: Exception, expected: str) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    fake_download(monkeypatch, error)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint("acme/tiny@v1")
    message = str(caught.value)
    assert message.startswith("acme/tiny@v1: ") and expected in message and "\n" not in message


def test_without_huggingface_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        CheckpointError, match=r"acme/tiny: downloads need huggingface_hub - pip install huggingface_hub"
    ):
        load_checkpoint("acme/tiny")


def test_what_is_cached_may_do_without_a_card(write_checkpoint: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline, a cache that was filled by others lacks the files that an export only likes to have."""
    snapshot, asked = write_checkpoint(name=COMMIT), []

    def snapshot_download(repo_id: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append(set(allow_patterns))
        if "README.md" in allow_patterns:
            raise errors.LocalEntryNotFoundError("incomplete")
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert load_checkpoint("acme/tiny").source == f"acme/tiny@{COMMIT}"
    assert asked[0] - asked[1] == {"README.md", "generation_config.json"}


def test_download(write_checkpoint: Write, tmp_path: Path) -> None:
    """From a server: also how to sample and the licence, and nothing that is not needed."""
    repository = write_checkpoint()
    (repository / "generation_config.json").write_text('{"do_sample": true, "temperature": 0.7}')
    (repository / "README.md").write_text("---\nlicense: mit\n---\n")
    (repository / "tf_model.h5").write_text("large")
    program = """
from igpt_export.checkpoint.checkpoint import load_checkpoint
checkpoint = load_checkpoint("acme/tiny")
print([checkpoint.source, checkpoint.sampling.temperature, checkpoint.about.license])
"""
    with hub_server({"acme/tiny": repository}) as hub:
        path = os.pathsep.join(path for path in sys.path if path)
        settings = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": hub.address, "PYTHONPATH": path}
        done = subprocess.run([sys.executable, "-c", program], env=settings, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1:] == [str([f"acme/tiny@{COMMIT}", 0.7, {"license": "mit"}])], done.stderr
    assert sorted(hub.taken()) == [
        "README.md", "config.json", "generation_config.json", "model.safetensors", "preprocessor_config.json"
    ]  # fmt: skip


def cache_snapshot(cache: Path, checkpoint: Path) -> None:
    """Lay a checkpoint out as huggingface_hub caches it: links below snapshots/<commit>, contents in blobs."""
    repository = cache / "models--acme--tiny"
    snapshot = repository / "snapshots" / COMMIT
    for folder in (snapshot, repository / "refs", repository / "blobs"):
        folder.mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    for i, file in enumerate(sorted(checkpoint.iterdir())):
        file.rename(repository / "blobs" / str(i))
        (snapshot / file.name).symlink_to(Path("../../blobs") / str(i))


def test_offline_cache(write_checkpoint: Write, tmp_path: Path) -> None:
    cache_snapshot(tmp_path / "cache", write_checkpoint())
    program = """
import json
from igpt_export.checkpoint.checkpoint import load_checkpoint
from igpt_runtime.errors import CheckpointError
answers = []
for source in ("acme/tiny", "acme/tiny@main", "acme/none", "acme/tiny@v2"):
    try:
        answers.append(load_checkpoint(source).source)
    except CheckpointError as error:
        answers.append(str(error))
print(json.dumps(answers))
"""
    environment = {
        **os.environ,
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    found, found_by_name, missing, missing_revision = json.loads(result.stdout.splitlines()[-1])
    assert found == found_by_name == f"acme/tiny@{COMMIT}"
    reason = "not a directory, and not (wholly) in the Hugging Face cache while HF_HUB_OFFLINE is set - unset"
    assert missing.startswith(f"acme/none: {reason}")
    assert missing_revision.startswith(f"acme/tiny@v2: {reason}")
