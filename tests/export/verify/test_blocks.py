"""Running block by block gives what running the whole gives, in torch and in ONNX Runtime."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from igpt_export.checkpoint.checkpoint import build_model, load_checkpoint
from igpt_export.model.blockwise import states_by_block, unloaded_model
from igpt_export.precision.precision import Precision
from igpt_export.verify import pictures as verify_pictures
from igpt_export.verify.block_graph import BlockGraph
from igpt_export.verify.bundle import verify_bundle
from igpt_export.verify.pictures import verify_picture_graphs
from igpt_export.verify.stepping import prefilled_slots, run_steps
from igpt_runtime.bundle import graph_io
from igpt_runtime.engine.generate import DecodeStep, GenerationOptions
from igpt_runtime.engine.kv_cache import new_cache
from igpt_runtime.engine.session import open_session
from igpt_runtime.errors import VerificationError
from igpt_runtime.progress import Progress


class Counts(Progress):
    """Notes the stage, the unit, what is done and of how much."""

    def __init__(self) -> None:
        self.name, self.counts = "", []

    def stage(self, name: str) -> None:
        self.name = name

    def count(self, done: int, total: int, unit: str) -> None:
        self.counts.append((self.name, unit, done, total))


TOKENS = np.random.default_rng(0).integers(0, 16, (2, 64))


def test_torch_block_by_block(tiny_checkpoint: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    expected = build_model(checkpoint)(torch.from_numpy(TOKENS))
    model = unloaded_model(checkpoint.config, checkpoint.tensors)
    loaded = []

    def note(*_: object) -> None:
        loaded.append({name for name, parameter in model.named_parameters() if not parameter.is_meta})

    for block in model.h:
        block.register_forward_hook(note)
    halves = [torch.from_numpy(TOKENS[:1]), torch.from_numpy(TOKENS[1:])]
    count = 0
    for i, states in enumerate(states_by_block(model, checkpoint.tensors, halves)):
        for row, (hidden, normed) in enumerate(states):
            torch.testing.assert_close(hidden[0], expected.hidden[i][row], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(normed[0], expected.normed[i][row], atol=1e-5, rtol=1e-5)
        count += 1
    assert count == 4
    heads = {"lm_head.weight", "classifier.weight", "classifier.bias"}
    for i, there in enumerate(loaded):  # two runs of each block
        assert {name.split(".")[1] for name in there - heads} == {str(i // 2)}


@pytest.mark.parametrize(
    ("weights", "kv_cache"), [("fp32", "fp32"), ("int8", "int8"), ("int4", "int8"), ("fp16", "fp16")]
)
def test_prefill_part_by_part(bundle_of: Callable[[str, str], Path], weights: str, kv_cache: str) -> None:
    bundle = bundle_of(weights, kv_cache)
    session = open_session(bundle, device="cpu")
    outputs = [spec.name for spec in session.manifest.graphs[graph_io.PREFILL].outputs]
    progress = Counts()
    steps = [{graph_io.INPUT_IDS: row[None]} for row in TOKENS]
    found = BlockGraph(bundle / "prefill.onnx").run(steps, outputs, progress=progress)
    assert progress.counts == [("", "layers", i, 4) for i in range(1, 5)]
    graph = session.graph(graph_io.PREFILL)
    for row, step in zip(TOKENS, found, strict=True):
        for name, expected in zip(outputs, graph.run(outputs, {graph_io.INPUT_IDS: row[None]}), strict=True):
            assert step[name].dtype == expected.dtype and step[name].shape == expected.shape
            wide = expected.astype(np.float64)
            assert np.abs(step[name] - wide).max() <= (1 if expected.dtype == np.int8 else 1e-3 * np.abs(wide).max()), (
                name
            )


@pytest.mark.parametrize(("weights", "kv_cache"), [("fp32", "fp32"), ("int8", "int8")])
def test_decode_part_by_part(bundle_of: Callable[[str, str], Path], weights: str, kv_cache: str) -> None:
    """Steps that live on the cache which the steps before them filled."""
    bundle = bundle_of(weights, kv_cache)
    session = open_session(bundle, device="cpu")
    manifest, config = session.manifest, session.manifest.config
    step = DecodeStep(session, new_cache(manifest, 2), GenerationOptions(), with_logits=True)
    expected = []
    for position in range(20):
        step(TOKENS[:, position : position + 1], position, np.zeros(2, np.float32))
        expected.append(step.logits().copy())
    graph = BlockGraph(bundle / "decode.onnx")
    found = run_steps(graph, manifest, TOKENS[:, :20], [])
    for position, logits in enumerate(expected):
        assert np.abs(found[position][graph_io.LOGITS] - logits).max() <= 1e-4 * np.abs(logits).max()
        assert np.array_equal(found[position][graph_io.NEXT_IDS][:, 0], found[position][graph_io.LOGITS].argmax(-1))
    # And the last of them after the slots of those before, their own or shared.
    inputs = np.repeat(TOKENS[:1, :20], 2, axis=0)
    slots = prefilled_slots(BlockGraph(bundle / "prefill.onnx"), config, inputs[0, :12])
    for name in ("decode.onnx", "decode_shared.onnx"):
        after = run_steps(BlockGraph(bundle / name), manifest, inputs[:, 12:], slots)
        for step, logits in zip(after, expected[12:], strict=True):
            assert (
                np.abs(step[graph_io.LOGITS] - logits[:1]).max()
                <= (1e-4 if weights == "fp32" else 0.1) * np.abs(logits).max()
            )


def test_an_export_counts_bytes_and_layers(tiny_checkpoint: Path, tmp_path: Path) -> None:
    from igpt_export.export import ExportOptions, export_bundle
    from igpt_export.precision.precision import Precision

    options = ExportOptions(Precision("int8", "int8"), max_loss_increase=float("inf"))
    progress = Counts()
    export_bundle(load_checkpoint(tiny_checkpoint), tmp_path / "bundle", options, progress)
    units: dict[str, set[str]] = {}
    for stage, unit, _, _ in progress.counts:
        units.setdefault(stage, set()).add(unit)
    assert units == {
        "calibrating": {"layers"}, "writing weights": {"bytes"}, "verifying against torch": {"layers"},
        "measuring the loss": {"layers"},
    }  # fmt: skip
    last = {stage: (done, total) for stage, _, done, total in progress.counts}
    assert all(done == total for done, total in last.values())


@pytest.mark.parametrize("name", [graph_io.PREFILL, graph_io.DECODE, graph_io.DECODE_SHARED])
def test_mixed_rows_are_noticed(
    tiny_checkpoint: Path, bundle_of: Callable[[str, str], Path], name: str, tmp_path: Path
) -> None:
    """A graph that computes every row of a batch as the first."""
    bundle = tmp_path / "bundle"
    shutil.copytree(bundle_of("fp32", "fp32"), bundle)
    checkpoint = load_checkpoint(tiny_checkpoint)
    verify_bundle(bundle, checkpoint.tensors, checkpoint, Precision())
    path = bundle / f"{name}.onnx"
    model = onnx.load(path, load_external_data=False)
    for node in model.graph.node:
        node.input[:] = ["mixed" if value == graph_io.INPUT_IDS else value for value in node.input]
    rows = numpy_helper.from_array(np.array([0, 0]), "rows")
    model.graph.initializer.append(rows)
    model.graph.node.insert(0, helper.make_node("Gather", [graph_io.INPUT_IDS, "rows"], ["mixed"], axis=0))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(VerificationError, match="logits differ"):
        verify_bundle(bundle, checkpoint.tensors, checkpoint, Precision())


@pytest.mark.parametrize("what", ["preprocess", "postprocess", "features", "classify", "score", "complete"])
def test_wrong_picture_graphs_are_noticed(
    bundle_of: Callable[[str, str], Path], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each compared with what something else would have to be, by a change of what it is compared with."""
    bundle = bundle_of("fp32", "fp32")
    manifest = open_session(bundle).manifest
    verify_picture_graphs(bundle, manifest, Precision())
    changes = {
        "preprocess": ("image_to_tokens", lambda f: lambda *a, **k: np.roll(f(*a, **k), 1)),
        "postprocess": ("tokens_to_image", lambda f: lambda *a: f(*a).transpose(0)),
        "features": ("check_difference", lambda f: lambda e, a, w, p: f(e + 0.1 * (w == "features"), a, w, p)),
        "classify": ("check_difference", lambda f: lambda e, a, w, p: f(e + 0.1 * (w == "classify"), a, w, p)),
        "score": ("_log_softmax", lambda f: lambda logits: f(logits * 1.1) if logits.ndim == 2 else f(logits)),
        "complete": ("uniforms", lambda f: lambda seed, *a: f(seed + 1, *a)),
    }
    name, change = changes[what]
    monkeypatch.setattr(verify_pictures, name, change(getattr(verify_pictures, name)))
    with pytest.raises(VerificationError, match=what):
        verify_picture_graphs(bundle, manifest, Precision())
