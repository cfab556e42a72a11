"""Graphs that hold their weights."""

from pathlib import Path
from shutil import copy

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner

from igpt_export.bundle_writer import check_single_file
from igpt_export.cli import main
from igpt_export.precision.precision import Precision
from igpt_export.precision.quantize import stored_shapes
from igpt_export.probe.bake import bake_probe
from igpt_export.probe.fit import Linear, Probe
from igpt_runtime.bundle.bundle import open_bundle
from igpt_runtime.bundle.graph_io import EMBEDDED
from igpt_runtime.errors import OptionError

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 13, 3), np.uint8)


def computed(path: Path) -> list[np.ndarray]:
    """What a graph of a picture gives, run by itself."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    options = {"temperature": np.array(1, np.float32), "top_k": np.array(0), "top_p": np.array(1, np.float32)}
    feeds = {"image": PIXELS, "keep_rows": np.array(2), "n": np.array(2), "seed": np.array(5), **options}
    given = {value.name: feeds[value.name] for value in session.get_inputs()}
    assert ("igpt.weights_sha256" in session.get_modelmeta().custom_metadata_map) != (path.parent.name == "alone")
    return list(session.run(None, given))


@pytest.fixture(scope="module")
def single(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundle = tmp_path_factory.mktemp("single") / "bundle"
    command = ["--checkpoint", str(tiny_checkpoint), "--output", str(bundle), "--single-file"]
    assert CliRunner().invoke(main, command).exit_code == 0
    return bundle


def test_a_graph_runs_alone(single: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """The same results as beside the weights."""
    (tmp_path / "alone").mkdir()
    for name in EMBEDDED:
        copy(single / f"{name}.onnx", tmp_path / "alone")
        found, expected = computed(tmp_path / f"alone/{name}.onnx"), computed(tiny_bundle / f"{name}.onnx")
        assert all(np.array_equal(*pair) for pair in zip(found, expected, strict=True))
    assert set(open_bundle(single).manifest.graphs) == set(open_bundle(tiny_bundle).manifest.graphs)


def test_another_classifier_keeps_it(single: Path, tmp_path: Path) -> None:
    bundle = open_bundle(single)
    linear = Linear(np.ones((2, 32), np.float32), np.zeros(2, np.float32))
    probe = Probe(("crane", "rook"), (2,), "hf", bundle.manifest.name, bundle.manifest.source["sha256"], linear)
    bake_probe(bundle, probe, tmp_path / "probed")
    (tmp_path / "alone").mkdir()
    copy(tmp_path / "probed/classify.onnx", tmp_path / "alone")
    assert computed(tmp_path / "alone/classify.onnx")[0].shape == (2,)


def test_too_large_for_a_graph() -> None:
    from igpt_export.checkpoint.checkpoint import random_checkpoint

    for precision, fits in ((Precision("fp32"), False), (Precision("int8", "int8"), True)):
        checkpoint = random_checkpoint("large", 0)
        shapes = stored_shapes(checkpoint.tensors, checkpoint.config, precision)
        if fits:
            check_single_file(shapes, "large")
        else:
            with pytest.raises(OptionError, match=r"2 GB at most, and the weights of large have 5\.\d GB"):
                check_single_file(shapes, "large")
    check_single_file({"x": (torch.float32, (2, 3))}, "tiny")


def test_usage(single: Path) -> None:
    asked = ["--variant", "digits", "--single-file", "--no-embed"]
    result = CliRunner().invoke(main, asked)
    assert result.exit_code == 2 and "--single-file is of the graphs that --no-embed leaves out" in result.output
