"""Writes the files of a bundle."""

import functools
import hashlib
import itertools
import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch

from igpt_export.checkpoint.tensors import ShapedTensors
from igpt_export.checkpoint.weights import DTYPE_NAMES
from igpt_runtime.bundle.directory import CARD_FILE, MANIFEST_FILE, MAX_MANIFEST_BYTES, WEIGHTS_FILE
from igpt_runtime.bundle.manifest import FileRecord, Manifest, manifest_to_json
from igpt_runtime.engine.background import Task
from igpt_runtime.engine.session import return_freed_memory
from igpt_runtime.errors import OptionError
from igpt_runtime.progress import SILENT, Progress
from igpt_runtime.regular import read_regular

_MAX_GRAPH_BYTES = 2**31 - 2**25  # what a message may have, less what a graph has besides weights
_WIDEST_FIRST = (torch.float32, torch.float16, torch.int8, torch.uint8)


def write_weights(
    tensors: ShapedTensors, directory: Path, progress: Progress = SILENT, metadata: Mapping[str, str] | None = None
) -> FileRecord:
    """Write every weight once, one tensor at a time, as a safetensors file; the graphs refer to it.

    Returns what the file is. metadata: of the file.
    """
    shapes = tensors.shapes
    # The widest dtypes first, so that every tensor is aligned; the very file that safetensors' own writer makes.
    order = sorted(shapes, key=lambda name: (_WIDEST_FIRST.index(shapes[name][0]), name))
    sizes = [math.prod(shapes[name][1]) * shapes[name][0].itemsize for name in order]
    ends = list(itertools.accumulate(sizes))
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    header |= {
        name: {"dtype": DTYPE_NAMES[shapes[name][0]], "shape": shapes[name][1], "data_offsets": [end - size, end]}
        for name, size, end in zip(order, sizes, ends, strict=True)
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    start = len(text).to_bytes(8, "little") + text
    digest = hashlib.sha256(start)
    with (directory / WEIGHTS_FILE).open("wb") as file:
        file.write(start)
        for name, end in zip(order, ends, strict=True):
            tensor = tensors[name]
            assert (tensor.dtype, tuple(tensor.shape)) == shapes[name], name
            data = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
            hashing = Task(functools.partial(digest.update, data))
            file.write(data)
            hashing.result()
            del tensor, data
            return_freed_memory()
            progress.count(end, ends[-1], "bytes")
    return FileRecord(len(start) + ends[-1], digest.hexdigest())


def link_weights(source: Path, sha256: str, directory: Path) -> FileRecord:
    """Have a checkpoint's file of this hash as the weights file: the same one if its disk allows that, else a copy."""
    target = directory / WEIGHTS_FILE
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)
    return FileRecord(target.stat().st_size, sha256)


def check_single_file(shapes: Mapping[str, tuple[torch.dtype, Sequence[int]]], name: str) -> None:
    """Raise OptionError if weights of these shapes do not fit into a graph, one message of Protocol Buffers."""
    size = sum(math.prod(shape) * dtype.itemsize for dtype, shape in shapes.values())
    if size > _MAX_GRAPH_BYTES:
        raise OptionError(
            f"--single-file: a graph holds 2 GB at most, and the weights of {name} have {size / 1e9:.1f} GB; "
            "choose a lower --precision, or leave --single-file out"
        )


def refers_to_weights(graph: ir.Model) -> bool:
    """Whether a graph needs the weights file."""
    return any(isinstance(value.const_value, ir.ExternalTensor) for value in graph.graph.initializers.values())


def take_weights_in(graph: ir.Model) -> None:
    """Have a graph hold the weights that it refers to."""
    ir.external_data.load_to_model(graph)


def write_graph(graph: ir.Model, file: str, directory: Path) -> None:
    """Write one graph; its weights stay references into the weights file."""
    ir.save(graph, directory / file)


def file_records(directory: Path, known: Mapping[str, FileRecord]) -> dict[str, FileRecord]:
    """Size and hash of every file in a bundle directory but the manifest; known: those that need no reading."""
    records = {}
    for path in sorted(directory.iterdir()):
        if path.name in known:
            records[path.name] = known[path.name]
        elif path.name != MANIFEST_FILE:
            with path.open("rb") as file:
                records[path.name] = FileRecord(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())
    return records


def write_manifest(manifest: Manifest, directory: Path) -> None:
    """Write the manifest, last of all files."""
    (directory / MANIFEST_FILE).write_text(manifest_to_json(manifest), encoding="utf-8")


def write_card(text: str, directory: Path) -> None:
    """Write the bundle's README.md. Its last line, a comment, tells later whether it is still the same."""
    (directory / CARD_FILE).write_bytes(sealed(text).encode())


def sealed(text: str) -> str:
    """A card's text with its last line."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"{text}\n<!-- written by igpt-export; sha256 of what is above: {digest} -->\n"


def is_card(path: Path) -> bool:
    """Whether a file is a card that an export has written, and that nobody has changed."""
    try:
        text = read_regular(path, MAX_MANIFEST_BYTES).decode()
    except (OSError, ValueError):
        return False
    return text == sealed(text[: -len(sealed(""))])
