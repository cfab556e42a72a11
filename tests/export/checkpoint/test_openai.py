"""OpenAI's own checkpoints: with the original variable names, held to the formulas of image-gpt's src/model.py."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from igpt_export.checkpoint.checkpoint import build_model
from igpt_export.checkpoint.config import VARIANTS
from igpt_export.checkpoint.openai import import_tensorflow, load_openai_checkpoint
from igpt_export.cli import main
from igpt_export.export import ExportOptions, export_bundle
from igpt_export.precision.precision import Precision
from igpt_runtime import GenerationOptions, generate_all, open_session

try:
    tensorflow = import_tensorflow()
except ImportError:
    pytest.skip("TensorFlow is not installed", allow_module_level=True)

WIDTH, HEADS, LAYERS, VOCABULARY, POSITIONS = TINY = 32, 4, 2, 16, 64
SMALL = 512, 8, 24, 512, 1024
Variables = dict[str, np.ndarray]


def published(sizes: tuple[int, ...] = TINY, n_labels: int = 0, deviation: float = 0.3) -> Variables:
    """Random variables of a model, as src/model.py names and shapes them."""
    width, heads, layers, vocabulary, positions = sizes
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return (deviation * rng.standard_normal(shape, np.float32)).astype(np.float32)

    per_head = (heads, width // heads, width)
    found = {"wpe": normal(positions, width), "wte": normal(vocabulary, width), "wtet": normal(vocabulary, width)}
    found |= {"sos": normal(width), "ln_f/g": 1 + normal(width)}
    for layer in range(layers):
        found |= {f"h{layer}/attn/{kind}_proj": normal(*per_head) for kind in "kqvc"}
        found |= {f"h{layer}/{norm}/g": 1 + normal(width) for norm in ("ln_1", "ln_2")}
        found |= {f"h{layer}/mlp/c_fc/w": normal(width, 4 * width), f"h{layer}/mlp/c_proj/w": normal(4 * width, width)}
    if n_labels:
        found["clf/wclf"] = normal(n_labels, width)
    return {f"model/{name}": array for name, array in found.items()}


def reference(variables: Variables, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """gen_logits [batch, sequence, vocabulary] and the pooled state that wclf reads, in float64."""
    v = {name.removeprefix("model/"): array.astype(np.float64) for name, array in variables.items()}

    def norm(x: np.ndarray, g: np.ndarray) -> np.ndarray:
        normed: np.ndarray = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * g
        return normed

    batch, sequence = tokens.shape
    _, head, width = v["h0/attn/q_proj"].shape
    h = v["wte"][tokens]
    h = np.concatenate([np.broadcast_to(v["sos"], (batch, 1, width)), h[:, :-1]], axis=1) + v["wpe"][:sequence]
    visible = np.tril(np.ones((sequence, sequence)))
    for name in [f"h{layer}" for layer in range(sum("c_fc" in name for name in v))]:
        x = norm(h, v[f"{name}/ln_1/g"])
        q, k, value = (np.einsum("bsf,hef->bhse", x, v[f"{name}/attn/{kind}_proj"]) for kind in "qkv")
        w = q @ k.transpose(0, 1, 3, 2) / np.sqrt(head)
        w = w * visible - 1e10 * (1 - visible)
        w = np.exp(w - w.max(-1, keepdims=True))
        w /= w.sum(-1, keepdims=True)
        h = h + np.einsum("bhse,hef->bsf", w @ value, v[f"{name}/attn/c_proj"])
        x = norm(h, v[f"{name}/ln_2/g"]) @ v[f"{name}/mlp/c_fc/w"]
        h = h + (x / (1 + np.exp(-1.702 * x))) @ v[f"{name}/mlp/c_proj/w"]
    h = norm(h, v["ln_f/g"])
    return h @ v["wtet"].T, h.mean(1)


def save(prefix: Path, variables: Variables, shards: int = 1) -> Path:
    """Write a checkpoint of TensorFlow's V2 format."""
    names = sorted(variables)
    parts = []
    for i in range(shards):
        kept = names[i::shards]
        parts.append(f"{prefix}_part/part-{i:05d}-of-{shards:05d}")
        tensorflow.raw_ops.SaveV2(
            prefix=parts[-1], tensor_names=kept, shape_and_slices=[""] * len(kept),
            tensors=[tensorflow.constant(variables[name]) for name in kept],
        )  # fmt: skip
    tensorflow.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=parts, destination_prefix=str(prefix))
    return prefix


@pytest.fixture
def clusters(tmp_path: Path) -> Path:
    path = tmp_path / "kmeans_centers.npy"
    np.save(path, np.random.default_rng(1).uniform(-1, 1, (VOCABULARY, 3)).astype(np.float32))
    return path


@pytest.mark.parametrize("shards", [1, 3])
def test_logits_are_the_published_formulas(tmp_path: Path, clusters: Path, shards: int) -> None:
    variables = published()
    training = {"global_step": np.array(7), "model/h0/ln_1/g/Adam": np.ones(3, np.float32)}
    checkpoint = load_openai_checkpoint(save(tmp_path / "model.ckpt-7", variables | training, shards), clusters)
    assert (checkpoint.name, checkpoint.config.n_layer, checkpoint.config.n_head) == ("model-7", LAYERS, HEADS)
    assert (checkpoint.image_format.height, checkpoint.image_format.width) == (8, 8)
    assert not any("bias" in name for name in checkpoint.tensors)
    tokens = np.random.default_rng(2).integers(0, VOCABULARY, (2, POSITIONS))
    fed = np.concatenate([np.full((2, 1), VOCABULARY), tokens[:, :-1]], axis=1)
    logits = build_model(checkpoint).logits(torch.from_numpy(fed)).numpy()
    assert np.abs(logits - reference(variables, tokens)[0]).max() < 1e-4


@pytest.mark.slow
def test_shapes_of_the_published_small(tmp_path: Path, clusters: Path) -> None:
    """In 32 data files, as it was published."""
    variables = published(SMALL, deviation=0.02)
    np.save(clusters, np.random.default_rng(1).uniform(-1, 1, (512, 3)).astype(np.float32))
    checkpoint = load_openai_checkpoint(save(tmp_path / "model.ckpt-1000000", variables, 32), clusters)
    assert checkpoint.config == VARIANTS["small"]
    tokens = np.random.default_rng(2).integers(0, 512, (1, 64))
    fed = np.concatenate([[[512]], tokens[:, :-1]], axis=1)
    logits = build_model(checkpoint).logits(torch.from_numpy(fed)).numpy()
    expected = reference(variables, tokens)[0]
    assert np.abs(logits - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize(
    "precision",
    [
        ("fp32", "fp32"),
        pytest.param(("int8", "int8"), marks=pytest.mark.slow),
        pytest.param(("int4", "fp32"), marks=pytest.mark.slow),
        ("fp16", "fp16"),
    ],
    ids=str,
)
def test_a_bundle_without_biases(tmp_path: Path, clusters: Path, precision: tuple[str, str]) -> None:
    variables = published(n_labels=3)
    checkpoint = load_openai_checkpoint(save(tmp_path / "model.ckpt-1", variables), clusters)
    bundle = tmp_path / "bundle"
    export_bundle(
        checkpoint,
        bundle,
        ExportOptions(Precision(*precision), max_loss_increase=None if precision[0] == "fp32" else 1e9),
    )
    graph = onnx.load(bundle / "prefill.onnx", load_external_data=False)
    assert not any("bias" in weight.name for weight in graph.graph.initializer)
    tokens = np.random.default_rng(2).integers(0, VOCABULARY, (1, POSITIONS))
    fed = np.concatenate([[[VOCABULARY]], tokens[:, :-1]], axis=1)
    session = open_session(bundle, device="cpu")
    prefill = session.graph("prefill")
    logits, classes = prefill.run(["logits", "class_logits"], {"input_ids": fed})
    expected, pooled = reference(variables, tokens)
    tolerance = {"fp32": 1e-4, "fp16": 0.1, "int8": 3.0, "int4": 8.0}[precision[0]]
    assert np.abs(logits - expected).max() < tolerance
    assert np.abs(classes - pooled @ variables["model/clf/wclf"].T).max() < tolerance
    assert np.corrcoef(logits.ravel(), expected.ravel())[0, 1] > 0.9
    # The bodies of the fused operators, which have fewer inputs too.
    if precision[0] != "fp16":
        evaluator = ReferenceEvaluator(onnx.load(bundle / "prefill.onnx"))
        portable = evaluator.run(["logits"], {"input_ids": fed})[0]
        assert np.abs(portable - logits).max() < (0.5 if precision[0] == "int4" else 1e-3)
    assert generate_all(session, tokens[0, :32], GenerationOptions(2)).shape == (2, POSITIONS)


def test_as_a_user_exports_it(tmp_path: Path, clusters: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    monkeypatch.chdir(tmp_path)
    save(tmp_path / "model.ckpt-1000000", published(), 2)
    command = ["--checkpoint", "model.ckpt-1000000", "--clusters", str(clusters)]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "models" / "model-1000000-fp32" / "decode.onnx").is_file()


def test_bert_is_refused_by_name(refused: Callable[..., str], tmp_path: Path, clusters: Path) -> None:
    variables = published()
    del variables["model/sos"]
    save(tmp_path / "model.ckpt-1", variables)
    line = refused(main, "--checkpoint", "model.ckpt-1", "--clusters", clusters)
    assert "BERT objective" in line and "not causal" in line


def without(name: str) -> Variables:
    variables = published()
    del variables[f"model/{name}"]
    return variables


def damaged(change: Callable[[Variables], Any]) -> Variables:
    variables = published()
    change(variables)
    return variables


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        (without("h1/attn/q_proj"), "missing tensors (1): model/h1/attn/q_proj"),
        (without("wte"), "not an ImageGPT of openai/image-gpt: no model/wte"),
        ({"bert/embeddings": np.ones((3, 3), np.float32)}, "not an ImageGPT of openai/image-gpt"),
        (damaged(lambda v: v.update({"model/ln_f/b": np.ones(WIDTH, np.float32)})), "unknown tensors (1): model/ln_f"),
        (damaged(lambda v: v.update({"model/ln_f/g": np.ones(3, np.float32)})), "model/ln_f/g [3], not [32]"),
        (damaged(lambda v: v.update({"model/wpe": np.ones((60, WIDTH), np.float32)})), "no square picture"),
        (damaged(lambda v: v.update({"model/sos": np.full(WIDTH, np.nan, np.float32)})), "NaN or infinity"),
        (damaged(lambda v: v.update({"model/sos": np.ones(WIDTH)})), "not float32: model/sos"),
    ],
)  # fmt: skip
def test_damaged_variables(
    refused: Callable[..., str], tmp_path: Path, clusters: Path, variables: Variables, words: str
) -> None:
    save(tmp_path / "model.ckpt-1", variables)
    assert words in refused(main, "--checkpoint", "model.ckpt-1", "--clusters", clusters)


def test_files_that_are_missing_or_cut(refused: Callable[..., str], tmp_path: Path, clusters: Path) -> None:
    prefix = save(tmp_path / "model.ckpt-5", published(), 3)

    def line(name: str = "model.ckpt-5") -> str:
        return refused(main, "--checkpoint", name, "--clusters", clusters)

    assert "model.ckpt-6.index is not there; there is model.ckpt-5" in line("model.ckpt-6")
    shard = prefix.with_name("model.ckpt-5.data-00001-of-00003")
    data = shard.read_bytes()
    shard.write_bytes(data[: len(data) // 2])
    assert "damaged or truncated" in line()
    shard.unlink()
    assert f"missing shards: {shard.name}" in line()
    shard.write_bytes(data)
    index = prefix.with_name("model.ckpt-5.index")
    index.write_bytes(index.read_bytes()[:50])
    assert "damaged or truncated" in line()


@pytest.mark.slow
def test_tensorflow_says_nothing(tmp_path: Path, clusters: Path) -> None:
    """An error is one line."""
    prefix = save(tmp_path / "model.ckpt-1", published())
    clusters.write_bytes(b"\x93NUMPY\x01\x00v\x00" + b"(" * 117 + b"\n")
    command = [
        sys.executable,
        "-m",
        "igpt_export",
        "--checkpoint",
        prefix,
        "--clusters",
        clusters,
        "--progress",
        "never",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "not an array in NumPy's format" in done.stderr


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((9, 3), np.float32), "clusters have shape [9, 3], not [16, 3]"),
        (np.full((16, 3), 200.0), "clusters reach 200"),
        (np.array(["red"]), "not rows of three numbers"),
        (np.array([{}]), "not an array in NumPy's format"),
    ],
)
def test_wrong_clusters(refused: Callable[..., str], tmp_path: Path, array: np.ndarray, words: str) -> None:
    save(tmp_path / "model.ckpt-1", published())
    np.save(tmp_path / "wrong.npy", array)
    assert words in refused(main, "--checkpoint", "model.ckpt-1", "--clusters", "wrong.npy")


def test_archives_as_clusters(refused: Callable[..., str], tmp_path: Path) -> None:
    save(tmp_path / "model.ckpt-1", published())
    np.savez(tmp_path / "whole.npz", a=np.zeros((16, 3)))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:60])
    for name in ("whole.npz", "cut.npz"):
        assert "not an array in NumPy's format" in refused(main, "--checkpoint", "model.ckpt-1", "--clusters", name)


def test_options_that_do_not_fit(refused: Callable[..., str], tmp_path: Path, clusters: Path) -> None:
    save(tmp_path / "model.ckpt-1", published())
    assert "give its kmeans_centers.npy with --clusters" in refused(main, "--checkpoint", "model.ckpt-1")
    assert "no such file" in refused(main, "--checkpoint", "model.ckpt-1", "--clusters", "nowhere.npy")
    assert "goes with --checkpoint" in refused(main, "--variant", "small", "--clusters", clusters)
    assert "goes with --checkpoint" in refused(main, "--checkpoint", ".", "--clusters", clusters)


@pytest.mark.slow
def test_tracing_works_after_tensorflow() -> None:
    """In a process that has loaded nothing else: with torch built for CUDA, the order of imports could crash it."""
    code = "from igpt_export.checkpoint.openai import import_tensorflow; import_tensorflow(); import torch._dynamo"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_tensorflow(
    refused: Callable[..., str], tmp_path: Path, clusters: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "model.ckpt-1", published())
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    line = refused(main, "--checkpoint", "model.ckpt-1", "--clusters", clusters)
    assert "pip install tensorflow-cpu" in line
