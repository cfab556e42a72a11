"""The graph with which a cache begins on a device, which is written without the onnx package."""

import numpy as np
import onnx
import onnxruntime
import pytest

from igpt_runtime.bundle.repeating_graph import FILLED, PADS, ROW, SHAPE, repeating_graph


def test_it_is_a_valid_graph() -> None:
    onnx.checker.check_model(onnx.load_from_string(repeating_graph()), full_check=True)


@pytest.mark.parametrize(("rows", "length", "capacity"), [(1, 1, 1), (3, 5, 9), (200, 1, 300)])
def test_rows_begin_alike_and_end_in_zeros(rows: int, length: int, capacity: int) -> None:
    row = np.random.default_rng(0).normal(size=(1, 2, length, 3)).astype(np.float16)
    shape, pads = np.array([rows, 2, capacity, 3]), np.array([0] * 6 + [capacity - length, 0])
    session = onnxruntime.InferenceSession(repeating_graph(), providers=["CPUExecutionProvider"])
    (filled,) = session.run([FILLED], {ROW: row, SHAPE: shape, PADS: pads})
    assert filled.dtype == np.float16 and filled.shape == (rows, 2, capacity, 3)
    assert (filled[:, :, :length] == row).all() and not filled[:, :, length:].any()
