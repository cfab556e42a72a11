"""Runs a written graph part by part in ONNX Runtime, with the weights of one block in memory at a time.

A graph is cut into consecutive parts, which together are all of it: what is verified is what was written.
"""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from igpt_runtime.engine.session import WEIGHTS_FOLDER, import_onnxruntime, return_freed_memory
from igpt_runtime.progress import SILENT, Progress

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]

_PACKING_PAYS = 16  # steps that read the weights
_BLOCK = re.compile(r"(?:^|\.)h\.(\d+)\.")  # in the name of a block's weight


@dataclass(frozen=True)
class _Part:
    """Consecutive nodes of a graph."""

    inputs: list[str]
    outputs: list[str]


class BlockGraph:
    """A written graph that is run part by part."""

    def __init__(self, path: Path) -> None:
        """path: of the file, beside its weights."""
        self.name = path.stem
        self._model, self._folder = ir.load(path), path.parent
        self.inputs = {str(value.name) for value in self._model.graph.inputs}
        self._ort = import_onnxruntime()
        functions = self._model.functions.values()
        nodes = itertools.chain(self._model.graph, *functions)
        self._has_4bit_weights = any(node.op_type == "MatMulNBits" for node in nodes)

    def run(
        self,
        steps: Sequence[Feeds],
        outputs: Sequence[str],
        *,
        carried: Mapping[str, str] | None = None,
        state: Callable[[str], Array] | None = None,
        progress: Progress = SILENT,
    ) -> list[dict[str, Array]]:
        """The outputs of every step, each part of the graph running all steps before the next one begins.

        steps: the inputs of each; carried: outputs that a step hands to the next as an input, by that input's name;
        state: what such an input is at first, an array that is written to.
        """
        carried = dict(carried or {})
        parts = _cut(self._model.graph, [*outputs, *carried.values()])
        # From so many steps on. Kernels of 4-bit weights round what they multiply only in the packed form, which is
        # the one that runtimes have.
        packing_pays = 1 if self._has_4bit_weights else _PACKING_PAYS
        values: list[dict[str, Array]] = [dict(step) for step in steps]
        for number, part in enumerate(parts):
            later = {name for following in parts[number + 1 :] for name in following.inputs} | set(outputs)
            own = {name: carried[name] for name in part.inputs if carried.get(name) in part.outputs}
            kept = [name for name in part.outputs if name not in own.values()]
            session = self._open(part, packs=len(steps) >= packing_pays)
            binding = session.io_binding()
            # Values are views of them.
            caches = {name: state(name) for name in part.inputs if name in carried} if state is not None else {}
            for name, cache in caches.items():
                value = self._ort.OrtValue.ortvalue_from_numpy(cache)
                binding.bind_ortvalue_input(name, value)
                if name in own:
                    binding.bind_ortvalue_output(own[name], value)
            for name in kept:
                binding.bind_output(name)
            for step in values:
                fed = {name: np.asarray(step[name], order="C") for name in part.inputs if name not in carried}
                for name, array in fed.items():
                    binding.bind_cpu_input(name, array)
                session.run_with_iobinding(binding)
                found = binding.get_outputs()[len(own) :]  # in the order of binding
                step.update((name, value.numpy().copy()) for name, value in zip(kept, found, strict=True))
                for name in [name for name in step if name not in later]:
                    del step[name]
            del session, binding
            return_freed_memory()
            progress.count(number + 1, len(parts), "layers")
        return values

    def _open(self, part: _Part, *, packs: bool) -> Any:
        graph = ir.convenience.extract(self._model.graph, part.inputs, part.outputs)
        functions = [function.clone() for function in self._model.functions.values()]
        model = ir.Model(graph, ir_version=self._model.ir_version, functions=functions)
        options = self._ort.SessionOptions()
        options.log_severity_level = 3
        options.add_session_config_entry(WEIGHTS_FOLDER, str(self._folder))
        if not packs:
            options.add_session_config_entry("session.disable_prepacking", "1")
        data = ir.to_proto(model).SerializeToString()
        return self._ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _cut(graph: ir.Graph, outputs: Sequence[str]) -> list[_Part]:
    """What of a graph computes some outputs, in parts that follow each other as its nodes do.

    The first is the embedding; each other begins where the first weight of another block is read, and the last one ends
    with the heads.
    """
    needed = {value for value in graph.outputs if value.name in outputs}
    nodes = []
    for node in reversed(list(graph)):
        if needed.intersection(node.outputs):
            nodes.append(node)
            needed.update(value for value in node.inputs if value is not None)
    numbers: dict[ir.Node, int] = {}
    number, blocks = 0, {-1}
    for node in reversed(nodes):
        read = {
            int(match[1]) for value in node.inputs if value is not None and (match := _BLOCK.search(str(value.name)))
        }
        if not read <= blocks:
            blocks |= read
            number += 1
        numbers[node] = number
    inputs: list[dict[str, None]] = [{} for _ in range(number + 1)]  # as sets that keep their order
    made: list[dict[str, None]] = [{} for _ in range(number + 1)]
    for node, number in numbers.items():
        for value in node.inputs:
            if value is None or value.is_initializer():
                continue
            producer = value.producer()
            if producer is None or numbers[producer] < number:
                inputs[number][str(value.name)] = None
            if producer is not None and numbers[producer] < number:
                made[numbers[producer]][str(value.name)] = None
        for value in node.outputs:
            if value.name in outputs:
                made[number][str(value.name)] = None
    return [_Part(list(reads), list(makes)) for reads, makes in zip(inputs, made, strict=True) if makes]
