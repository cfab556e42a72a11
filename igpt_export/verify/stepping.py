"""Steps of a written decode graph whose tokens are known beforehand, run block by block."""

from typing import Any

import numpy as np
import numpy.typing as npt

from igpt_export.verify.block_graph import BlockGraph
from igpt_runtime.bundle import graph_io
from igpt_runtime.bundle.config import ImageGPTConfig
from igpt_runtime.bundle.manifest import Manifest
from igpt_runtime.engine.kv_cache import Slots, new_own_slots, new_slots, prefix_of
from igpt_runtime.progress import SILENT, Progress

Array = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int64]


def prefilled_slots(prefill: BlockGraph, config: ImageGPTConfig, inputs: Tokens) -> Slots:
    """The cache after `inputs` [sequence], of one row, in order; no arrays for no inputs."""
    if not inputs.size:
        return []
    present = graph_io.present_names(config)
    (found,) = prefill.run([{graph_io.INPUT_IDS: inputs[None]}], present)
    return [found[name] for name in present]


def run_steps(
    graph: BlockGraph,
    manifest: Manifest,
    inputs: Tokens,
    slots: Slots,
    draws: Array | None = None,
    progress: Progress = SILENT,
) -> list[dict[str, npt.NDArray[Any]]]:
    """Feed `inputs` [rows, steps] to a decode graph one by one, after `slots` of one row that all rows begin with.

    draws: uniforms [rows, steps] for a temperature of 1; None takes the likeliest tokens. Returns logits and drawn
    tokens of every step.
    """
    config, rows, first = manifest.config, len(inputs), slots[0].shape[2] if slots else 0
    past, shared = graph_io.past_names(config), graph_io.prefix_names(config)[0] in graph.inputs
    begin = dict(zip(past, slots, strict=True)) if slots else {}
    prefix = dict(zip(graph_io.prefix_names(config), prefix_of(slots), strict=True)) if shared else {}

    def state(past_name: str) -> npt.NDArray[Any]:
        # Of one tensor at a time: those of all layers would be the most that an export holds.
        return new_own_slots(manifest, rows, first) if shared else new_slots(manifest, rows, begin.get(past_name))

    temperature = 0.0 if draws is None else 1.0
    draws = np.zeros(inputs.shape, np.float32) if draws is None else draws
    steps: list[dict[str, npt.NDArray[Any]]] = [
        {
            **prefix,
            graph_io.INPUT_IDS: inputs[:, i : i + 1],
            graph_io.PAST_LENGTH: np.array(first + i),
            graph_io.UNIFORM: draws[:, i],
            graph_io.TEMPERATURE: np.array(temperature, np.float32),
            graph_io.TOP_K: np.array(0),
            graph_io.TOP_P: np.array(1, np.float32),
        }
        for i in range(inputs.shape[1])
    ]
    carried = dict(zip(past, graph_io.present_names(config), strict=True))
    return graph.run(steps, [graph_io.LOGITS, graph_io.NEXT_IDS], carried=carried, state=state, progress=progress)
