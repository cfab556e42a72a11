"""Bundles without their weights: what of the large sizes can be carried. `models.py` fills them on the other machine.

`python graphs.py OUTPUT SIZE-PRECISION...`, in the project's environment; e.g. `small-fp16 large-fp16 small-fp32`.
A bundle's graphs refer to places in its weights file, which the file's header alone decides. So the header is written,
the file is made as long as it would be (it takes no room on the disk), the graphs are traced and written, and the file
is cut down to its header again. The weights are igpt-export's random ones of seed 0; the manifest's hash of them is
zeros until they are made.
"""

import itertools
import json
import math
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from igpt_export.bundle_writer import _WIDEST_FIRST, file_records, write_graph, write_manifest
from igpt_export.checkpoint.checkpoint import random_checkpoint
from igpt_export.checkpoint.weights import DTYPE_NAMES
from igpt_export.export import ExportOptions, _manifest
from igpt_export.graphs.bundle_graphs import trace_graphs
from igpt_export.model.model import Parts
from igpt_export.precision.precision import Precision
from igpt_export.precision.quantize import QuantizedTensors
from igpt_runtime.bundle.directory import WEIGHTS_FILE
from igpt_runtime.bundle.manifest import FileRecord


def header_of(shapes) -> tuple[bytes, int]:
    """The beginning of the weights file, and the size of all of it, as `igpt_export.bundle_writer` makes it."""
    order = sorted(shapes, key=lambda name: (_WIDEST_FIRST.index(shapes[name][0]), name))
    sizes = [math.prod(shapes[name][1]) * shapes[name][0].itemsize for name in order]
    ends = list(itertools.accumulate(sizes))
    header = {
        name: {"dtype": DTYPE_NAMES[shapes[name][0]], "shape": shapes[name][1], "data_offsets": [end - size, end]}
        for name, size, end in zip(order, sizes, ends, strict=True)
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    start = len(text).to_bytes(8, "little") + text
    return start, len(start) + ends[-1]


def write(size: str, precision: Precision, directory: Path) -> None:
    """One bundle without its weights."""
    shutil.rmtree(directory, ignore_errors=True)  # of a run that was interrupted
    directory.mkdir(parents=True)
    checkpoint = random_checkpoint(size, 0)
    tensors = QuantizedTensors(checkpoint.tensors, checkpoint.config, precision, None)
    start, length = header_of(tensors.shapes)
    weights = directory / WEIGHTS_FILE
    with weights.open("wb") as file:
        file.write(start)
        file.truncate(length)
    graphs = trace_graphs(checkpoint, Parts.of(tensors), precision, weights, embed=False)
    for name, graph in graphs.items():
        write_graph(graph, f"{name}.onnx", directory)
    files = file_records(directory, {WEIGHTS_FILE: FileRecord(length, "0" * 64)})
    write_manifest(replace(_manifest(checkpoint, ExportOptions(precision), graphs), files=files), directory)
    with weights.open("r+b") as file:
        file.truncate(len(start))


def main() -> None:
    output = Path(sys.argv[1])
    for wanted in sys.argv[2:]:
        size, weights = wanted.rsplit("-", 1)
        write(size, Precision(weights, weights), output / wanted)
        print(f"{wanted}: {sum(p.stat().st_size for p in (output / wanted).iterdir()) / 1e6:.2f} MB", flush=True)


if __name__ == "__main__":
    main()
