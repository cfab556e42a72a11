"""Compares a written bundle with torch."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from igpt_export.checkpoint.checkpoint import Checkpoint
from igpt_export.model.blockwise import states_by_block, unloaded_model
from igpt_export.model.model import States, mean, pooled
from igpt_export.precision.precision import Precision
from igpt_export.verify.block_graph import BlockGraph
from igpt_export.verify.pictures import verify_picture_graphs
from igpt_export.verify.stepping import run_steps
from igpt_export.verify.tolerance import Difference, check_difference, check_equal, tolerance_of
from igpt_runtime.bundle import graph_io
from igpt_runtime.bundle.bundle import open_bundle
from igpt_runtime.bundle.manifest import Manifest
from igpt_runtime.engine.kv_cache import Slots
from igpt_runtime.progress import SILENT, Progress

Array = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int64]

_SEQUENCE = 64  # positions compared
_STEPS = 8  # of them, how many the decode graph takes one by one
_ROWS = 2  # compared, which differ in these: all that comes before is one prefix for the decode graphs to share


def verify_bundle(
    directory: Path,
    tensors: Mapping[str, Tensor],
    checkpoint: Checkpoint,
    precision: Precision,
    progress: Progress = SILENT,
) -> dict[str, float]:
    """Run the bundle in `directory` on ONNX Runtime and its tensors, as stored there, in torch, on the same tokens.

    Returns how far logits (features where there is no language-model head) of prefill, decode and shared-prefix decode
    are off, with what was compared. checkpoint: its configuration and classifier count.

    Raises:
        VerificationError: a difference is above tolerance, or is not a number.
    """
    manifest, config = open_bundle(directory).manifest, checkpoint.config
    sequence = min(_SEQUENCE, config.n_positions)
    split = max(sequence - _STEPS, min(1, sequence - 1))
    tokens = np.random.default_rng(0).integers(0, config.n_clusters, (_ROWS, sequence))
    tokens[:, 0] = config.sos
    tokens[1:, :split] = tokens[0, :split]
    expected = _reference(tensors, checkpoint, precision, tokens)
    decodes = graph_io.DECODE in manifest.graphs
    present = graph_io.present_names(config) if decodes and split else []
    graph = BlockGraph(directory / manifest.graphs[graph_io.PREFILL].file)
    (outputs,) = graph.run([{graph_io.INPUT_IDS: tokens}], [*expected, *present], progress=progress)
    differences = [check_difference(expected[name], outputs[name], name, precision) for name in expected]
    report = {
        **_reported(graph_io.PREFILL, differences[0]),
        "tolerance": tolerance_of(precision),
        "sequence": float(sequence),
    }
    slots = [outputs.pop(name)[:1, :, :split].copy() for name in present]
    for name in (graph_io.DECODE, graph_io.DECODE_SHARED):
        if name in manifest.graphs and (split or name == graph_io.DECODE):
            stepped = BlockGraph(directory / manifest.graphs[name].file)
            logits = _stepped(stepped, manifest, tokens[:, split:], slots, progress)
            found = check_difference(expected[graph_io.LOGITS][:, split:], logits, f"{name} logits", precision)
            report |= _reported(name, found)
    verify_picture_graphs(directory, manifest, precision)
    return report


def _reported(graph: str, difference: Difference) -> dict[str, float]:
    return {f"{graph}_max_abs_diff": difference.largest, f"{graph}_relative_error": difference.relative}


@torch.no_grad()
def _reference(
    tensors: Mapping[str, Tensor], checkpoint: Checkpoint, precision: Precision, tokens: Tokens
) -> dict[str, Array]:
    """What torch makes of the tensors; logits first, if the model has them."""
    int8_cache, classifier = precision.kv_cache == "int8", checkpoint.classifier
    model = unloaded_model(checkpoint.config, tensors, linear=precision.linear, int8_cache=int8_cache)
    means: list[tuple[Tensor, Tensor]] = []
    last = torch.empty(0)
    for ((hidden, normed),) in states_by_block(model, tensors, [torch.from_numpy(tokens)]):
        last = hidden
        means.append((mean(hidden), mean(normed)))  # all that the heads but the first read
    states = States(last, [hidden for hidden, _ in means], [normed for _, normed in means], [])
    expected = {} if model.lm_head is None else {graph_io.LOGITS: model.lm_head(states.last)}
    expected |= {graph_io.FEATURES: pooled(states.hidden), graph_io.NORMED_FEATURES: pooled(states.normed)}
    if classifier is not None:
        expected[graph_io.CLASS_LOGITS] = model.class_logits(states, classifier)
    return {name: value.numpy() for name, value in expected.items()}


def _stepped(graph: BlockGraph, manifest: Manifest, inputs: Tokens, slots: Slots, progress: Progress) -> Array:
    """Feed `inputs` [rows, steps] to a decode graph one by one, after `slots`; logits [rows, steps, n_clusters].

    Raises VerificationError if at temperature 0 the graph does not draw the likeliest token.
    """
    found = run_steps(graph, manifest, inputs, slots, progress=progress)
    logits = np.stack([step[graph_io.LOGITS] for step in found], axis=1)
    check_equal(np.concatenate([step[graph_io.NEXT_IDS] for step in found], axis=1), logits.argmax(-1), graph.name)
    return logits
