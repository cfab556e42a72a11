"""Exported graphs against transformers' ImageGPT, for every configuration field that is honoured."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from igpt_export.checkpoint.checkpoint import load_checkpoint
from igpt_export.export import export_bundle
from igpt_runtime import GenerationOptions, generate_all, open_session
from igpt_runtime.bundle import graph_io

TOLERANCE = 1e-4
FIELDS: dict[str, dict[str, Any]] = {
    "base": {},
    "n_inner": {"n_inner": 24},
    "one-head": {"n_head": 1},
    "gelu_new": {"activation_function": "gelu_new"},
    "gelu": {"activation_function": "gelu"},
    "relu": {"activation_function": "relu"},
    "epsilon": {"layer_norm_epsilon": 0.1},
    "unscaled": {"scale_attn_weights": False},
    "inverse-layer": {"scale_attn_by_inverse_layer_idx": True},
    "upcast": {"reorder_and_upcast_attn": True, "scale_attn_by_inverse_layer_idx": True},
}
SLOW = {"n_inner", "gelu_new", "relu", "inverse-layer"}  # much like another


def export(checkpoint: Path) -> Path:
    bundle = checkpoint.with_name("bundle")
    export_bundle(load_checkpoint(checkpoint), bundle)
    return bundle


def tokens(n_clusters: int, n_positions: int, rows: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, n_clusters, (rows, n_positions))


def run_prefill(bundle: Path, input_ids: np.ndarray) -> dict[str, np.ndarray]:
    graph = open_session(bundle, device="cpu").graph(graph_io.PREFILL)
    outputs = [output.name for output in graph.get_outputs()]
    return dict(zip(outputs, graph.run(None, {graph_io.INPUT_IDS: input_ids}), strict=True))


@pytest.mark.parametrize(
    "fields",
    [pytest.param(fields, marks=[pytest.mark.slow] if name in SLOW else []) for name, fields in FIELDS.items()],
    ids=FIELDS,
)
def test_logits_hidden_states_and_cache(write_checkpoint: Callable[..., Path], fields: dict[str, Any]) -> None:
    checkpoint = write_checkpoint(fields=fields)
    theirs = transformers.ImageGPTForCausalImageModeling.from_pretrained(checkpoint)
    input_ids = tokens(theirs.config.vocab_size, theirs.config.n_positions)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(input_ids), output_hidden_states=True, use_cache=True)

    actual = run_prefill(export(checkpoint), input_ids)

    assert np.abs(expected.logits.numpy() - actual[graph_io.LOGITS]).max() <= TOLERANCE
    for i, hidden in enumerate(expected.hidden_states):
        assert np.abs(hidden.numpy() - actual[graph_io.hidden_state(i)]).max() <= TOLERANCE
        assert np.abs(hidden.mean(1).numpy() - actual[graph_io.FEATURES][:, i]).max() <= TOLERANCE
    for layer, cache in enumerate(expected.past_key_values.layers):
        assert np.abs(cache.keys.numpy() - actual[f"present.{layer}.key"]).max() <= TOLERANCE
        assert np.abs(cache.values.numpy() - actual[f"present.{layer}.value"]).max() <= TOLERANCE


def test_class_logits(write_checkpoint: Callable[..., Path]) -> None:
    checkpoint = write_checkpoint("ImageGPTForImageClassification", {"num_labels": 5})
    theirs = transformers.ImageGPTForImageClassification.from_pretrained(checkpoint)
    input_ids = tokens(theirs.config.vocab_size - 1, theirs.config.n_positions)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(input_ids)).logits.numpy()

    bundle = export(checkpoint)

    assert np.abs(expected - run_prefill(bundle, input_ids)[graph_io.CLASS_LOGITS]).max() <= TOLERANCE
    assert list(open_session(bundle).manifest.graphs) == [graph_io.PREFILL, graph_io.PREPROCESS, graph_io.POSTPROCESS]


def test_bare_model(write_checkpoint: Callable[..., Path]) -> None:
    checkpoint = write_checkpoint("ImageGPTModel")
    theirs = transformers.ImageGPTModel.from_pretrained(checkpoint)
    input_ids = tokens(theirs.config.vocab_size, theirs.config.n_positions)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(input_ids)).last_hidden_state.numpy()

    actual = run_prefill(export(checkpoint), input_ids)

    assert graph_io.LOGITS not in actual
    assert np.abs(expected - actual[graph_io.hidden_state(theirs.config.n_layer)]).max() <= TOLERANCE


def test_greedy_completion_is_token_identical(
    tiny_checkpoint: Path, tiny_bundle: Path, transformers_greedy: Callable[[Path, np.ndarray], np.ndarray]
) -> None:
    session = open_session(tiny_bundle, device="cpu")
    config = session.manifest.config
    primer = tokens(config.n_clusters, config.n_positions // 2)[0]

    drawn = generate_all(session, primer, GenerationOptions(n=3, temperature=0.0))

    assert (drawn == transformers_greedy(tiny_checkpoint, primer)).all()
