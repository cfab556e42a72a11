"""Bundles by their name on the Hugging Face Hub: downloaded once, opened from the cache, every failure one line."""

import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import huggingface_hub
import numpy as np
import pytest
from hub_server import COMMIT, TOKEN, hub_server
from huggingface_hub import constants, errors

from igpt_runtime.bundle.bundle import open_bundle
from igpt_runtime.bundle.hub import find_bundle, parse_hub_id
from igpt_runtime.engine.generate import GenerationOptions
from igpt_runtime.engine.session import open_session
from igpt_runtime.errors import BundleError, DeviceError
from igpt_runtime.tasks.classify import classify
from igpt_runtime.tasks.complete import complete
from igpt_runtime.tasks.features import features
from igpt_runtime.tasks.score import score

PROGRAM = """
import json, sys
from igpt_runtime.bundle.bundle import open_bundle
from igpt_runtime.errors import IgptError
for name in sys.argv[1:]:
    try:
        answer = str(open_bundle(name).path)
    except IgptError as error:
        answer = f"{type(error).__name__}: {error}"
    print(json.dumps(answer))
"""
EXTRA = {"README.md": "# A card", "pytorch_model.bin": "not of the bundle", ".gitattributes": "* text=auto"}


@pytest.fixture
def published(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A repository with a bundle, its card and what is not of it."""
    directory = copytree(tiny_bundle, tmp_path / "published")
    for name, text in EXTRA.items():
        (directory / name).write_text(text)
    return directory


def environment(tmp_path: Path, address: str, **settings: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TQDM"))}
    path = os.pathsep.join(path for path in sys.path if path)
    return {**kept, "HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": address, "PYTHONPATH": path, **settings}


def opened(settings: dict[str, str], *names: str, stderr: int = subprocess.PIPE) -> tuple[list[str], str]:
    """What `open_bundle` answers for each name in a process of its own, and what it says on stderr."""
    command = [sys.executable, "-c", PROGRAM, *names]
    done = subprocess.run(command, env=settings, stdout=subprocess.PIPE, stderr=stderr, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def snapshot_of(tmp_path: Path, repository: str = "models--acme--tiny") -> Path:
    return tmp_path / "home" / "hub" / repository / "snapshots" / COMMIT


def test_downloaded_once_and_then_cached(published: Path, tmp_path: Path) -> None:
    """Only the bundle's own files and its card; later the manifest is asked for, and offline nothing is."""
    manifest = json.loads((published / "manifest.json").read_text())
    snapshot = str(snapshot_of(tmp_path))
    with hub_server({"acme/tiny": published}) as hub:
        settings = environment(tmp_path, hub.address)
        assert opened(settings, "acme/tiny") == ([snapshot], "")
        assert hub.taken()[0] == "manifest.json"
        assert sorted(hub.taken()[1:]) == sorted([*manifest["files"], "README.md"])
        hub.asked.clear()
        assert opened(settings, "acme/tiny", "acme/tiny@v1", f"acme/tiny@{COMMIT}")[0] == [snapshot] * 3
        assert hub.taken() == []
        hub.asked.clear()
        assert opened({**settings, "HF_HUB_OFFLINE": "1"}, "acme/tiny", "acme/tiny@v1")[0] == [snapshot] * 2
        assert hub.asked == []
    assert opened(settings, "acme/tiny")[0] == [snapshot]  # the server is gone


def test_failures_are_one_line(published: Path, tmp_path: Path) -> None:
    lacking = copytree(published, tmp_path / "lacking")
    (lacking / "weights.safetensors").unlink()
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text("{}")
    website = tmp_path / "website"
    website.mkdir()
    (website / "manifest.json").write_text('{"name": "a page"}')
    escaping = copytree(published, tmp_path / "escaping")
    record = json.loads((escaping / "manifest.json").read_text())
    record["files"]["../secret"] = {"size": 1, "sha256": "0" * 64}
    (escaping / "manifest.json").write_text(json.dumps(record))
    repositories = {"acme/gated": published, "acme/private": published, "acme/lacking": lacking, "acme/other": other}
    expected = {
        "acme/none": "neither a directory nor a public repository of the Hugging Face Hub; check the name; if it is "
        "private, run `hf auth login` or set HF_TOKEN",
        "acme/private": "neither a directory nor a public repository of the Hugging Face Hub; check the name",
        "acme/gated": "access is restricted by its owner; accept the terms at http://127.0.0.1:",
        "acme/tiny@v9": "has no revision 'v9'; see http://127.0.0.1:",
        "acme/a--b": "neither a directory nor a valid id of the Hugging Face Hub; check the name",
        "acme/other": "no bundle: the repository has no manifest.json; make a bundle of a checkpoint with: "
        "igpt-export --checkpoint acme/other",
        "acme/lacking": "its manifest.json names weights.safetensors, which the repository has not; upload the bundle",
        "acme/escaping": "its manifest.json names '../secret', which is not a file of the bundle",
    }
    pages = {"acme/tiny": published, "acme/website": website, "acme/escaping": escaping}
    with hub_server(repositories | pages) as hub:
        answers, said = opened(environment(tmp_path, hub.address), *expected, "acme/website")
    for (name, fact), answer in zip(expected.items(), answers, strict=False):
        assert answer.startswith(f"BundleError: {name}: {fact}") and "\n" not in answer
    assert answers[-1].startswith("BundleError: ") and "manifest.json has format_version None" in answers[-1]
    assert said == ""


@pytest.mark.parametrize(
    ("error", "fact"),
    [
        (
            errors.LocalEntryNotFoundError("x\ny"),
            "no directory here, not in the Hugging Face cache, and the Hub cannot be reached",
        ),
        (OSError(28, "No space left on device"), "download failed: OSError: [Errno 28] No space left on device"),
        (RuntimeError("proxy\nrefused"), "download failed: RuntimeError: proxy refused"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_failed_downloads(monkeypatch: pytest.MonkeyPatch, error: Exception, fact: str) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(BundleError) as caught:
        open_bundle("acme/tiny@v1")
    assert str(caught.value) == f"acme/tiny@v1: {fact}; check the connection, or name a local directory"


def test_a_token_opens_what_is_not_public(published: Path, tmp_path: Path) -> None:
    with hub_server({"acme/gated": published, "acme/private": published}) as hub:
        answers, _ = opened(environment(tmp_path, hub.address, HF_TOKEN=TOKEN), "acme/gated", "acme/private")
    assert answers == [str(snapshot_of(tmp_path, f"models--acme--{name}")) for name in ("gated", "private")]


def test_an_interrupted_download_is_gone_on_with(published: Path, tmp_path: Path) -> None:
    with hub_server({"acme/tiny": published}, cut_short="weights.safetensors") as hub:
        settings = environment(tmp_path, hub.address)
        (answer,), _ = opened(settings, "acme/tiny")
        assert answer.startswith("BundleError: acme/tiny: ") and "\n" not in answer
        assert answer.endswith("; check the connection, or name a local directory")
        (answer,), _ = opened({**settings, "HF_HUB_OFFLINE": "1"}, "acme/tiny")
        assert "not (wholly) in the Hugging Face cache while HF_HUB_OFFLINE is set; unset HF_HUB_OFFLINE" in answer
    with hub_server({"acme/tiny": published}) as hub:
        settings["HF_ENDPOINT"] = hub.address
        assert opened(settings, "acme/tiny")[0] == [str(snapshot_of(tmp_path))]
        assert set(hub.taken()) <= {"weights.safetensors", "README.md"}  # the others were there


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a terminal")
def test_the_hubs_own_bars_on_a_terminal(published: Path, tmp_path: Path) -> None:
    fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    with hub_server({"acme/tiny": published}) as hub:
        opened(environment(tmp_path, hub.address, TERM="xterm"), "acme/tiny", stderr=theirs)
    os.close(theirs)
    said = b""
    try:
        while part := os.read(ours, 1 << 16):
            said += part
    except OSError:  # the terminal's other side is closed
        pass
    os.close(ours)
    assert b"weights.safetensors: 100%" in said


def in_own_blobs(published: Path, cache: Path) -> Path:
    """A bundle in the Hub's cache: links to the blobs of its repository."""
    repository = cache / "models--acme--tiny"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    for i, file in enumerate(sorted(published.iterdir())):
        shutil.copyfile(file, repository / "blobs" / f"{i:064x}")
        (snapshot / file.name).symlink_to(f"../../blobs/{i:064x}")
    return snapshot


def in_shared_blobs(published: Path, cache: Path) -> Path:
    """The same as newer clients do it: the blobs are links themselves, to what all repositories share."""
    snapshot = in_own_blobs(published, cache)
    for blob in list((snapshot.parents[1] / "blobs").iterdir()):
        folder = cache / "blobs" / blob.name[-2:]
        folder.mkdir(parents=True, exist_ok=True)
        blob.rename(folder / f"{blob.name[::-1]}")
        blob.symlink_to(f"../../blobs/{folder.name}/{blob.name[::-1]}")
    return snapshot


@pytest.mark.parametrize("layout", [in_own_blobs, in_shared_blobs])
@pytest.mark.parametrize(("weights", "kv_cache"), [("fp32", "fp32"), ("int4", "int8")])
def test_every_task_on_a_cached_bundle(
    layout: Callable[[Path, Path], Path], weights: str, kv_cache: str, bundle_of: Callable[[str, str], Path],
    picture: Path, tmp_path: Path,
) -> None:  # fmt: skip
    """Whose weights lie in another directory than its graphs: as good as a copy."""
    bundle = bundle_of(weights, kv_cache)
    snapshot = layout(bundle, tmp_path / "hub")
    link = tmp_path / "link"
    link.symlink_to(snapshot)
    for path in (snapshot, link):
        cached, plain = open_session(path, device="cpu"), open_session(bundle, device="cpu")
        for n in (1, 3):
            options = GenerationOptions(n, 5)
            assert np.array_equal(complete(cached, picture, options).tokens, complete(plain, picture, options).tokens)
        assert np.array_equal(features(cached, [picture]), features(plain, [picture]))
        assert np.array_equal(classify(cached, [picture]), classify(plain, [picture]))
        ours, theirs = (next(iter(score(session, [picture]))) for session in (cached, plain))
        assert ours.nats_per_token == theirs.nats_per_token


def test_damage_is_found_in_the_cache(published: Path, tmp_path: Path) -> None:
    snapshot = in_shared_blobs(published, tmp_path / "hub")
    weights = (snapshot / "weights.safetensors").resolve()
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(BundleError, match="does not match its sha256 in the manifest"):
        open_session(snapshot, device="cpu").graph("decode")


def to_secret(path: Path, secret: Path) -> None:
    path.symlink_to(secret)


def through_blobs(path: Path, secret: Path) -> None:
    (path.parents[2] / "blobs" / "chain").symlink_to(secret)
    path.symlink_to("../../blobs/chain")


def up_from_blobs(path: Path, secret: Path) -> None:
    path.symlink_to(f"../../blobs/../{os.path.relpath(secret, path.parents[2])}")


def blobs_elsewhere(path: Path, secret: Path) -> None:
    blobs = path.parents[2] / "blobs"
    blobs.rename(blobs.with_name("moved"))
    blobs.symlink_to(secret.parent)
    path.symlink_to(f"../../blobs/{secret.name}")


def within_snapshots(path: Path, secret: Path) -> None:
    (path.parents[1] / "other").mkdir()
    shutil.copyfile(secret, path.parents[1] / "other" / "file")
    path.symlink_to("../other/file")


def to_itself(path: Path, secret: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize(
    "lead", [to_secret, through_blobs, up_from_blobs, blobs_elsewhere, within_snapshots, to_itself]
)
def test_links_that_lead_elsewhere_are_refused(
    lead: Callable[[Path, Path], None], published: Path, tmp_path: Path
) -> None:
    """Even to a file that is what the manifest says."""
    snapshot = in_own_blobs(published, tmp_path / "hub")
    secret = tmp_path / "elsewhere" / "secret"
    secret.parent.mkdir()
    shutil.copyfile(snapshot / "weights.safetensors", secret)
    bundle = open_bundle(snapshot)
    bundle.find("weights.safetensors")
    (snapshot / "weights.safetensors").unlink()
    lead(snapshot / "weights.safetensors", secret)
    with pytest.raises(BundleError) as caught:
        bundle.find("weights.safetensors")
    assert str(caught.value) == (
        f"{snapshot / 'weights.safetensors'} is missing or not a regular file; copy or export the bundle again"
    )


def test_a_directory_goes_before_the_hub(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # whoever imports it fails
    copytree(tiny_bundle, tmp_path / "acme" / "tiny")
    monkeypatch.chdir(tmp_path)
    assert find_bundle("acme/tiny") == Path("acme/tiny")
    assert open_session("acme/tiny", device="cpu").manifest.name == "tiny"
    (tmp_path / "acme" / "file").touch()
    with pytest.raises(BundleError, match=r"^no bundle at acme/file; make one with igpt-export$"):
        open_bundle("acme/file")


def test_without_huggingface_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DeviceError) as caught:
        open_bundle("acme/tiny@v1")
    assert str(caught.value) == (
        "acme/tiny@v1 is no directory here, and to open it from the Hugging Face Hub huggingface_hub is needed; "
        "run: pip install huggingface_hub, or name the directory of a bundle"
    )


@pytest.mark.parametrize("name", ["nowhere", "a/b/c", "./a/b", "/a/b", "a b/c", "a/b@", "x" * 5000, "a\0b", "C:\\a"])
def test_what_is_no_name_of_the_hub_is_a_path(name: str) -> None:
    assert parse_hub_id(name) is None and find_bundle(name) == Path(name)


def test_a_path_is_never_looked_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.chdir(tmp_path)
    arguments: Any = Path("acme/tiny")
    with pytest.raises(BundleError, match="^no bundle at acme/tiny"):
        open_bundle(arguments)
