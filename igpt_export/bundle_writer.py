"""Writes a bundle directory that is either complete or not there."""

import contextlib
import errno
import functools
import hashlib
import itertools
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch

from igpt_export.checkpoint.tensors import ShapedTensors
from igpt_export.checkpoint.weights import DTYPE_NAMES
from igpt_runtime.bundle.manifest import (
    MANIFEST_FILE,
    MAX_MANIFEST_BYTES,
    WEIGHTS_FILE,
    FileRecord,
    Manifest,
    manifest_to_json,
)
from igpt_runtime.engine.background import Task
from igpt_runtime.engine.session import return_freed_memory
from igpt_runtime.errors import OutputError
from igpt_runtime.progress import SILENT, Progress
from igpt_runtime.regular import read_regular

_WIDEST_FIRST = (torch.float32, torch.float16, torch.int8, torch.uint8)


@contextlib.contextmanager
def bundle_directory(output: Path, *, force: bool) -> Iterator[Path]:
    """A staging directory that becomes `output` when the block ends well, and vanishes when it does not.

    force: replace an existing bundle (and only a bundle, or an empty directory).

    Raises:
        OutputError: `output` exists, is no bundle, or cannot be written; the disk is full.
    """
    _check_replaceable(output, force)
    staging = None
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{output.name}.partial-", dir=output.parent))
        yield staging
        _replace(staging, output, force)
    except OSError as error:
        raise OutputError(_describe(error, output)) from error
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)


def _check_replaceable(output: Path, force: bool) -> None:
    if not output.exists() and not output.is_symlink():
        return
    if not force:
        raise OutputError(f"{output} exists; add --force to replace it, or choose another --output")
    replaceable = output.is_dir() and not output.is_symlink()
    if not replaceable or (any(output.iterdir()) and not _is_bundle(output)):
        raise OutputError(f"{output} exists and is not a bundle; --force does not replace it, choose another --output")


def _is_bundle(directory: Path) -> bool:
    """Whether a directory holds our manifest, whole or damaged; other programs have a manifest.json too."""
    try:
        record = json.loads(read_regular(directory / MANIFEST_FILE, MAX_MANIFEST_BYTES))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(record, dict) and record.keys() >= {"format_version", "sampling_version", "graphs"}


def _replace(staging: Path, output: Path, force: bool) -> None:
    """Put the staging directory in place; an old bundle is moved aside first, as a directory cannot be overwritten."""
    _check_replaceable(output, force)  # again: something may have appeared while we worked
    umask = os.umask(0)
    os.umask(umask)
    staging.chmod(0o777 & ~umask)  # mkdtemp makes private directories
    for path in staging.iterdir():
        if path.stat().st_nlink == 1:  # not what the user has elsewhere too
            path.chmod(0o666 & ~umask)
    if not output.exists():
        staging.rename(output)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{output.name}.old-", dir=output.parent))
    try:
        output.rename(old / output.name)
        staging.rename(output)
    finally:
        if not output.exists():  # interrupted between the two
            (old / output.name).rename(output)
        shutil.rmtree(old, ignore_errors=True)


def _describe(error: OSError, output: Path) -> str:
    where = error.filename or output
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left on the disk of {output}; free some or choose another --output"
    return f"cannot write {where}: {error.strerror or error}; choose another --output"


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
