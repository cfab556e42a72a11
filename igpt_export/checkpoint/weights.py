"""The weight files of a Hugging Face checkpoint directory, opened without reading the tensors.

Tensors of safetensors files are read one by one; `.bin` files are memory-mapped.
"""

import hashlib
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from igpt_export.checkpoint.pickles import read_state_dict
from igpt_export.checkpoint.problems import listed, one_line, read_json, refuse
from igpt_runtime.regular import placeholder

# Names of weight files, the preferred first: one file, or an index of shards.
SAFETENSORS_NAMES = ("model.safetensors", "model.safetensors.index.json")
BIN_NAMES = ("pytorch_model.bin", "pytorch_model.bin.index.json")

# The dtypes that are read, by the names of safetensors' format.
STORED_DTYPES = {
    **{"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64},
    **{"I8": torch.int8, "U8": torch.uint8},
}
FLOAT_DTYPES = ("F16", "BF16", "F32", "F64")
DTYPE_NAMES = {dtype: name for name, dtype in STORED_DTYPES.items()}

_DOWNLOAD_AGAIN = "download the checkpoint again"
_LONGEST_POINTER = 200  # bytes read of a file to tell a pointer of Git LFS from weights


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a weight file."""

    name: str  # there
    shape: tuple[int, ...]
    dtype: str  # safetensors' name for a float dtype, else any text
    read: Callable[[], Tensor]  # the tensor as stored


def find_weights(directory: Path) -> list[Path]:
    """The weight files of `directory`, shards in the order of their names.

    Raises CheckpointError if there are none, or if an index of shards is damaged, names a missing file or leads out of
    the directory.
    """
    path = _main_file(directory)
    return sorted({path.with_name(shard) for shard in _weight_map(path).values()}) if _is_index(path) else [path]


def open_weights(directory: Path) -> dict[str, StoredTensor]:
    """Every tensor of the checkpoint in `directory` by its stored name; none is read yet.

    Raises CheckpointError as `find_weights` does, for a damaged file, and if index and shards disagree.
    """
    stored: dict[str, StoredTensor] = {}
    found: dict[str, str] = {}  # tensor name -> file name, as the index should say
    problems = []
    for path in find_weights(directory):
        tensors = open_safetensors(path) if path.suffix == ".safetensors" else _open_bin(path)
        problems += [f"{name} is both in {found[name]} and in {path.name}" for name in tensors if name in found]
        stored.update(tensors)
        found.update(dict.fromkeys(tensors, path.name))
    if _is_index(index := _main_file(directory)):
        promised = _weight_map(index)
        problems += [f"{name} is not in {promised[name]}" for name in promised if found.get(name) != promised[name]]
        problems += [f"{name} of {found[name]} is not in the index" for name in found if name not in promised]
    if problems:
        refuse(str(directory), [f"index and shards disagree: {listed(problems)}"], _DOWNLOAD_AGAIN)
    return stored


def hash_weights(paths: Sequence[Path]) -> str:
    """SHA-256, in hex, of weight files one after the other (of one file: the hash that the Hub shows)."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
        except OSError as error:
            refuse(str(path), [f"cannot be read: {error.strerror}"], "check the file and its permissions")
    return digest.hexdigest()


def _main_file(directory: Path) -> Path:
    """The weight file or the index of shards that counts."""
    for name in (*SAFETENSORS_NAMES, *BIN_NAMES):
        if (directory / name).is_file():
            return directory / name
    names = ", ".join((*SAFETENSORS_NAMES, *BIN_NAMES))
    refuse(str(directory), [f"no weights (looked for {names})"], "name the directory that holds the checkpoint")


def _is_index(path: Path) -> bool:
    return path.suffix == ".json"


def _weight_map(path: Path) -> dict[str, str]:
    """The index `path`: tensor name -> shard file name."""
    shards = read_json(path).get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(isinstance(shard, str) for shard in shards.values()):
        refuse(str(path), ["weight_map does not map tensor names to file names"], _DOWNLOAD_AGAIN)
    suffix = ".safetensors" if path.name in SAFETENSORS_NAMES else ".bin"
    names = sorted(set(shards.values()))
    # A plain file name cannot leave the directory. Links are followed: the Hub's cache consists of them.
    strange = [n for n in names if "/" in n or "\\" in n or ":" in n or not n.isprintable() or not n.endswith(suffix)]
    if strange:
        refuse(str(path), [f"not the name of a {suffix} file beside it: {listed(strange)}"], _DOWNLOAD_AGAIN)
    missing = [name for name in names if not path.with_name(name).is_file()]
    if missing:
        refuse(str(path), [f"missing shards: {listed(missing)}"], _DOWNLOAD_AGAIN)
    return shards


def open_safetensors(path: Path) -> dict[str, StoredTensor]:
    """The tensors of one file by their names; none is read yet. Raises CheckpointError for a damaged file."""
    _check_readable(path)
    try:
        # NumPy's: torch's would map the file in one writable piece, which systems refuse beyond their memory.
        file: Any = safe_open(path, framework="np")
        names = list(file.keys())  # safetensors has checked the header now
        with path.open("rb") as raw:
            (length,) = struct.unpack("<Q", raw.read(8))
            header = json.loads(raw.read(length))
    except (SafetensorError, OSError) as error:
        refuse(str(path), [f"damaged or truncated: {one_line(error)}"], _DOWNLOAD_AGAIN)
    stored = {}
    for name in names:
        dtype, shape, (begin, _) = (header[name][key] for key in ("dtype", "shape", "data_offsets"))
        read = partial(_read_safetensors, path, name, dtype, tuple(shape), 8 + length + begin)
        stored[name] = StoredTensor(name, tuple(shape), dtype, read)
    return stored


def _read_safetensors(path: Path, name: str, dtype: str, shape: tuple[int, ...], place: int) -> Tensor:
    """A tensor at a place in a file: read, as pages of a mapping would come in one by one."""
    tensor = torch.empty(shape, dtype=STORED_DTYPES[dtype])
    left = tensor.reshape(-1).view(torch.uint8).numpy().data
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(place)
            while left:
                count = file.readinto(left)
                if not count:
                    refuse(str(path), [f"ends within {name}; it has changed"], _DOWNLOAD_AGAIN)
                left = left[count:]
    except OSError as error:
        refuse(str(path), [f"{name} cannot be read: {error.strerror}"], "check the file and its disk")
    return tensor


def _open_bin(path: Path) -> dict[str, StoredTensor]:
    _check_readable(path)
    state = read_state_dict(path)
    return {name: StoredTensor(name, tuple(t.shape), _dtype_name(t), partial(_itself, t)) for name, t in state.items()}


def _itself(tensor: Tensor) -> Tensor:
    return tensor.detach()


def _dtype_name(tensor: Tensor) -> str:
    dense = tensor.layout == torch.strided and tensor.device.type == "cpu"
    return DTYPE_NAMES.get(tensor.dtype, str(tensor.dtype)) if dense else f"{tensor.layout} on {tensor.device.type}"


def _check_readable(path: Path) -> None:
    """Raise CheckpointError if a file cannot be opened or plainly holds no weights."""
    try:
        with path.open("rb") as file:
            start = file.read(_LONGEST_POINTER)
    except OSError as error:
        refuse(str(path), [f"cannot be read: {error.strerror}"], "check the file and its permissions")
    if stands_for := placeholder(start):
        what, remedy = stands_for.split("; ")
        refuse(str(path), [what], remedy)
