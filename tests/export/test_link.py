"""A bundle whose weights are the checkpoint's own file."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from shutil import copy, copytree

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from igpt_export.checkpoint.checkpoint import load_checkpoint, random_checkpoint
from igpt_export.cli import main
from igpt_export.export import ExportOptions, export_bundle
from igpt_export.precision.precision import Precision
from igpt_runtime.engine.generate import GenerationOptions, generate_all
from igpt_runtime.engine.session import open_session
from igpt_runtime.errors import BundleError, OptionError
from igpt_runtime.tasks.classify import classify
from igpt_runtime.tasks.features import features


def test_linked_weights(tiny_checkpoint: Path, tiny_bundle: Path, tmp_path: Path, picture: Path) -> None:
    source = copytree(tiny_checkpoint, tmp_path / "tiny")
    (source / "model.safetensors").chmod(0o640)
    command = ["--checkpoint", str(source), "--output", str(tmp_path / "bundle"), "--link", "--embed"]
    assert CliRunner().invoke(main, command).exit_code == 0
    weights = tmp_path / "bundle" / "weights.safetensors"
    assert os.path.samefile(weights, source / "model.safetensors")
    assert (source / "model.safetensors").stat().st_mode & 0o777 == 0o640
    linked, written = (open_session(path, device="cpu") for path in (tmp_path / "bundle", tiny_bundle))
    assert linked.manifest.files["weights.safetensors"].sha256 == linked.manifest.source["sha256"]
    assert np.array_equal(classify(linked, [picture]), classify(written, [picture]))
    assert np.array_equal(features(linked, [picture]), features(written, [picture]))
    primer = np.arange(8)
    drawn = [generate_all(session, primer, GenerationOptions(n=3, seed=2)) for session in (linked, written)]
    assert np.array_equal(*drawn)
    # Whoever changes the checkpoint breaks the bundle, and is told.
    data = bytearray((source / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (source / "model.safetensors").write_bytes(data)
    with pytest.raises(BundleError, match="does not match its sha256"):
        features(open_session(tmp_path / "bundle", device="cpu"), [picture])


def test_the_cure_for_tools_that_refuse_hard_links(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """The package onnx does, ONNX Runtime does not."""
    source, bundle = copytree(tiny_checkpoint, tmp_path / "tiny"), tmp_path / "bundle"
    export_bundle(load_checkpoint(source), bundle, ExportOptions(link=True))
    with pytest.raises(Exception, match="multiple hard links"):
        onnx.load(bundle / "prefill.onnx")
    weights = bundle / "weights.safetensors"
    Path(copy(weights, bundle / "own")).replace(weights)
    onnx.load(bundle / "prefill.onnx")
    assert open_session(bundle).graph("prefill") is not None


@pytest.mark.slow
def test_a_copy_where_there_are_no_links(
    tiny_checkpoint: Path, tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    export_bundle(load_checkpoint(tiny_checkpoint), tmp_path / "bundle", ExportOptions(link=True))
    weights = tmp_path / "bundle" / "weights.safetensors"
    assert weights.read_bytes() == (tiny_checkpoint / "model.safetensors").read_bytes()
    assert not os.path.samefile(weights, tiny_checkpoint / "model.safetensors")
    assert features(open_session(tmp_path / "bundle"), [picture]).shape == (1, 4, 32)


def test_what_cannot_be_linked(tiny_checkpoint: Path, write_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    half = copytree(tiny_checkpoint, tmp_path / "half")
    tensors = load_file(half / "model.safetensors")
    tensors["transformer.wte.weight"] = tensors["transformer.wte.weight"].to(torch.float16)
    save_file(tensors, half / "model.safetensors")
    sharded = write_checkpoint(max_shard_size="4KB", name="sharded")
    assert not (sharded / "model.safetensors").exists()
    for checkpoint in (load_checkpoint(half), load_checkpoint(sharded), random_checkpoint("small", 0)):
        with pytest.raises(OptionError, match=r"--link needs fp32 and one float32 model\.safetensors"):
            export_bundle(checkpoint, tmp_path / "bundle", ExportOptions(link=True))
    with pytest.raises(OptionError, match="precision int8 is not that"):
        export_bundle(
            load_checkpoint(tiny_checkpoint), tmp_path / "bundle", ExportOptions(Precision("int8", "int8"), link=True)
        )
    assert not (tmp_path / "bundle").exists()


@pytest.mark.slow
def test_a_probe_of_a_linked_bundle(tiny_checkpoint: Path, tmp_path: Path) -> None:
    from igpt_export.probe.bake import bake_probe
    from igpt_export.probe.fit import Linear, Probe
    from igpt_runtime.bundle.bundle import open_bundle

    export_bundle(load_checkpoint(tiny_checkpoint), tmp_path / "bundle", ExportOptions(link=True))
    bundle = open_bundle(tmp_path / "bundle")
    linear = Linear(np.ones((2, 64), np.float32), np.zeros(2, np.float32))
    probe = Probe(("x", "y"), (1, 2), "hf", "tiny", bundle.manifest.source["sha256"], linear)
    made = bake_probe(bundle, probe, tmp_path / "baked")
    assert made.classifier is not None and made.classifier.labels == ("x", "y")
    assert "classifier.weight" in load_file(tmp_path / "baked" / "weights.safetensors")
    assert json.loads((tmp_path / "baked" / "manifest.json").read_text())["classifier"]["layers"] == [1, 2]
