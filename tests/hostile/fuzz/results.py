"""Files that commands write, compared by what they say."""

import hashlib
import json
from pathlib import Path

_UNSTEADY = {"seconds", "tokens_per_second", "probe"}  # keys of records: times, and paths


def contents(directory: Path) -> dict[str, str]:
    """For each file below a directory its path, and a hash of what it says. Raises ValueError for a damaged one."""
    paths = (path for path in sorted(directory.rglob("*")) if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(directory)): said(path) for path in paths}


def said(path: Path) -> str:
    """A hash of what a file says. Raises ValueError for a damaged one."""
    kinds = {".npz": _arrays, ".parquet": _table, ".png": _pixels, ".gif": _pixels, ".json": _record}
    try:
        text = kinds.get(path.suffix, Path.read_bytes)(path)
    except Exception as error:
        raise ValueError(f"{path.name} is not whole ({type(error).__name__})") from error
    return hashlib.sha256(text).hexdigest()


def _arrays(path: Path) -> bytes:
    import numpy as np

    with np.load(path) as found:  # the file itself has the time at which it was written
        return b"".join(
            name.encode() + found[name].dtype.str.encode() + found[name].tobytes() for name in sorted(found)
        )


def _table(path: Path) -> bytes:
    from pyarrow import parquet

    return repr(parquet.read_table(path).to_pydict()).encode()


def _pixels(path: Path) -> bytes:
    from PIL import Image

    with Image.open(path) as image:
        frames = getattr(image, "n_frames", 1)
        for frame in range(frames):
            image.seek(frame)
            image.load()
    return path.read_bytes()


def _record(path: Path) -> bytes:
    record = json.loads(path.read_bytes())
    return json.dumps({key: value for key, value in record.items() if key not in _UNSTEADY}).encode()
