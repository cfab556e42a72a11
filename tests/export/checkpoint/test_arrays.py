"""Files of NumPy that are damaged: whatever NumPy raises, and whatever it warns of."""

import io
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest

from igpt_export.checkpoint import arrays
from igpt_export.checkpoint.arrays import DamagedArrayError, read_array, read_arrays

HEADER = b"\x93NUMPY\x01\x00v\x00"


def written(value: object, **arrays: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, value) if not arrays else np.savez(buffer, **arrays)
    return buffer.getvalue()


def test_what_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(written(np.arange(3)))
    assert read_array(path).tolist() == [0, 1, 2]
    path.write_bytes(written(None, a=np.arange(3), b=np.arange(2)))
    assert list(read_arrays(path, ("b", "c"))) == ["b"]


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (3,", b"(" * 80, b"{'descr': '<f4', 'shape': (3L,)}",
        b"\0" * 40,
        b"{'descr': '|O', 'fortran_order': False, 'shape': (3,), }", b"'''",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999,), }",
    ],
)  # fmt: skip
def test_headers(header: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(HEADER + header.ljust(117) + b"\n" + bytes(12))
    with pytest.raises(DamagedArrayError) as caught:
        read_array(path)
    assert "\n" not in str(caught.value)


def test_every_byte_may_be_wrong(tmp_path: Path) -> None:
    rng, path = random.Random(0), tmp_path / "x"
    for whole in (written(np.zeros((4, 3), np.float32)), written(None, a=np.zeros(9), b=np.array("text"))):
        for place in range(len(whole)):
            damaged = bytearray(whole)
            damaged[place] = rng.randrange(256)
            path.write_bytes(damaged)
            for read in (read_array, lambda path: read_arrays(path, ("a", "b"))):
                try:
                    read(path)
                except DamagedArrayError as error:
                    assert "\n" not in str(error)


def test_one_for_the_other(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(written(np.zeros(3)))
    with pytest.raises(DamagedArrayError, match="a single array"):
        read_arrays(path, ("a",))
    path.write_bytes(written(None, a=np.zeros(3)))
    with pytest.raises(DamagedArrayError, match="an archive of arrays"):
        read_array(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY")
    with pytest.raises(DamagedArrayError):
        read_arrays(path, ("a",))


def test_archives_that_unpack_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, a=np.zeros(65 << 20, np.uint8), b=np.arange(3))
    with pytest.raises(DamagedArrayError, match="bytes that unpack to 68,157"):
        read_arrays(path, ("a",))
    assert list(read_arrays(path, ("b",))) == ["b"]
    np.savez(path, a=np.zeros(3 << 20, np.uint8))
    monkeypatch.setattr(arrays, "available_memory", lambda: 1 << 20)
    with pytest.raises(DamagedArrayError, match=r"its arrays have 0.00 GB, and 0.00 GB are available"):
        read_arrays(path, ("a",))
