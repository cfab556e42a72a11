"""Compares a written bundle with torch, and its graphs that take a picture with the runtime."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from igpt_export.blocks import BlockGraph, states_by_block, unloaded_model
from igpt_export.model import States, pooled
from igpt_export.overflow import check_finite
from igpt_export.precision import Precision
from igpt_runtime import names
from igpt_runtime.bundle import open_bundle
from igpt_runtime.cache import Slots, new_own_slots, new_slots, prefix_of
from igpt_runtime.complete import tokens_of
from igpt_runtime.config import Classifier, ImageGPTConfig
from igpt_runtime.errors import VerificationError
from igpt_runtime.features import classify, features
from igpt_runtime.generate import GenerationOptions, generate_all
from igpt_runtime.manifest import Manifest
from igpt_runtime.palette import tokens_to_image
from igpt_runtime.session import Session, open_session

Array = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int64]

TOLERANCE = 1e-4  # of the largest difference, relative to the largest reference value once that exceeds 1
# Below fp32 the kernels round activations too, which torch does not, and single values may be far off. This bounds the
# root mean square, relative to the reference's; a wrong graph is off by about 1, the rest the certificate tells.
COARSE_TOLERANCE = 0.2
HALF_TOLERANCE = 0.02  # likewise in fp16, which was 0.0015 off with 24 layers and 0.0009 with 6
_SEQUENCE = 64  # positions compared
_STEPS = 8  # of them, how many the decode graph takes one by one
_SEQUENCES, _ROWS = 2, 2  # compared; and rows that each is decoded in


def verify_bundle(
    directory: Path, tensors: Mapping[str, Tensor], config: ImageGPTConfig, classifier: Classifier | None,
    precision: Precision, progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, float]:  # fmt: skip
    """Run the bundle in `directory` on ONNX Runtime and its tensors, as stored there, in torch, on the same tokens.

    Returns the largest absolute difference of logits (of features where there is no language-model head) for prefill,
    decode and shared-prefix decode, with what was compared. progress: called with the number of layers of a graph that
    are done, and of all.

    Raises:
        VerificationError: a difference is above tolerance, or is not a number.
    """
    sequence = min(_SEQUENCE, config.n_positions)
    tokens = np.random.default_rng(0).integers(0, config.n_clusters, (_SEQUENCES, sequence))
    tokens[:, 0] = config.sos
    manifest = open_bundle(directory).manifest
    expected = _reference(tensors, config, classifier, precision, tokens)
    graph = BlockGraph(directory / manifest.graphs[names.PREFILL].file)
    (outputs,) = graph.run([{names.INPUT_IDS: tokens}], list(expected), progress=progress)
    differences = [_difference(expected[name], outputs[name], name, precision) for name in expected]
    report = {
        "prefill_max_abs_diff": differences[0],
        "tolerance": _tolerance(precision),
        "sequence": float(sequence),
    }
    split = max(sequence - _STEPS, min(1, sequence - 1))
    if names.DECODE in manifest.graphs:
        slots = [_filled(graph, config, row[:split]) for row in tokens]
        for name in (names.DECODE, names.DECODE_SHARED):
            if name in manifest.graphs and (split or name == names.DECODE):
                stepped = BlockGraph(directory / manifest.graphs[name].file)
                logits = np.stack(
                    [
                        _steps(stepped, manifest, name, row[split:], part, progress)
                        for row, part in zip(tokens, slots, strict=True)
                    ]
                )
                report[f"{name}_max_abs_diff"] = _difference(
                    expected[names.LOGITS][:, split:], logits, f"{name} logits", precision
                )
    _verify_picture_graphs(open_session(directory, device="cpu"), precision)
    return report


def _filled(graph: BlockGraph, config: ImageGPTConfig, inputs: Tokens) -> Slots:
    """The cache after `inputs` [sequence], of one row, in order."""
    if not inputs.size:
        return []
    present = names.present_names(config)
    (found,) = graph.run([{names.INPUT_IDS: inputs[None]}], present)
    return [found[name] for name in present]


def _verify_picture_graphs(session: Session, precision: Precision) -> None:
    """Compare the graphs that take a picture, as far as there are any, with the runtime's own way to the same."""
    form, graphs = session.manifest.image_format, session.manifest.graphs
    pixels = np.random.default_rng(1).integers(0, 256, (2 * form.height + 1, 3 * form.width, 3), np.uint8)
    picture = Image.fromarray(pixels)
    tokens = tokens_of(session, picture)
    if names.PREPROCESS in graphs:
        _check_equal(_run(session, names.PREPROCESS, image=pixels)[0], tokens, names.PREPROCESS)
    image = np.asarray(tokens_to_image(tokens, form.clusters, form.height, form.width))
    _check_equal(_run(session, names.POSTPROCESS, tokens=tokens[None])[0][0], image, names.POSTPROCESS)
    expected: dict[str, Array] = {}
    if names.FEATURES in graphs:
        expected[names.FEATURES] = features(session, [picture])[0]
    if names.CLASSIFY in graphs:
        expected[names.CLASSIFY] = classify(session, [picture])[0]
    if names.SCORE in graphs:
        expected[names.SCORE] = _nats(session, tokens).reshape(form.height, form.width)
    for name, value in expected.items():
        _difference(value, _run(session, name, image=pixels)[0], name, precision)
    if names.COMPLETE in graphs:
        kept = form.height - 1
        request = {"keep_rows": kept, "n": _ROWS, "seed": np.uint64(1), "top_k": 0}
        options = {"temperature": np.float32(1), "top_p": np.float32(1)}
        actual = _run(session, names.COMPLETE, image=pixels, **request, **options)[1]
        drawn = generate_all(session, tokens[: kept * form.width], GenerationOptions(n=_ROWS, seed=1))
        # 4-bit kernels round by batch; and below fp32, nothing given makes the two begin with different graphs.
        is_comparable = precision.is_exact or (precision.weights != "int4" and kept > 0)
        compared = slice(None) if is_comparable else slice(kept * form.width)
        _check_equal(actual[:, compared], drawn[:, compared], names.COMPLETE)


def _run(session: Session, name: str, **inputs: object) -> list[Array]:
    """All outputs of a graph, which is closed when this returns."""
    with session.borrowed(name) as graph:
        outputs: list[Array] = graph.run(None, {key: np.asarray(value) for key, value in inputs.items()})
    return outputs


def _nats(session: Session, tokens: Tokens) -> Array:
    """What each token of a picture takes, by the prefill graph."""
    inputs = np.concatenate([[session.manifest.config.sos], tokens[:-1]])[None]
    logits = _prefilled(session, [names.LOGITS], inputs)[0][0].astype(np.float64)
    likelihood = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    nats: Array = -np.take_along_axis(likelihood, tokens[:, None], axis=-1).astype(np.float32)
    return nats


def _check_equal(actual: npt.NDArray[np.generic], expected: npt.NDArray[np.generic], what: str) -> None:
    if not np.array_equal(actual, expected):
        raise VerificationError(
            f"the exported {what} graph disagrees with the runtime; nothing was kept - please report this checkpoint"
        )


@torch.no_grad()
def _reference(
    tensors: Mapping[str, Tensor], config: ImageGPTConfig, classifier: Classifier | None, precision: Precision,
    tokens: Tokens,
) -> dict[str, Array]:  # fmt: skip
    """What torch makes of the tensors; logits first, if the model has them."""
    model = unloaded_model(config, tensors, linear=precision.linear, int8_cache=precision.kv_cache == "int8")
    pairs = [pair for (pair,) in states_by_block(model, tensors, [torch.from_numpy(tokens)])]
    states = States(pairs[-1][0], [hidden for hidden, _ in pairs], [normed for _, normed in pairs], [])
    expected = {} if model.lm_head is None else {names.LOGITS: model.lm_head(states.last)}
    expected |= {names.FEATURES: pooled(states.hidden), names.NORMED_FEATURES: pooled(states.normed)}
    if classifier is not None:
        expected[names.CLASS_LOGITS] = model.class_logits(states, classifier)
    return {name: value.numpy() for name, value in expected.items()}


def _prefilled(session: Session, outputs: list[str], tokens: Tokens) -> list[Array]:
    """Outputs of the prefill graph, which is closed, and its memory free, when this returns."""
    with session.borrowed(names.PREFILL) as graph:
        result: list[Array] = graph.run(outputs, {names.INPUT_IDS: tokens})
    return result


def _steps(
    graph: BlockGraph, manifest: Manifest, name: str, inputs: Tokens, slots: Slots,
    progress: Callable[[int, int], None],
) -> Array:  # fmt: skip
    """Feed `inputs` [steps] to a decode graph one by one, to all rows, after `slots`; logits [steps, n_clusters].

    Raises VerificationError if at temperature 0 the graph does not draw the likeliest token.
    """
    config, first = manifest.config, slots[0].shape[2] if slots else 0
    past = names.past_names(config)
    shared: dict[str, npt.NDArray[Any]] = {}
    if name == names.DECODE_SHARED:
        shared |= zip(names.prefix_names(config), prefix_of(slots), strict=True)
    begin = dict(zip(past, slots, strict=True)) if slots else {}

    def state(past_name: str) -> npt.NDArray[Any]:
        # Of one tensor at a time: those of all layers would be the most that an export holds.
        return new_own_slots(manifest, _ROWS, first) if shared else new_slots(manifest, _ROWS, begin.get(past_name))

    steps = [
        {**shared, **decode_feeds(np.full((_ROWS, 1), token), position, temperature=0.0)}
        for position, token in enumerate(inputs, start=first)
    ]
    carried = dict(zip(past, names.present_names(config), strict=True))
    found = graph.run(steps, [names.LOGITS, names.NEXT_IDS], carried=carried, state=state, progress=progress)
    logits = np.stack([step[names.LOGITS] for step in found])
    _check_equal(np.stack([step[names.NEXT_IDS][:, 0] for step in found]), logits.argmax(-1), name)
    last_row: Array = logits[:, -1]
    return last_row


def decode_feeds(tokens: Tokens, position: int, *, temperature: float) -> dict[str, npt.NDArray[Any]]:
    """Inputs of a decode graph but its caches, for tokens int64 [rows, 1] at a position and uniforms of 0."""
    return {
        names.INPUT_IDS: tokens,
        names.PAST_LENGTH: np.array(position),
        names.UNIFORM: np.zeros(len(tokens), np.float32),
        names.TEMPERATURE: np.array(temperature, np.float32),
        names.TOP_K: np.array(0),
        names.TOP_P: np.array(1, np.float32),
    }


def _difference(expected: Array, actual: Array, what: str, precision: Precision) -> float:
    """The largest absolute difference.

    Raises VerificationError if it, or below fp32 the root mean square, is too large.
    """
    if precision.is_half:
        check_finite(actual, what)
    difference = float(np.abs(expected - actual).max())
    if precision.is_exact:
        found, limit = difference, TOLERANCE * max(1.0, float(np.abs(expected).max()))
    else:
        found, limit = _root_mean_square(expected - actual), _tolerance(precision) * _root_mean_square(expected)
    if not found <= limit:
        raise VerificationError(
            f"the exported graphs disagree with torch: {what} differ by {found:.2g} (allowed {limit:.2g}); "
            "nothing was kept - please report this checkpoint"
        )
    return difference


def _tolerance(precision: Precision) -> float:
    if precision.is_half:
        return HALF_TOLERANCE
    return TOLERANCE if precision.is_exact else COARSE_TOLERANCE


def _root_mean_square(values: Array) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
