"""Heads of widths that ONNX Runtime's attention kernel does not take: refused with a cure, and right with it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from igpt_export.checkpoint.checkpoint import load_checkpoint
from igpt_export.export import ExportOptions, export_bundle
from igpt_export.precision.precision import Precision
from igpt_runtime.engine.generate import GenerationOptions, generate_all
from igpt_runtime.engine.session import open_session
from igpt_runtime.errors import OptionError

Greedy = Callable[[Path, np.ndarray], np.ndarray]
GREEDY = GenerationOptions(n=2, temperature=0.0)


@pytest.mark.parametrize(
    ("n_embd", "n_head"),
    [(20, 4), pytest.param(24, 2, marks=pytest.mark.slow), pytest.param(3, 3, marks=pytest.mark.slow)],
    ids=["5 wide", "12 wide", "1 wide"],
)
def test_portable_graphs(
    write_checkpoint: Callable[..., Path], transformers_greedy: Greedy, tmp_path: Path, n_embd: int, n_head: int
) -> None:
    directory = write_checkpoint(fields={"n_embd": n_embd, "n_head": n_head})
    checkpoint = load_checkpoint(directory)
    with pytest.raises(OptionError, match=rf"n_embd {n_embd} / n_head {n_head} = {n_embd // n_head}; add --portable"):
        export_bundle(checkpoint, tmp_path / "bundle")
    export_bundle(checkpoint, tmp_path / "bundle", ExportOptions(profile="portable", embed=True))
    session = open_session(tmp_path / "bundle")
    primer = np.arange(6)
    expected = transformers_greedy(directory, primer)
    assert np.array_equal(generate_all(session, primer, GREEDY), [expected, expected])
    # Ones that begin with nothing share their cache, too.
    drawn = generate_all(session, primer[:0], GenerationOptions(n=3, seed=1))
    assert drawn.shape == (3, 16)


def test_in_integers(write_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    checkpoint = load_checkpoint(write_checkpoint(fields={"n_embd": 48, "n_head": 4}))
    options = ExportOptions(Precision("int8", "int8"), profile="portable", max_loss_increase=float("inf"))
    export_bundle(checkpoint, tmp_path / "bundle", options)
    drawn = generate_all(open_session(tmp_path / "bundle"), np.arange(6), GREEDY)
    assert drawn.shape == (2, 16) and np.array_equal(drawn[0], drawn[1])
