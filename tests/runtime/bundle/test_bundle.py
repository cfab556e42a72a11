"""Bundles on disk: whatever is missing, damaged or unknown is one line that names the path."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from igpt_runtime.bundle.bundle import demo_bundle_path, open_bundle
from igpt_runtime.bundle.config import SamplingDefaults
from igpt_runtime.bundle.manifest import manifest_to_json
from igpt_runtime.engine.generate import GenerationOptions
from igpt_runtime.engine.session import open_session
from igpt_runtime.errors import BundleError, IgptError
from igpt_runtime.tasks.features import features
from igpt_runtime.tasks.sample import sample

Record = dict[str, Any]
Edit = Callable[[Path, Callable[[Record], Any]], None]

FIELDS = ["name", "precision", "kv_cache", "opset", "config", "image_format", "classifier", "graphs", "files", "source",
          "tools", "verification", "certificate"]  # fmt: skip
NESTED = {
    "config": ["vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "n_inner", "activation_function"],
    "image_format": ["height", "width", "clusters", "resample"],
    "classifier": ["labels", "layers", "protocol"],
}


def refusal(path: Path, error: type[IgptError] = BundleError) -> str:
    """The message with which drawing from the bundle at `path` is refused."""
    with pytest.raises(error) as caught:
        sample(open_session(path, device="cpu"), GenerationOptions(1))
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_manifest_survives_a_round_trip(bundle_of: Callable[[str, str], Path], precision: str) -> None:
    bundle = bundle_of(precision, precision)
    assert manifest_to_json(open_bundle(bundle).manifest) == (bundle / "manifest.json").read_text()


def test_damaged_certificate(bundle_of: Callable[[str, str], Path], tmp_path: Path, edit_manifest: Edit) -> None:
    copy = copytree(bundle_of("int8", "int8"), tmp_path / "copy")
    edit_manifest(copy, lambda record: record["certificate"]["decode"].pop("held_out"))
    assert "manifest.json lacks the field 'held_out'" in refusal(copy)
    edit_manifest(copy, lambda record: record.update(certificate=None, kv_cache="int3"))
    assert "kv_cache is 'int3', not one of fp32, int8" in refusal(copy)


@pytest.mark.parametrize("kind", ["missing", "file", "empty directory", "directory of something else"])
def test_no_bundle(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "bundle"
    if kind == "file":
        path.write_text("{}")
    elif kind != "missing":
        path.mkdir()
    if kind.startswith("directory"):
        (path / "model.onnx").touch()
    expected = f"{path} is not a bundle: it has no manifest.json" if path.is_dir() else f"no bundle at {path}"
    assert refusal(path) == f"{expected}; make one with igpt-export"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b"", "is empty; get the file again", id="empty"),
        pytest.param(b'{"format_version": 7, "sampl', "is not valid JSON (Unterminated string", id="cut short"),
        pytest.param(b"[" * 100_000, "is not valid JSON", id="nested without end"),
        pytest.param(b"[]", "is not a JSON object", id="list"),
        pytest.param(b"null", "is not a JSON object", id="null"),
        pytest.param(b"\xff\xfe{}", "cannot be read ('utf-8' codec", id="not UTF-8"),
        pytest.param(b"{}", "has format_version None, this igpt-run reads 7", id="no version"),
        pytest.param(b" " * (16 << 20) + b"{}", "cannot be read (it has more than 16,777,216 bytes", id="huge"),
    ],
)
def test_damaged_manifest(bundle_copy: Path, data: bytes, expected: str) -> None:
    (bundle_copy / "manifest.json").write_bytes(data)
    assert refusal(bundle_copy).startswith(f"{bundle_copy / 'manifest.json'} {expected}")


def test_manifest_that_is_a_directory(bundle_copy: Path) -> None:
    (bundle_copy / "manifest.json").unlink()
    (bundle_copy / "manifest.json").mkdir()
    assert "manifest.json cannot be read" in refusal(bundle_copy)


@pytest.mark.parametrize(("key", "known"), [("format_version", 7), ("sampling_version", 1)])
@pytest.mark.parametrize("version", [99, 2, 0, "1", "2", None])
def test_unknown_version(bundle_copy: Path, edit_manifest: Edit, key: str, known: int, version: object) -> None:
    edit_manifest(bundle_copy, lambda record: record.update({key: version}))
    expected = f"manifest.json has {key} {version!r}, this igpt-run reads {known}; install the matching igpt-onnx"
    assert expected in refusal(bundle_copy)


@pytest.mark.parametrize(
    "path",
    [(field,) for field in FIELDS]
    + [(outer, inner) for outer, inners in NESTED.items() for inner in inners]
    + [("graphs", "decode", "file"), ("graphs", "decode", "inputs"), ("files", "decode.onnx", "sha256")],
    ids=".".join,
)
def test_missing_field(bundle_copy: Path, edit_manifest: Edit, path: tuple[str, ...]) -> None:
    def delete(record: Record) -> None:
        for key in path[:-1]:
            record = record[key]
        del record[path[-1]]

    edit_manifest(bundle_copy, delete)
    assert f"manifest.json lacks the field '{path[-1]}'; export the bundle again" in refusal(bundle_copy)


@pytest.mark.parametrize(
    ("outer", "field", "value"),
    [
        ("config", "n_layer", "3"),
        ("config", "n_head", 0),
        ("config", "n_embd", 32.5),
        ("config", "n_positions", -64),
        ("config", "vocab_size", True),
        ("config", "layer_norm_epsilon", None),
        ("config", "activation_function", 7),
        ("config", "scale_attn_weights", "yes"),
        ("config", "unknown", 1),
        ("image_format", "height", 9),
        ("image_format", "width", "8"),
        ("image_format", "resample", float("inf")),
        ("image_format", "clusters", []),
        ("image_format", "clusters", [[0, 0, 0]] * 15),
        ("image_format", "clusters", [[0, 0]] * 16),
        ("image_format", "clusters", [[0, 0, float("nan")]] * 16),
        ("image_format", "clusters", "red"),
        ("classifier", "labels", 3),
        ("classifier", "labels", ["a", "b"]),
        ("classifier", "layers", "first"),
        ("classifier", "layers", [4]),
        ("classifier", "layers", []),
        ("classifier", "protocol", "ours"),
        ("config", "n_layer", 4),
        ("config", "n_embd", 64),
        ("source", "checkpoint", []),
        ("verification", "decode_max_abs_diff", "small"),
        ("graphs", "decode", "decode.onnx"),
        ("files", "decode.onnx", 3),
        ("files", "decode.onnx", {"size": "big", "sha256": ""}),
    ],
)
def test_malformed_field(bundle_copy: Path, edit_manifest: Edit, outer: str, field: str, value: object) -> None:
    edit_manifest(bundle_copy, lambda record: record[outer].update({field: value}))
    message = refusal(bundle_copy)
    # NaN and infinity are no JSON.
    assert "manifest.json has a malformed field (" in message or "is not a number); export" in message


@pytest.mark.parametrize("field", ["config", "image_format", "graphs", "files", "source", "tools", "opset"])
def test_field_of_another_type(bundle_copy: Path, edit_manifest: Edit, field: str) -> None:
    edit_manifest(bundle_copy, lambda record: record.update({field: "?"}))
    assert "manifest.json has a malformed field (" in refusal(bundle_copy)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (Path.unlink, "is missing or not a regular file"),
    "cut short": (lambda path: os.truncate(path, path.stat().st_size - 1), "bytes instead of"),
    "longer": (lambda path: path.write_bytes(path.read_bytes() + b"\0"), "bytes instead of"),
    "one bit flipped": (flip, "does not match its sha256 in the manifest"),
    "a symbolic link": (link, "is missing or not a regular file"),
}


@pytest.mark.parametrize("file", ["weights.safetensors", "decode.onnx"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_file(bundle_copy: Path, file: str, damage: str) -> None:
    do, expected = DAMAGE[damage]
    do(bundle_copy / file)
    message = refusal(bundle_copy)
    assert message.startswith(f"{bundle_copy / file} ") and expected in message
    assert message.endswith("; copy or export the bundle again")


@pytest.mark.parametrize("name", ["../decode.onnx", "sub/decode.onnx", "/etc/passwd", "..", ".", "", "unlisted.onnx"])
def test_graph_file_elsewhere(bundle_copy: Path, edit_manifest: Edit, name: str) -> None:
    (bundle_copy.parent / "decode.onnx").write_bytes((bundle_copy / "decode.onnx").read_bytes())

    def point(record: Record) -> None:
        record["graphs"]["decode"]["file"] = name
        if name != "unlisted.onnx":
            record["files"][name] = record["files"]["decode.onnx"]

    edit_manifest(bundle_copy, point)
    assert f"names {name!r}, which is not a file of the bundle" in refusal(bundle_copy)


def test_weights_not_in_the_manifest(bundle_copy: Path, edit_manifest: Edit) -> None:
    edit_manifest(bundle_copy, lambda record: record["files"].pop("weights.safetensors"))
    assert "names 'weights.safetensors', which is not a file of the bundle" in refusal(bundle_copy)


def test_graph_that_onnx_runtime_cannot_open(
    bundle_copy: Path, replace_file: Callable[[Path, str, bytes], None]
) -> None:
    replace_file(bundle_copy, "decode.onnx", b"no graph")
    assert f"ONNX Runtime cannot open {bundle_copy / 'decode.onnx'} (" in refusal(bundle_copy)


def test_bundle_without_decode_graph(bundle_copy: Path, edit_manifest: Edit, picture: Path) -> None:
    edit_manifest(bundle_copy, lambda record: record["graphs"].pop("decode"))
    assert refusal(bundle_copy) == (
        f"{bundle_copy} has no decode graph: its checkpoint has no language-model head; "
        "export an ImageGPTForCausalImageModeling checkpoint"
    )
    assert features(open_session(bundle_copy, device="cpu"), [picture]).shape == (1, 4, 32)


@pytest.mark.parametrize("absent", [True, False], ids=["absent", "null"])
def test_bundles_without_recommended_sampling(bundle_copy: Path, edit_manifest: Edit, absent: bool) -> None:
    edit_manifest(bundle_copy, lambda record: record.pop("sampling") if absent else record.update(sampling=None))
    assert open_bundle(bundle_copy).manifest.sampling == SamplingDefaults(1.0, 0, 1.0)


def test_recommended_sampling(bundle_copy: Path, edit_manifest: Edit) -> None:
    advised = {"temperature": 0, "top_k": 40, "top_p": 0.5}
    edit_manifest(bundle_copy, lambda record: record.update(sampling={**advised, "later": "more"}, later=[1]))
    manifest = open_bundle(bundle_copy).manifest
    assert manifest.sampling == SamplingDefaults(0.0, 40, 0.5)
    assert json.loads(manifest_to_json(manifest))["sampling"] == advised


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (1, "has a malformed field ('int' object is not subscriptable)"),
        ([], "has a malformed field (list indices must be integers"),
        ({}, "lacks the field 'temperature'"),
        ({"temperature": 0.8, "top_p": 1.0}, "lacks the field 'top_k'"),
        ({"temperature": "0.8"}, "sampling has temperature '0.8' and top_p 1.0, which are not two numbers"),
        ({"temperature": True}, "sampling has temperature True"),
        ({"temperature": None}, "sampling has temperature None"),
        ({"temperature": float("nan")}, "is not valid JSON (NaN is not a number)"),
        ({"temperature": 10**400}, "int too large to convert to float"),
        ({"temperature": -1}, "sampling: temperature must be a finite number of at least 0, got -1.0"),
        ({"top_k": 1.0}, "sampling.top_k is 1.0, not a whole number"),
        ({"top_k": 2**53}, "sampling.top_k is 9007199254740992, not a whole number up to 9007199254740991"),
        ({"top_k": -1}, "sampling: top-k must be at least 0 (0 is off), got -1"),
        ({"top_p": 0}, "sampling: top-p must be above 0 and at most 1 (1 is off), got 0.0"),
        ({"top_p": 1.01}, "sampling: top-p must be above 0"),
    ],
)
def test_malformed_sampling(bundle_copy: Path, edit_manifest: Edit, sampling: Any, expected: str) -> None:
    whole = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
    part = isinstance(sampling, dict) and len(sampling) == 1
    edit_manifest(bundle_copy, lambda record: record.update(sampling=whole | sampling if part else sampling))
    assert f"manifest.json {expected}" in refusal(bundle_copy) or f"malformed field ({expected}" in refusal(bundle_copy)


def test_other_files_do_not_matter(bundle_copy: Path) -> None:
    (bundle_copy / "notes.txt").write_text("mine")
    (bundle_copy / "manifest.json").write_text(json.dumps(json.loads((bundle_copy / "manifest.json").read_text())))
    assert len(sample(open_session(bundle_copy, device="cpu"), GenerationOptions(1)).images) == 1


def test_embedded_bundles_have_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory of that name comes first."""
    monkeypatch.chdir(tmp_path)
    assert open_bundle("demo").path == demo_bundle_path() == open_bundle().path
    assert open_bundle("digits").manifest.name == "digits"
    (tmp_path / "digits").mkdir()
    with pytest.raises(BundleError, match="digits"):
        open_bundle("digits")
