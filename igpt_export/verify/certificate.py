"""What a bundle's precision costs, measured on the written graphs against the float model, picture by picture."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from igpt_export.precision.calibration import HELD_OUT_TOKENS, Observation, Outputs, Pictures, shifted
from igpt_export.precision.overflow import check_finite
from igpt_export.verify.block_graph import BlockGraph
from igpt_export.verify.stepping import run_steps
from igpt_runtime.bundle import graph_io
from igpt_runtime.bundle.bundle import open_bundle
from igpt_runtime.bundle.config import Classifier
from igpt_runtime.bundle.manifest import Manifest
from igpt_runtime.errors import VerificationError
from igpt_runtime.progress import Progress

Array = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int64]


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
class Shift:
    """What two models find in some pictures, compared; the last two are None without a classifier."""

    pictures: int
    features_error: float  # of pooled features: root mean square difference, relative to fp32, in the worst layer
    kl_divergence: float | None  # nats, of the bundle's class distribution from the float model's; mean over pictures
    top1_agreement: float | None  # share of pictures both put into the same class


@dataclass(frozen=True)
class Certificate:
    """The precision certificate of a bundle that is not fp32: figures by "calibration" and "held_out" pictures."""

    pictures: str  # what they were
    prefill: dict[str, Loss] | None  # the prefill graph's next-token logits; None without a language-model head
    decode: dict[str, Loss] | None  # likewise: the decode graph step by step, living on its own cache
    features: dict[str, Shift]  # the prefill graph's features and class logits
    largest_activation: tuple[float, ...]  # by block, of the float model; fp16 overflows at 65504

    def record(self) -> dict[str, Any]:
        """As the manifest holds it."""
        return asdict(self)


def certify(
    directory: Path, pictures: Pictures, observation: Observation, expected: Outputs, progress: Progress
) -> Certificate:
    """Measure the bundle in `directory`.

    expected: what the float model computes of all pictures, calibration pictures first.
    """
    manifest = open_bundle(directory).manifest
    count = max(1, HELD_OUT_TOKENS // manifest.config.n_positions)
    calibration, held_out = np.arange(len(pictures.calibration)), np.arange(len(pictures.held_out))
    rows = np.concatenate([calibration[:count], len(calibration) + held_out])
    split = min(count, len(calibration))
    parts = {"calibration": slice(0, split), "held_out": slice(split, None)}
    tokens = np.concatenate([pictures.calibration, pictures.held_out])[rows]
    reference, prefilled = expected.of(rows), _prefilled(directory, manifest, tokens)
    prefill = decode = None
    if reference.logits is not None and prefilled.logits is not None:
        decoded = _decode_logits(directory, manifest, tokens, progress)
        if manifest.precision == "fp16":
            check_finite(decoded, "decode logits")
        prefill, decode = (
            {name: compare(reference.logits[part], logits[part], tokens[part]) for name, part in parts.items()}
            for logits in (prefilled.logits, decoded)
        )
    return Certificate(
        pictures=pictures.source,
        prefill=prefill,
        decode=decode,
        features={
            name: compare_features(reference.of(part), prefilled.of(part), manifest.classifier)
            for name, part in parts.items()
        },
        largest_activation=tuple(observation.largest[block] for block in sorted(observation.largest)),
    )


def check_loss(certificate: Certificate, limit: float) -> None:
    """Raise VerificationError if more than `limit` nats are lost per token, or by a mere classifier per picture.

    What counts is pictures that took no part in calibration, and each graph for itself: by how much its loss has grown,
    and how far its predictions are from the float model's.
    """
    costs = []
    for graph, parts in (("prefill", certificate.prefill), ("decode", certificate.decode)):
        if parts is not None:
            # A loss can fall by chance while the predictions become others, so their divergence counts as well.
            loss = parts["held_out"]
            costs += [(loss.increase, f"nats per token ({graph}"), (loss.kl_divergence, f"nats of divergence ({graph}")]
    divergence = certificate.features["held_out"].kl_divergence
    if divergence is not None and not costs:
        costs.append((divergence, "nats per picture (classes"))
    for cost, what in costs:
        if not cost <= limit:
            raise VerificationError(
                f"this precision costs {cost:.4f} {what}, {certificate.pictures}), more than "
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
        kl_divergence=_divergence(theirs, ours),
        top1_agreement=float((logits.argmax(-1) == reference.argmax(-1)).mean()),
    )


def compare_features(reference: Outputs, ours: Outputs, classifier: Classifier | None) -> Shift:
    """Compare the features and what the classifier makes of the same pictures; values of a regression are not."""
    error, size = (
        np.sqrt(np.square(array.astype(np.float64)).mean((0, 2)))
        for array in (ours.features - reference.features, reference.features)
    )
    size = np.maximum(size, np.finfo(np.float32).tiny)  # a layer of zeros has no relative error
    divergence = agreement = None
    if classifier is not None and reference.class_logits is not None and ours.class_logits is not None:
        if classifier.function_to_apply == "softmax":
            divergence = _divergence(_log_softmax(reference.class_logits), _log_softmax(ours.class_logits))
            agreement = float((ours.class_logits.argmax(-1) == reference.class_logits.argmax(-1)).mean())
        elif classifier.function_to_apply == "sigmoid":  # a distribution for each label: it is right or not
            theirs, log = (np.stack(_log_sigmoid(outputs.class_logits), -1) for outputs in (reference, ours))
            divergence = _divergence(theirs, log) * theirs.shape[1]
            agreement = float(((ours.class_logits > 0) == (reference.class_logits > 0)).mean())
    return Shift(len(reference.features), float((error / size).max()), divergence, agreement)


def _divergence(theirs: npt.NDArray[np.float64], ours: npt.NDArray[np.float64]) -> float:
    """Mean divergence of distributions, given as logarithms [..., outcomes]."""
    return float((np.exp(theirs) * (theirs - ours)).sum(-1).mean())


def _log_sigmoid(logits: Array | None) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Logarithms of the probabilities that each label is right, and that it is not."""
    assert logits is not None
    wide = logits.astype(np.float64)
    return -np.logaddexp(0, -wide), -np.logaddexp(0, wide)


def _log_softmax(logits: Array) -> npt.NDArray[np.float64]:
    shifted_logits = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    result: npt.NDArray[np.float64] = shifted_logits - np.log(np.exp(shifted_logits).sum(-1, keepdims=True))
    return result


def _prefilled(directory: Path, manifest: Manifest, tokens: Tokens) -> Outputs:
    """What the prefill graph computes, picture by picture: the rows of a batch may be rounded otherwise."""
    record = manifest.graphs[graph_io.PREFILL]
    there = {spec.name for spec in record.outputs}
    wanted = [name for name in (graph_io.LOGITS, graph_io.FEATURES, graph_io.CLASS_LOGITS) if name in there]
    steps = [{graph_io.INPUT_IDS: row[None]} for row in shifted(tokens, manifest.config.sos)]
    found = BlockGraph(directory / record.file).run(steps, wanted)
    if manifest.precision == "fp16":
        for arrays in found:
            for name, array in arrays.items():
                check_finite(array, f"prefill {name}")
    return Outputs.together(
        [Outputs(step.get(graph_io.LOGITS), step[graph_io.FEATURES], step.get(graph_io.CLASS_LOGITS)) for step in found]
    )


def _decode_logits(directory: Path, manifest: Manifest, tokens: Tokens, progress: Progress) -> Array:
    """Logits of every position from the decode graph, fed one token at a time."""
    graph = BlockGraph(directory / manifest.graphs[graph_io.DECODE].file)
    inputs = shifted(tokens, manifest.config.sos)
    found = run_steps(graph, manifest, inputs, [], progress=progress)
    return np.stack([step[graph_io.LOGITS] for step in found], axis=1)
