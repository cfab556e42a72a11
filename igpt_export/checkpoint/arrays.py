"""Files in NumPy's formats, as others have made them."""

import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from igpt_runtime.engine.memory import available_memory
from igpt_runtime.regular import open_regular

Array = npt.NDArray[Any]

# What NumPy raises for files that are damaged, or not its own.
_RAISED = (
    OSError, ValueError, TypeError, AttributeError, EOFError, SyntaxError, MemoryError, zipfile.BadZipFile, zlib.error,
    tokenize.TokenError, NotImplementedError, RuntimeError,
)  # fmt: skip
_SMALL = 1 << 26  # bytes that an archive may unpack to whatever it has
_MOST_TIMES = 200  # times its size that it may unpack to beyond; flat drawings reach some tens


class DamagedArrayError(ValueError):
    """A file is no array of NumPy, or not a whole one."""


def read_array(path: Path) -> Array:
    """The array in a `.npy` file. Raises OSError, DamagedArrayError."""
    with _loaded(path) as found:
        if not isinstance(found, np.ndarray):
            raise DamagedArrayError("an archive of arrays")
        return found


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, Array]:
    """Those arrays of some names that a `.npz` file holds. Raises OSError, DamagedArrayError."""
    with _loaded(path) as found:
        if isinstance(found, np.ndarray):
            raise DamagedArrayError("a single array")
        _check_size(found.zip, names)
        return {name: found[name] for name in names if name in found}


def _check_size(archive: zipfile.ZipFile, names: Sequence[str]) -> None:
    """Raise DamagedArrayError if some arrays of an archive unpack to more than they can be, or than fits."""
    wanted = {f"{name}.npy" for name in names}
    parts = [part for part in archive.infolist() if part.filename in wanted]
    size, packed = sum(part.file_size for part in parts), sum(part.compress_size for part in parts)
    if size > _SMALL and size > _MOST_TIMES * packed:
        raise DamagedArrayError(f"{packed:,} bytes that unpack to {size:,}, which no data does")
    available = available_memory()
    if available is not None and size > available:
        raise DamagedArrayError(f"its arrays have {size / 1e9:.2f} GB, and {available / 1e9:.2f} GB are available")


@contextmanager
def _loaded(path: Path) -> Iterator[Any]:
    """What NumPy finds in a file, while it is open."""
    with open_regular(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # notes on headers of Python 2 are not for the user
        try:
            yield np.load(file, allow_pickle=False)
        except _RAISED as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise DamagedArrayError(reason) from error
