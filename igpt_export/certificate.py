"""What a bundle's precision costs, measured on the written graphs against the float model, picture by picture."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from igpt_export.calibration import Observation, Pictures, shifted
from igpt_export.overflow import check_finite
from igpt_runtime import names
from igpt_runtime.cache import new_cache
from igpt_runtime.errors import VerificationError
from igpt_runtime.generate import DecodeStep, GenerationOptions
from igpt_runtime.session import Session, open_session

Array = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int64]
Progress = Callable[[int, int], None]  # called with the number of steps done and of all

_TOKENS = 4096  # of each kind of pictures that are decoded, about


@dataclass(frozen=True)
class Loss:
    """Two models compared over the tokens of some pictures; means over all tokens, in nats."""

    pictures: int
    nats_per_token_fp32: float  # cross-entropy of the float model
    nats_per_token: float  # of the bundle
    increase: float  # the difference
    kl_divergence: float  # of the bundle's next-token distribution from the float model's
    top1_agreement: float  # share of tokens at which both think the same token likeliest


@dataclass(frozen=True)
class Certificate:
    """The precision certificate of a bundle that is not fp32."""

    pictures: str  # what they were
    prefill: dict[str, Loss]  # by "calibration" and "held_out": the prefill graph
    decode: dict[str, Loss]  # likewise: the decode graph step by step, living on its own cache
    largest_activation: tuple[float, ...]  # by block, of the float model; fp16 overflows at 65504

    def record(self) -> dict[str, Any]:
        """As the manifest holds it."""
        return asdict(self)


def certify(
    directory: Path, pictures: Pictures, observation: Observation, expected: Array, progress: Progress
) -> Certificate:
    """Measure the bundle in `directory`.

    expected: the float model's logits of all pictures, calibration pictures first, [pictures, n_positions, n_clusters].
    """
    session = open_session(directory, device="cpu")
    n_positions = session.manifest.config.n_positions
    count = max(1, _TOKENS // n_positions)
    split = len(pictures.calibration)
    chosen = {
        "calibration": np.arange(split)[:count],
        "held_out": np.arange(split, split + len(pictures.held_out))[:count],
    }
    tokens = np.concatenate([pictures.calibration, pictures.held_out])
    rows = np.concatenate(list(chosen.values()))
    prefilled = _prefill_logits(session, tokens[rows])
    decoded = _decode_logits(session, tokens[rows], progress)
    if session.manifest.precision == "fp16":
        check_finite(prefilled, "prefill logits")
        check_finite(decoded, "decode logits")
    reference = expected[rows]
    parts = {"calibration": slice(0, len(chosen["calibration"])), "held_out": slice(len(chosen["calibration"]), None)}
    return Certificate(
        pictures=pictures.source,
        prefill={k: compare(reference[part], prefilled[part], tokens[rows][part]) for k, part in parts.items()},
        decode={k: compare(reference[part], decoded[part], tokens[rows][part]) for k, part in parts.items()},
        largest_activation=tuple(observation.largest[block] for block in sorted(observation.largest)),
    )


def check_loss(certificate: Certificate, limit: float) -> None:
    """Raise VerificationError if either graph loses more than `limit` nats per token on pictures it has not seen."""
    for graph, parts in (("prefill", certificate.prefill), ("decode", certificate.decode)):
        increase = parts["held_out"].increase
        if not increase <= limit:
            raise VerificationError(
                f"this precision costs {increase:.4f} nats per token ({graph}, {certificate.pictures}), more than "
                f"--max-loss-increase {limit:g}; nothing was kept - choose a finer --precision or --kv-cache, or "
                "calibrate with pictures like those the model was trained on (--calibration DIR)"
            )


def compare(reference: Array, logits: Array, tokens: Tokens) -> Loss:
    """Compare logits [pictures, positions, n_clusters] of the tokens [pictures, positions]."""
    ours, theirs = _log_softmax(logits), _log_softmax(reference)
    picked = tokens[..., None]
    loss = -float(np.take_along_axis(ours, picked, -1).mean())
    loss_reference = -float(np.take_along_axis(theirs, picked, -1).mean())
    return Loss(
        pictures=len(tokens),
        nats_per_token_fp32=loss_reference,
        nats_per_token=loss,
        increase=loss - loss_reference,
        kl_divergence=float((np.exp(theirs) * (theirs - ours)).sum(-1).mean()),
        top1_agreement=float((logits.argmax(-1) == reference.argmax(-1)).mean()),
    )


def _log_softmax(logits: Array) -> npt.NDArray[np.float64]:
    shifted_logits = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    result: npt.NDArray[np.float64] = shifted_logits - np.log(np.exp(shifted_logits).sum(-1, keepdims=True))
    return result


def _prefill_logits(session: Session, tokens: Tokens) -> Array:
    inputs = shifted(tokens, session.manifest.config.sos)
    with session.borrowed(names.PREFILL) as graph:
        return np.concatenate([graph.run([names.LOGITS], {names.INPUT_IDS: row[None]})[0] for row in inputs])


def _decode_logits(session: Session, tokens: Tokens, progress: Progress) -> Array:
    """Logits of every position from the decode graph, fed one token at a time."""
    inputs = shifted(tokens, session.manifest.config.sos)
    step = DecodeStep(session, new_cache(session.manifest, len(tokens)), GenerationOptions(), with_logits=True)
    logits = []
    uniform = np.zeros(len(tokens), np.float32)
    for position in range(inputs.shape[1]):
        step(inputs[:, position : position + 1], position, uniform)
        logits.append(step.logits().copy())
        progress(position + 1, inputs.shape[1])
    return np.stack(logits, axis=1)
