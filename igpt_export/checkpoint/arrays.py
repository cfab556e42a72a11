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

from igpt_runtime.regular import open_regular

Array = npt.NDArray[Any]

# What NumPy raises for files that are damaged, or not its own.
_RAISED = (
    OSError, ValueError, TypeError, AttributeError, EOFError, SyntaxError, MemoryError, zipfile.BadZipFile, zlib.error,
    tokenize.TokenError, NotImplementedError, RuntimeError,
)  # fmt: skip


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
        return {name: found[name] for name in names if name in found}


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
