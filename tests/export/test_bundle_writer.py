"""The streaming writer makes the file that safetensors itself makes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from igpt_export.bundle_writer import write_weights
from igpt_export.checkpoint.tensors import ShapedTensors
from igpt_runtime.bundle.directory import WEIGHTS_FILE
from igpt_runtime.progress import Progress


class Given(ShapedTensors):
    """Tensors that are there, of the shapes that they have unless others are claimed."""

    def __init__(self, tensors: dict[str, torch.Tensor], claimed: Any = None) -> None:
        super().__init__(claimed or {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()})
        self._tensors = tensors

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._tensors[name]


def test_file_is_that_of_safetensors(tmp_path: Path) -> None:
    tensors = {
        "z.weight": torch.arange(6, dtype=torch.int8).reshape(2, 3),
        "a.scale": torch.tensor(0.5),
        "m.zero": torch.tensor(7, dtype=torch.uint8),
        "b": torch.randn(3, 4),
        "empty": torch.empty(0, 4),
        "h": torch.randn(2).half(),
        "view": torch.randn(4, 3).t(),
    }
    counts: list[tuple[int, int]] = []

    class Counts(Progress):
        def count(self, done: int, total: int, unit: str) -> None:
            assert unit == "bytes"
            counts.append((done, total))

    write_weights(Given(tensors), tmp_path, Counts())
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "theirs")
    assert (tmp_path / WEIGHTS_FILE).read_bytes() == (tmp_path / "theirs").read_bytes()
    assert load_file(tmp_path / WEIGHTS_FILE).keys() == tensors.keys()
    assert [done for done, _ in counts] == sorted(done for done, _ in counts)
    assert counts[-1] == (sum(t.nbytes for t in tensors.values()),) * 2


def test_tensors_are_read_one_at_a_time(tmp_path: Path) -> None:
    class Once(ShapedTensors):
        def __getitem__(self, name: str) -> torch.Tensor:
            read.append(name)
            return torch.zeros(2)

    read: list[str] = []
    shapes = dict.fromkeys("ba", (torch.float32, (2,)))
    write_weights(Once(shapes), tmp_path)
    assert read == ["a", "b"]


def test_a_tensor_of_another_shape_is_a_bug(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="a"):
        write_weights(Given({"a": torch.zeros(3)}, {"a": (torch.float32, (2,))}), tmp_path)
