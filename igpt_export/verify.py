"""Compares a written bundle with torch."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from igpt_export.blocks import BlockGraph, states_by_block, unloaded_model
from igpt_export.model import States, pooled
from igpt_export.precision import Precision
from igpt_export.stepping import prefilled_slots, run_steps
from igpt_export.tolerance import check_difference, check_equal, tolerance_of
from igpt_export.verify_pictures import verify_picture_graphs
from igpt_runtime import names
from igpt_runtime.bundle import open_bundle
from igpt_runtime.cache import Slots
from igpt_runtime.config import Classifier, ImageGPTConfig
from igpt_runtime.manifest import Manifest

Array = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int64]

_SEQUENCE = 64  # positions compared
_STEPS = 8  # of them, how many the decode graph takes one by one
_SEQUENCES, _ROWS = 2, 2  # compared; and rows that each is decoded in


def verify_bundle(
    directory: Path, tensors: Mapping[str, Tensor], config: ImageGPTConfig, classifier: Classifier | None,
    precision: Precision, progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, float]:  # fmt: skip
    """Run the bundle in `directory` on ONNX Runtime and its tensors, as stored there, in torch, on the same tokens.

    Returns the largest absolute difference of logits (of features where there is no language-model head) for prefill,
    decode and shared-prefix decode, with what was compared. progress: called with the number of layers of a graph that
    are done, and of all.

    Raises:
        VerificationError: a difference is above tolerance, or is not a number.
    """
    sequence = min(_SEQUENCE, config.n_positions)
    tokens = np.random.default_rng(0).integers(0, config.n_clusters, (_SEQUENCES, sequence))
    tokens[:, 0] = config.sos
    manifest = open_bundle(directory).manifest
    expected = _reference(tensors, config, classifier, precision, tokens)
    graph = BlockGraph(directory / manifest.graphs[names.PREFILL].file)
    (outputs,) = graph.run([{names.INPUT_IDS: tokens}], list(expected), progress=progress)
    differences = [check_difference(expected[name], outputs[name], name, precision) for name in expected]
    report = {
        "prefill_max_abs_diff": differences[0],
        "tolerance": tolerance_of(precision),
        "sequence": float(sequence),
    }
    split = max(sequence - _STEPS, min(1, sequence - 1))
    if names.DECODE in manifest.graphs:
        slots = [prefilled_slots(graph, config, row[:split]) for row in tokens]
        for name in (names.DECODE, names.DECODE_SHARED):
            if name in manifest.graphs and (split or name == names.DECODE):
                stepped = BlockGraph(directory / manifest.graphs[name].file)
                logits = np.stack(
                    [
                        _stepped(stepped, manifest, name, row[split:], part, progress)
                        for row, part in zip(tokens, slots, strict=True)
                    ]
                )
                report[f"{name}_max_abs_diff"] = check_difference(
                    expected[names.LOGITS][:, split:], logits, f"{name} logits", precision
                )
    verify_picture_graphs(directory, manifest, precision)
    return report


@torch.no_grad()
def _reference(
    tensors: Mapping[str, Tensor], config: ImageGPTConfig, classifier: Classifier | None, precision: Precision,
    tokens: Tokens,
) -> dict[str, Array]:  # fmt: skip
    """What torch makes of the tensors; logits first, if the model has them."""
    model = unloaded_model(config, tensors, linear=precision.linear, int8_cache=precision.kv_cache == "int8")
    pairs = [pair for (pair,) in states_by_block(model, tensors, [torch.from_numpy(tokens)])]
    states = States(pairs[-1][0], [hidden for hidden, _ in pairs], [normed for _, normed in pairs], [])
    expected = {} if model.lm_head is None else {names.LOGITS: model.lm_head(states.last)}
    expected |= {names.FEATURES: pooled(states.hidden), names.NORMED_FEATURES: pooled(states.normed)}
    if classifier is not None:
        expected[names.CLASS_LOGITS] = model.class_logits(states, classifier)
    return {name: value.numpy() for name, value in expected.items()}


def _stepped(
    graph: BlockGraph, manifest: Manifest, name: str, inputs: Tokens, slots: Slots,
    progress: Callable[[int, int], None],
) -> Array:  # fmt: skip
    """Feed `inputs` [steps] to a decode graph one by one, to all rows, after `slots`; logits [steps, n_clusters].

    Raises VerificationError if at temperature 0 the graph does not draw the likeliest token.
    """
    rows, shared = np.tile(inputs, (_ROWS, 1)), name == names.DECODE_SHARED
    found = run_steps(graph, manifest, rows, slots, shared=shared, temperature=0.0, progress=progress)
    logits = np.stack([step[names.LOGITS] for step in found])
    check_equal(np.stack([step[names.NEXT_IDS][:, 0] for step in found]), logits.argmax(-1), name)
    last_row: Array = logits[:, -1]
    return last_row
