"""Every graph says what the manifest says, under the keys that the specification lists."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from igpt_export.graphs.metadata import graph_metadata
from igpt_export.probe.bake import bake_probe
from igpt_export.probe.fit import Linear, Probe
from igpt_runtime.bundle.bundle import Bundle, demo_bundle_path, open_bundle

ROOT = Path(__file__).parents[3]


def metadata_of(path: Path) -> dict[str, str]:
    """As a client reads it."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    found: dict[str, str] = session.get_modelmeta().custom_metadata_map
    return found


def check(bundle: Bundle, license: dict[str, str]) -> None:
    manifest = bundle.manifest
    weights = manifest.files["weights.safetensors"].sha256
    for name, graph in manifest.graphs.items():
        found = metadata_of(bundle.path / graph.file)
        refers = None if name in ("preprocess", "postprocess") else weights
        assert found == graph_metadata(manifest, name, license, refers)
        assert found["igpt.graph"] == name and found["igpt.format_version"] == "7"
    assert found["igpt.height"] == str(manifest.image_format.height)
    assert found.get("igpt.onnxruntime_minimum") == manifest.onnxruntime_minimum


def test_of_the_demo() -> None:
    check(open_bundle(demo_bundle_path()), {"license": "mit"})


@pytest.mark.parametrize("precision", [("fp32", "fp32"), ("int8", "int8"), ("fp16", "fp16")], ids="-".join)
def test_of_a_precision(bundle_of: Callable[[str, str], Path], precision: tuple[str, str]) -> None:
    bundle = open_bundle(bundle_of(*precision))
    check(bundle, {})
    assert bundle.manifest.onnxruntime_minimum == {"fp32": "1.25", "int8": "1.28", "fp16": None}[precision[0]]


@pytest.mark.slow
def test_of_a_bundle_with_another_classifier(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    linear = Linear(np.ones((2, 32), np.float32), np.zeros(2, np.float32))
    source = bundle.manifest.source["sha256"]
    probe = Probe(("crane", "crane"), (2,), "hf", bundle.manifest.name, source, linear)
    bake_probe(bundle, probe, tmp_path / "probed")
    check(open_bundle(tmp_path / "probed"), {})
    found = metadata_of(tmp_path / "probed/prefill.onnx")
    assert [found[f"igpt.{key}"] for key in ("labels", "label.0", "label.1", "protocol")] == [
        "2",
        "crane",
        "crane",
        "hf",
    ]


def test_the_specification_lists_the_keys() -> None:
    text = (ROOT / "runtime/SPEC.md").read_text()
    section = text.split("### Metadata")[1].split("###")[0]
    listed = set(re.findall(r"`(igpt\.[\w.]+)`", section))
    manifest = open_bundle().manifest
    licence = {"license": "other", "license_name": "x", "license_link": "y"}
    two = replace(manifest, classifier=replace(manifest.classifier, labels=("a", "b")))  # type: ignore[type-var]
    assert listed == set(graph_metadata(two, "prefill", licence, "0" * 64))
