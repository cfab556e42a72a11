"""Files of torch.save: looked at before they are unpickled, and read by torch's restricted unpickler only.

torch's unpickler calls nothing that runs code. But a small pickle can still make it fill the memory, for instance with
many copies of one long text, and torch looks at no checksum of a zip file. So a pickle may call only what a state dict
consists of, and a zip file is read once to compare its checksums.
"""

import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from igpt_export.checkpoint.problems import listed, one_line, refuse
from igpt_runtime.errors import CheckpointError

_DOWNLOAD_AGAIN = "download the checkpoint again"
_STATE_DICT = "save model.state_dict() there"
_ZIP = b"PK\x03\x04"  # torch's format since 1.6
_LEGACY_PICKLES = 5  # before the tensors of the older format: magic number, version, system, state dict, tensors' names

# What a state dict is made of, as pickles name it: "module name".
_PARTS = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_\w+|torch(\.storage)? \w+Storage|torch\.nn\.parameter Parameter"
    r"|torch (Size|device|b?float\d+\w*|u?int\d+|bool|qu?int\d+|per_\w+|strided|sparse\w*)"
    r"|torch\.serialization _get_layout"
)
_MOST_PICKLE = 8 << 20  # bytes; the largest published model needs a tenth of one million
_MOST_CALLS = 1 << 17  # in a pickle; there is one for each tensor, and one for its number of bytes


def read_state_dict(path: Path) -> Mapping[str, Tensor]:
    """The tensors in a file of torch.save, memory-mapped if it is a zip file.

    Raises CheckpointError if it is damaged, holds something else than a dict of tensors, or would take more memory than
    the file itself.
    """
    with path.open("rb") as file:
        mapped = file.read(len(_ZIP)) == _ZIP
    try:
        if mapped:
            _check_zip(path)
        else:
            with path.open("rb") as file:
                for _ in range(_LEGACY_PICKLES):
                    _check_pickle(path, file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's notes on old pickles are not for the user
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        fact = f"not a state dict, or damaged: {one_line(str(error).split('.')[0])}"
        refuse(str(path), [fact], f"{_DOWNLOAD_AGAIN}, or {_STATE_DICT}")
    except Exception as error:  # a damaged file makes torch raise almost anything
        refuse(str(path), [f"damaged or truncated: {one_line(error) or type(error).__name__}"], _DOWNLOAD_AGAIN)
    if not isinstance(state, Mapping) or not state:
        refuse(str(path), [f"holds a {type(state).__name__}, not a state dict"], _STATE_DICT)
    wrong = [str(name) for name, value in state.items() if not isinstance(name, str) or not isinstance(value, Tensor)]
    if wrong:
        refuse(str(path), [f"not a state dict: {listed(wrong)} is not a tensor"], _STATE_DICT)
    _check_sizes(path, state)
    return state


def _check_zip(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        packed = [member.filename for member in members if member.compress_type != zipfile.ZIP_STORED]
        if packed:
            refuse(
                str(path), [f"holds compressed parts, which torch.save does not write: {listed(packed)}"], _STATE_DICT
            )
        if sum(member.file_size for member in members) > path.stat().st_size:
            refuse(str(path), ["damaged: its parts are larger than the file"], _DOWNLOAD_AGAIN)
        wrong = archive.testzip()
        if wrong is not None:
            remedy = f"{_DOWNLOAD_AGAIN}, or save it anew if it was saved without checksums"
            refuse(str(path), [f"damaged: the checksum of {one_line(wrong)} does not fit"], remedy)
        for member in members:
            if member.filename.endswith(".pkl"):
                with archive.open(member) as file:
                    _check_pickle(path, file)


def _check_pickle(path: Path, file: IO[bytes]) -> None:
    """Look at one pickle of a file up to its end, without running it."""
    calls, strange = 0, []
    for operation, argument, position in pickletools.genops(file):
        if position is not None and position > _MOST_PICKLE:
            refuse(str(path), ["describes more tensors than a model can have"], _STATE_DICT)
        calls += operation.name == "REDUCE"
        if operation.name == "GLOBAL" and not _PARTS.fullmatch(str(argument)):
            strange.append(str(argument).replace(" ", "."))
    if strange:
        refuse(str(path), [f"not a state dict: it also holds {listed(sorted(set(strange)))}"], _STATE_DICT)
    if calls > _MOST_CALLS:
        refuse(str(path), ["describes more tensors than a model can have"], _STATE_DICT)


def _check_sizes(path: Path, state: Mapping[str, Tensor]) -> None:
    """Refuse tensors that repeat a few values, so that they are larger than the file."""
    dense = [tensor for tensor in state.values() if tensor.layout == torch.strided]
    total, size = sum(tensor.nbytes for tensor in dense), path.stat().st_size
    if total > 4 * size:  # tied weights are there twice
        refuse(str(path), [f"its tensors have {total:,} bytes, the file {size:,}"], _STATE_DICT)
