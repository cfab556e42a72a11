"""What stands where a file should be: pipes, devices, links, pointers, numbers that would take all memory."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from igpt_export.checkpoint.checkpoint import load_checkpoint
from igpt_runtime import classify, complete, features, open_bundle, open_session, score
from igpt_runtime.bundle.bundle import demo_bundle_path
from igpt_runtime.cli import main
from igpt_runtime.engine.generate import GenerationOptions
from igpt_runtime.errors import BundleError, CheckpointError
from igpt_runtime.regular import IrregularFileError, open_regular, read_at_most, read_regular

Edit = Callable[[Path, Callable[[dict[str, Any]], Any]], None]
ROOT = Path(__file__).parents[2]
SEVEN = ROOT / "models/digits/examples/seven.png"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"

needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")


@needs_pipes
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for read in (open_regular, lambda path: read_regular(path, 10)):
        with pytest.raises(IrregularFileError, match="it is a pipe, not a file"):
            read(tmp_path / "pipe")
    with pytest.raises(IrregularFileError, match="it is a device, not a file"):
        read_regular("/dev/zero", 10)
    with pytest.raises(IrregularFileError, match="it is a directory, not a file"):
        read_regular(tmp_path, 10)


def test_no_more_is_read_than_is_sensible(tmp_path: Path) -> None:
    (tmp_path / "ten").write_bytes(b"0123456789")
    assert read_regular(tmp_path / "ten", 10) == b"0123456789"
    with pytest.raises(IrregularFileError, match="it has more than 9 bytes"):
        read_regular(tmp_path / "ten", 9)
    with open("/dev/zero", "rb") as endless:
        assert read_at_most(endless, 3 << 20) is None


@needs_pipes
@pytest.mark.parametrize(
    "kind", ["pipe", "device", "link to a device", "link to another file", "loop", "empty", "pointer"]
)
def test_a_manifest_that_is_none(kind: str, tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    manifest, outside = bundle / "manifest.json", tmp_path / "outside.json"
    manifest.rename(outside)
    expected = "is a link out of the bundle"
    if kind == "pipe":
        os.mkfifo(manifest)
        expected = r"cannot be read \(it is a pipe, not a file\)"
    elif kind == "device":
        manifest.symlink_to("/dev/null")
    elif kind == "link to a device":
        manifest.symlink_to("/dev/zero")
    elif kind == "loop":
        manifest.symlink_to("manifest.json")
    elif kind == "link to another file":
        manifest.symlink_to(outside)
    else:
        manifest.write_bytes(b"" if kind == "empty" else POINTER)
        expected = "is empty; get the file again" if kind == "empty" else "is a pointer of Git LFS, not the file itself"
    with pytest.raises(BundleError, match=expected):
        open_bundle(bundle)


@pytest.mark.parametrize("name", ["weights.safetensors", "prefill.onnx"])
def test_a_pointer_in_a_bundle(name: str, bundle_copy: Path) -> None:
    (bundle_copy / name).write_bytes(POINTER)
    with pytest.raises(BundleError, match=rf"{name} is a pointer of Git LFS, not the file itself; run: git lfs pull"):
        classify(open_session(bundle_copy, device="cpu"), SEVEN)


NESTED: Any = "x"
for _ in range(900):
    NESTED = [NESTED]

VALUES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "layers without end": (
        lambda m: m["config"].update(n_layer=10**8),
        "n_layer is 100000000, more than graphs.prefill",
    ),
    "nested": (lambda m: m["tools"].update(x=NESTED), r"malformed field \(\[\[.*\.\.\.\)"),
    "a size of 400 digits": (lambda m: m["files"]["prefill.onnx"].update(size=10**400), "is not a number of bytes"),
    "a size that is text": (lambda m: m["files"]["prefill.onnx"].update(size="12"), "is not a number of bytes"),
    "a hash that is none": (lambda m: m["files"]["prefill.onnx"].update(sha256="x"), "is not a SHA-256"),
    "a difference of NaN": (lambda m: m["verification"].update(x=float("nan")), "NaN is not a number"),
    "a difference of infinity": (lambda m: m["verification"].update(x=float("inf")), "Infinity is not a number"),
    "a difference that is text": (lambda m: m["verification"].update(x="nan"), "'nan' is not a number"),
    "half a character as a layer": (lambda m: m["classifier"].update(layers=["\ud800"]), "are not 0 .. "),
    "a version that is a book": (
        lambda m: m.update(format_version=["x"] * 9999),
        r"has format_version \['x', .*\.\.\.",
    ),
    "a graph's file that is a book": (
        lambda m: m["graphs"]["prefill"].update(file="../" * 9999),
        r"names '[./]+, which is not",
    ),
    "a colour of 1e308": (lambda m: m["image_format"]["clusters"][0].__setitem__(0, 1e308), r"not in \[-1, 1\]"),
    "a colour of 1.5": (lambda m: m["image_format"]["clusters"][3].__setitem__(2, 1.5), r"not in \[-1, 1\]"),
    "a colour of 1.02": (lambda m: m["image_format"]["clusters"][3].__setitem__(2, 1.02), r"not in \[-1, 1\]"),
    "a colour that is no number": (
        lambda m: m["image_format"]["clusters"][3].__setitem__(2, float("nan")),
        "NaN is not a number",
    ),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("what", VALUES)
def test_values_of_a_manifest(what: str, bundle_copy: Path, edit_manifest: Edit) -> None:
    change, expected = VALUES[what]
    edit_manifest(bundle_copy, change)
    with pytest.raises(BundleError, match=expected) as caught:
        open_bundle(bundle_copy).graph_path("prefill")
    assert len(str(caught.value)) < 1000 and "\n" not in str(caught.value)


def test_a_colour_that_an_export_takes_is_read(bundle_copy: Path, edit_manifest: Edit) -> None:
    edit_manifest(bundle_copy, lambda manifest: manifest["image_format"]["clusters"][3].__setitem__(2, -1.005))
    assert open_bundle(bundle_copy).manifest.image_format.clusters[3, 2] < -1


def test_half_a_character_as_a_file(bundle_copy: Path, edit_manifest: Edit, refused: Callable[..., str]) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["files"]["\ud800"] = manifest["files"]["prefill.onnx"]
        manifest["graphs"]["prefill"]["file"] = "\ud800"

    edit_manifest(bundle_copy, change)
    assert "is not a file of the bundle" in refused(main, "classify", SEVEN, "--model", bundle_copy)


def test_a_terminal_obeys_nobody(bundle_copy: Path, edit_manifest: Edit) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\u009b"

    def change(manifest: dict[str, Any]) -> None:
        manifest["name"] = evil
        manifest["classifier"]["labels"][0] = evil

    edit_manifest(bundle_copy, change)
    for arguments in (["info"], ["classify", str(SEVEN)], ["probe", "eval", "nowhere"], ["info", "--json"]):
        command = [sys.executable, "-m", "igpt_runtime", *arguments, "--model", str(bundle_copy)]
        done = subprocess.run(command, capture_output=True, check=False)
        for text in (done.stdout, done.stderr):
            assert not {0x1B, 0x07} & set(text) and "\u009b" not in text.decode()


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
@needs_pipes
def test_a_checkpoint_with_a_pipe(name: str, write_checkpoint: Callable[..., Path]) -> None:
    checkpoint = write_checkpoint()
    (checkpoint / name).unlink()
    os.mkfifo(checkpoint / name)
    with pytest.raises(CheckpointError, match=f"{name}: cannot be read: it is a pipe, not a file"):
        load_checkpoint(checkpoint)


def test_a_bundle_that_is_replaced_while_it_is_open(tmp_path: Path) -> None:
    """A session answers as it did, or not at all."""
    for name in ("bundle", "new"):
        shutil.copytree(demo_bundle_path(), tmp_path / name)
    weights = tmp_path / "new/weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-400:] = bytes(400)
    weights.write_bytes(data)
    session = open_session(tmp_path / "bundle", device="cpu")
    options = GenerationOptions(2, seed=1)
    before = complete(session, SEVEN, options).tokens
    (tmp_path / "bundle").rename(tmp_path / "old")
    (tmp_path / "new").rename(tmp_path / "bundle")
    for ask in (
        lambda: complete(session, SEVEN, options),
        lambda: complete(session, SEVEN, GenerationOptions(9)),
        lambda: classify(session, SEVEN),
        lambda: features(session, SEVEN),
        lambda: next(score(session, SEVEN)),
    ):
        with pytest.raises(BundleError, match="was replaced while the bundle was open; open the bundle again"):
            ask()
    shutil.rmtree(tmp_path / "bundle")
    (tmp_path / "old").rename(tmp_path / "bundle")
    assert (complete(session, SEVEN, options).tokens == before).all()


@pytest.mark.parametrize("command", [["info"], ["classify", str(SEVEN)], ["sample"], ["bench"], ["doctor"]], ids=str)
def test_a_pin_is_never_ignored(command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, [*command, "--sha256", "0" * 64])
    assert result.exit_code == 1 and "it is not the bundle that was asked for" in result.output
    assert list(tmp_path.iterdir()) == []


def test_json_of_a_manifest_is_whole(tiny_bundle: Path) -> None:
    """What the guards are for is not in a bundle of ours."""
    manifest = json.loads((tiny_bundle / "manifest.json").read_text())
    assert open_bundle(tiny_bundle).manifest.name == manifest["name"]
