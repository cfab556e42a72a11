"""Files of features: NumPy's `.npz`, and `.parquet` with pyarrow."""

import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from igpt_runtime.errors import DeviceError, OptionError
from igpt_runtime.files import atomic_path, check_stdout_open
from igpt_runtime.pictures.folder import label_of, valid_text

SUFFIXES = (".npz", ".parquet")
_ROWS = 1024  # written at once


def feature_suffix(path: str) -> str:
    """The suffix that says how features are written; standard output gets `.npz`. Raises OptionError for another one.

    Raises DeviceError if pyarrow is needed and not there.
    """
    suffix = ".npz" if path == "-" else Path(path).suffix
    if suffix not in SUFFIXES:
        raise OptionError(f"features are written as {' or '.join(SUFFIXES)}; give -o such a name, not {path!r}")
    if suffix == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise DeviceError(
                f"writing .parquet needs pyarrow ({error}); run: pip install pyarrow, or write .npz"
            ) from error
    return suffix


def write_features(
    output: str, values: npt.NDArray[np.float32], images: Sequence[str], request: Mapping[str, Any], *,
    force: bool = True,
) -> None:  # fmt: skip
    """Write features [images, layers, n_embd] to a path, whole or not at all, or to stdout if it is -.

    `.npz`: arrays `features`, `layers`, `images`, `labels` (the directory of each), `protocol`, `model`. `.parquet`:
    columns `image`, `label` and, for each layer i, `layer_i`, a list of n_embd float32; model and protocol are metadata
    of its schema. request: see `igpt_runtime.tasks.feature_store.feature_request`. force: overwrite a file.

    Raises OutputError.
    """
    if output == "-":
        check_stdout_open()
        _write_npz(sys.stdout.buffer, values, images, request)
        return
    with atomic_path(output, force=force) as temporary:
        if feature_suffix(output) == ".parquet":
            _write_parquet(temporary, values, images, request)
        else:
            with temporary.open("wb") as file:
                _write_npz(file, values, images, request)


def _write_npz(
    file: IO[bytes], values: npt.NDArray[np.float32], images: Sequence[str], request: Mapping[str, Any]
) -> None:
    arrays = {
        "layers": np.array(request["layers"]),
        "images": np.array(images),
        "labels": np.array([label_of(image) for image in images]),
        "protocol": np.array(request["protocol"]),
        "model": np.array(request["model"]),
    }
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array)
        with archive.open("features.npy", "w", force_zip64=True) as member:  # by parts: it may not fit memory
            header = {"descr": "<f4", "fortran_order": False, "shape": values.shape}
            np.lib.format.write_array_header_1_0(member, header)
            for start in range(0, len(values), _ROWS):
                member.write(values[start : start + _ROWS].astype("<f4").tobytes())


def _write_parquet(
    path: Path, values: npt.NDArray[np.float32], images: Sequence[str], request: Mapping[str, Any]
) -> None:
    import pyarrow
    from pyarrow import parquet

    width = values.shape[2]
    vector = pyarrow.list_(pyarrow.float32(), width)
    columns = [(f"layer_{layer}", vector) for layer in request["layers"]]
    metadata = {key: str(request[key]) for key in ("model", "protocol")}
    schema = pyarrow.schema([("image", pyarrow.string()), ("label", pyarrow.string()), *columns], metadata=metadata)
    with parquet.ParquetWriter(path, schema) as writer:
        for start in range(0, len(values), _ROWS):
            part = slice(start, start + _ROWS)
            texts = [[valid_text(image) for image in images[part]], [valid_text(label_of(i)) for i in images[part]]]
            vectors = [
                pyarrow.FixedSizeListArray.from_arrays(np.ascontiguousarray(values[part, i]).reshape(-1), width)
                for i in range(values.shape[1])
            ]
            writer.write_table(pyarrow.table([*(pyarrow.array(text) for text in texts), *vectors], schema=schema))
