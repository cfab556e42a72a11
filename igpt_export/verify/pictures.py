"""Compares the graphs of a written bundle that take a picture with the graphs they are made of."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from igpt_export.precision.calibration import shifted
from igpt_export.precision.precision import Precision
from igpt_export.verify.block_graph import BlockGraph
from igpt_export.verify.stepping import prefilled_slots, run_steps
from igpt_export.verify.tolerance import check_difference, check_equal
from igpt_runtime.bundle import graph_io
from igpt_runtime.bundle.config import PROTOCOLS
from igpt_runtime.bundle.manifest import Manifest
from igpt_runtime.engine.kv_cache import shares_prefix
from igpt_runtime.engine.random import uniforms
from igpt_runtime.engine.session import import_onnxruntime
from igpt_runtime.pictures.palette import image_to_tokens, tokens_to_image
from igpt_runtime.tasks.classify import apply_function

Array = npt.NDArray[Any]
Tokens = npt.NDArray[np.int64]

_ROWS, _SEED = 2, 1  # of the completion


def verify_picture_graphs(directory: Path, manifest: Manifest, precision: Precision) -> None:
    """Run whichever of these graphs the bundle has on a picture of random pixels.

    All but `complete`, which has a loop, run block by block; that one runs as a whole, from the mapped weights.

    Raises:
        VerificationError: a graph disagrees with the graphs it is made of, or with the runtime's way to tokens.
    """
    form, graphs, sos = manifest.image_format, manifest.graphs, manifest.config.sos
    pixels = np.random.default_rng(1).integers(0, 256, (2 * form.height + 1, 3 * form.width, 3), np.uint8)

    def tokens_of_it(*, crop: bool = False) -> Tokens:
        picture = Image.fromarray(pixels)
        return image_to_tokens(picture, form.clusters, form.height, form.width, crop=crop, resample=form.resample)

    def run(name: str, **inputs: Array) -> Array:
        record = graphs[name]
        output = record.outputs[0].name
        return BlockGraph(directory / record.file).run([inputs], [output])[0][output]

    tokens = tokens_of_it()
    if graph_io.PREPROCESS in graphs:
        check_equal(run(graph_io.PREPROCESS, image=pixels), tokens, graph_io.PREPROCESS)
    image = np.asarray(tokens_to_image(tokens, form.clusters, form.height, form.width))
    check_equal(run(graph_io.POSTPROCESS, tokens=tokens[None])[0], image, graph_io.POSTPROCESS)

    if graph_io.FEATURES not in graphs:  # a bundle without --embed
        return
    prefill = BlockGraph(directory / graphs[graph_io.PREFILL].file)

    def prefilled(inputs: Tokens, output: str) -> Array:
        (row,) = prefill.run([{graph_io.INPUT_IDS: inputs[None]}], [output])[0][output]
        return np.asarray(row)

    expected: dict[str, npt.NDArray[np.float32]] = {graph_io.FEATURES: prefilled(tokens, graph_io.FEATURES)}
    if graph_io.CLASSIFY in graphs and manifest.classifier is not None:
        rules = PROTOCOLS[manifest.classifier.protocol]
        given = tokens_of_it(crop=rules.crop)
        (inputs,) = shifted(given[None], sos) if rules.sos else given[None]
        expected[graph_io.CLASSIFY] = apply_function(manifest.classifier, prefilled(inputs, graph_io.CLASS_LOGITS))
    if graph_io.SCORE in graphs:
        (inputs,) = shifted(tokens[None], sos)
        likelihood = _log_softmax(prefilled(inputs, graph_io.LOGITS))
        nats = -np.take_along_axis(likelihood, tokens[:, None], axis=-1)
        expected[graph_io.SCORE] = nats.reshape(form.height, form.width)
    for name, value in expected.items():
        check_difference(value, run(name, image=pixels), name, precision)
    if graph_io.COMPLETE in graphs:
        _verify_completion(directory, manifest, precision, prefill, pixels, tokens)


def _verify_completion(
    directory: Path, manifest: Manifest, precision: Precision, prefill: BlockGraph, pixels: Array, tokens: Tokens
) -> None:
    """All rows but the last are given, and what is drawn is drawn again, by the decode graph, from what it was given.

    Raises VerificationError.
    """
    form, config = manifest.image_format, manifest.config
    kept_rows = form.height - 1
    given = kept_rows * form.width
    drawn = _completed(directory / manifest.graphs[graph_io.COMPLETE].file, pixels, kept_rows)
    check_equal(drawn[:, :given], np.tile(tokens[:given], (_ROWS, 1)), graph_io.COMPLETE)
    # 4-bit kernels round by batch; and below fp32, nothing given makes the two begin with different graphs.
    if not precision.is_exact and (precision.weights == "int4" or not given):
        return
    inputs = shifted(drawn, config.sos)
    record = manifest.graphs[graph_io.DECODE_SHARED if shares_prefix(manifest, _ROWS, given) else graph_io.DECODE]
    slots = prefilled_slots(prefill, config, inputs[0, :given])
    draws = uniforms(_SEED, range(_ROWS), range(given, config.n_positions))
    steps = run_steps(BlockGraph(directory / record.file), manifest, inputs[:, given:], slots, draws)
    again = np.concatenate([step[graph_io.NEXT_IDS] for step in steps], axis=1)
    check_equal(drawn[:, given:], again, graph_io.COMPLETE)


def _completed(path: Path, pixels: Array, kept_rows: int) -> Tokens:
    """Tokens that `complete` draws, without a copy of the weights."""
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_prepacking", "1")
    request = {"keep_rows": np.array(kept_rows), "n": np.array(_ROWS), "seed": np.array(_SEED)}
    sampling = {"temperature": np.float32(1), "top_k": np.array(0), "top_p": np.float32(1)}
    feeds = {"image": pixels, **request, **{name: np.asarray(value) for name, value in sampling.items()}}
    tokens: Tokens = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run(None, feeds)[1]
    return tokens


def _log_softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    wide = logits.astype(np.float64)
    result: npt.NDArray[np.float32] = (wide - np.logaddexp.reduce(wide, axis=-1, keepdims=True)).astype(np.float32)
    return result
