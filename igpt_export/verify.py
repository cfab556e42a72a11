"""Compares a written bundle with the torch model it came from: prefill, and a decode that lives on its cache."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from igpt_export.checkpoint import Checkpoint, build_model
from igpt_runtime import names
from igpt_runtime.cache import new_cache
from igpt_runtime.errors import VerificationError
from igpt_runtime.generate import DecodeStep, GenerationOptions
from igpt_runtime.session import open_session

Array = npt.NDArray[np.float32]

# Differences are judged relative to the largest reference value once that exceeds 1.
TOLERANCE = 1e-4
_SEQUENCE = 64  # positions compared
_STEPS = 8  # of them, how many the decode graph takes one by one
_ROWS = 2


def verify_bundle(directory: Path, checkpoint: Checkpoint) -> dict[str, float]:
    """Run the bundle in `directory` on ONNX Runtime and its checkpoint in torch, on the same random tokens.

    Returns the largest absolute difference of logits (of features where there is no language-model head) for prefill
    and for decode, with what was compared.

    Raises:
        VerificationError: a difference is above tolerance, or is not a number.
    """
    config = checkpoint.config
    sequence = min(_SEQUENCE, config.n_positions)
    tokens = np.random.default_rng(0).integers(0, config.n_clusters, (_ROWS, sequence))
    expected = _reference(checkpoint, tokens)
    session = open_session(directory, device="cpu")
    outputs = session.graph(names.PREFILL).run(list(expected), {names.INPUT_IDS: tokens})
    differences = [_difference(expected[name], value, name) for name, value in zip(expected, outputs, strict=True)]
    report = {"prefill_max_abs_diff": differences[0], "tolerance": TOLERANCE, "sequence": float(sequence)}
    if names.DECODE in session.manifest.graphs:
        del session  # one packed copy of the weights at a time
        report["decode_max_abs_diff"] = _verify_decode(directory, tokens, expected[names.LOGITS])
    return report


@torch.no_grad()
def _reference(checkpoint: Checkpoint, tokens: npt.NDArray[np.int64]) -> dict[str, Array]:
    """What torch makes of the checkpoint; logits first, if the model has them."""
    model = build_model(checkpoint)
    last, hidden_states, _ = model(torch.from_numpy(tokens))
    features = torch.stack([hidden.mean(1) for hidden in hidden_states], dim=1)
    expected = {} if model.lm_head is None else {names.LOGITS: model.lm_head(last)}
    expected[names.FEATURES] = features
    if model.classifier is not None and checkpoint.classifier is not None:
        expected[names.CLASS_LOGITS] = model.classifier(features[:, checkpoint.classifier.layer])
    return {name: value.numpy() for name, value in expected.items()}


def _verify_decode(directory: Path, tokens: npt.NDArray[np.int64], expected: Array) -> float:
    """Feed most tokens at once, the rest one by one. `expected` are the logits of every position."""
    session = open_session(directory, device="cpu")
    worst = 0.0
    split = max(1, tokens.shape[1] - _STEPS)
    for row, row_tokens in enumerate(tokens):
        step = DecodeStep(session, new_cache(session.manifest.config, 1), GenerationOptions(n=1), with_logits=True)
        step(row_tokens[None, :split], 0, np.zeros(1, np.float32))
        for position in range(split - 1, tokens.shape[1]):
            if position >= split:
                step(row_tokens[None, position : position + 1], position, np.zeros(1, np.float32))
            worst = max(worst, _difference(expected[row, position][None], step.logits(), "decode logits"))
    return worst


def _difference(expected: Array, actual: Array, what: str) -> float:
    difference = float(np.abs(expected - actual).max())
    limit = TOLERANCE * max(1.0, float(np.abs(expected).max()))
    if not difference <= limit:
        raise VerificationError(
            f"the exported graphs disagree with torch: {what} differ by {difference:.2g} (allowed {limit:.2g}); "
            "nothing was kept - please report this checkpoint"
        )
    return difference
