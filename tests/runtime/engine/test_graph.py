"""Opened graphs: what they take and give is what the manifest says, and failures name their cause."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from igpt_runtime.engine.generate import GenerationOptions
from igpt_runtime.engine.graph import failure
from igpt_runtime.engine.session import Session, open_session
from igpt_runtime.errors import BundleError, DeviceError, IgptError, MemoryShortageError
from igpt_runtime.tasks.classify import classify
from igpt_runtime.tasks.complete import complete
from igpt_runtime.tasks.features import features
from igpt_runtime.tasks.score import score

PICTURE = Image.new("RGB", (8, 8), "red")
Replace = Callable[[Path, str, bytes], None]
USES: list[tuple[str, Callable[[Session], object]]] = [
    ("prefill.onnx", lambda session: classify(session, [PICTURE])),
    ("prefill.onnx", lambda session: features(session, [PICTURE])),
    ("prefill.onnx", lambda session: list(score(session, [PICTURE]))),
    ("decode.onnx", lambda session: complete(session, PICTURE, GenerationOptions(1))),
    ("decode_shared.onnx", lambda session: complete(session, PICTURE, GenerationOptions(9))),
]


def as_int32(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT32


def of_one_row(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def named_otherwise(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = "ids"
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            if name == "input_ids":
                node.input[i] = "ids"


@pytest.mark.parametrize("change", [as_int32, of_one_row, named_otherwise])
@pytest.mark.parametrize(("file", "use"), USES, ids=["classify", "features", "score", "decode", "decode_shared"])
def test_a_graph_of_another_interface(
    bundle_copy: Path, replace_file: Replace, file: str, use: Callable[[Session], object], change: Callable[[Any], None]
) -> None:
    """Its hash is right: it was replaced with its record."""
    model = onnx.load_model(bundle_copy / file, load_external_data=False)
    change(model)
    replace_file(bundle_copy, file, model.SerializeToString())
    with pytest.raises(BundleError) as caught:
        use(open_session(bundle_copy, device="cpu"))
    assert f"{file} " in str(caught.value) and str(caught.value).endswith("; export the bundle again")


@pytest.mark.parametrize(
    ("message", "error", "words"),
    [
        ("[ONNXRuntimeError] : 1 : FAIL : std::bad_alloc", MemoryShortageError, "ask for fewer pictures at once"),
        ("Failed to allocate memory for requested buffer of size 9", MemoryShortageError, "ask for fewer pictures"),
        ("CUDA failure 2: out of memory ; GPU=0", MemoryShortageError, "the GPU has no memory left"),
        ("CUBLAS_STATUS_ALLOC_FAILED ; GPU=0", MemoryShortageError, "the GPU has no memory left"),
        ("CUDA failure 700: an illegal memory access was encountered", DeviceError, "igpt-run doctor tells"),
        ("Failed to load library libonnxruntime_providers_cuda.so with error: x", DeviceError, "igpt-run doctor"),
        ("libcudnn.so.9: cannot open shared object file: No such file or directory", DeviceError, "igpt-run doctor"),
        ("Load model from a.onnx failed: system error number 24", BundleError, "check the file and its permissions"),
        ('Failed to parse environment variable "ORT_INTRA_OP_NUM_THREADS"', DeviceError, "tells which variable"),
        ("pthread_create failed: Resource temporarily unavailable", DeviceError, "--threads 1"),
        ("INVALID_PROTOBUF : Protobuf parsing failed.", BundleError, "export the bundle again"),
        ("", BundleError, "export the bundle again"),
        ("a\nb\n" * 500, BundleError, "export the bundle again"),
    ],
)
def test_causes(message: str, error: type[IgptError], words: str) -> None:
    found = failure(RuntimeError(message), "cannot open a.onnx")
    text = str(found)
    assert type(found) is error and words in text and text.startswith("ONNX Runtime cannot open a.onnx (")
    assert "\n" not in text and len(text) < 800
    assert ("export the bundle again" in text) == (words == "export the bundle again")


def test_whatever_onnx_runtime_raises_while_it_computes(tiny_bundle: Path) -> None:
    session = open_session(tiny_bundle, device="cpu")
    graph = session.graph("prefill")
    for inputs in ({"input_ids": np.full((1, 4), 99)}, {"input_ids": np.zeros(4, np.int64)}, {}):
        with pytest.raises(BundleError, match=r"ONNX Runtime failed in .*prefill\.onnx \("):
            graph.run(["logits"], inputs)


@pytest.mark.parametrize("change", ["cut", "written"])
def test_weights_that_change_under_an_open_session(bundle_copy: Path, change: str) -> None:
    """Reading a mapped file behind its end would end the process."""
    session = open_session(bundle_copy, device="cpu")
    weights = bundle_copy / "weights.safetensors"
    complete(session, PICTURE, GenerationOptions(1))
    session.graph("prefill")
    with weights.open("r+b") as file:
        if change == "cut":
            file.truncate(4096)
        else:
            file.write(b"\0")
            os.utime(weights, ns=(1, 1))
    for graph in ("prefill", "decode"):
        with pytest.raises(BundleError, match=r"weights\.safetensors was changed while the bundle was open"):
            session.graph(graph).run(["logits"], {"input_ids": np.zeros((1, 4), np.int64)})
    for _, use in USES:
        with pytest.raises(BundleError, match="while the bundle was open"):
            use(session)


def test_an_open_graph_outlives_its_files(bundle_copy: Path) -> None:
    """What is mapped stays, so that a bundle can be removed while it is used."""
    session = open_session(bundle_copy, device="cpu")
    graph = session.graph("prefill")
    inputs = {"input_ids": np.zeros((1, 4), np.int64)}
    (before,) = graph.run(["logits"], inputs)
    for path in bundle_copy.iterdir():
        path.unlink()
    (after,) = graph.run(["logits"], inputs)
    assert np.array_equal(before, after)
