"""Checkpoints as OpenAI published them: TensorFlow 1 variables of image-gpt's `src/model.py`, and a file of clusters.

A checkpoint is a prefix, like `model.ckpt-1000000`, of an index and one or more data files. Its sizes are those of its
tensors. It has no biases, so the model has none either; its embedding of sos is a variable of its own.
"""

import contextlib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from igpt_export.checkpoint.arrays import DamagedArrayError, read_array
from igpt_export.checkpoint.checkpoint import Checkpoint
from igpt_export.checkpoint.preprocessor import check_clusters
from igpt_export.checkpoint.problems import listed, one_line, refuse
from igpt_export.checkpoint.tensors import LazyTensors, check_finite, empty_model
from igpt_export.checkpoint.weights import StoredTensor, hash_weights
from igpt_export.home import untouched_home
from igpt_export.model.model import Parts
from igpt_runtime.bundle.config import Classifier, ImageFormat, ImageGPTConfig
from igpt_runtime.errors import CheckpointError

_SCOPE = "model/"
_LAYER = re.compile(r"h(\d+)/")
_TRAINING = re.compile(r"(^|/)(Adam\w*|adam_[mv]|beta[12]_power|global_step)(/|$)|_step$")  # of optimizers
_REMEDY = "download model.ckpt-*.index, .meta and .data-* again, into one directory"
_DTYPE = "F32"
_EPSILON = 1e-5  # `norm` in src/model.py

Read = Callable[[str], npt.NDArray[np.float32]]  # a variable by its name below the scope


def load_openai_checkpoint(prefix: Path, clusters: Path) -> Checkpoint:
    """The checkpoint at a prefix, or at the path of its index, with the colours in a `.npy` file [n_clusters, 3].

    Raises CheckpointError, in one line, for whatever cannot be used: BERT-objective checkpoints among them, whose
    attention is not causal.
    """
    prefix = prefix.with_suffix("") if prefix.suffix in (".index", ".meta") else prefix
    files = _files(prefix)
    shapes, read = _open(prefix)
    config, n_labels = _config(shapes, str(prefix))
    parts = Parts(n_labels=n_labels, linear_bias=False)
    stored = _map(shapes, read, config, parts, str(prefix))
    tensors = LazyTensors(stored)
    check_finite(tensors, {name: name for name in tensors}, str(prefix))
    classifier = None
    if n_labels:
        labels = tuple(f"LABEL_{i}" for i in range(n_labels))
        classifier = Classifier(labels, (config.n_layer,), "paper")
    side = round(config.n_positions**0.5)
    form = ImageFormat(height=side, width=side, clusters=_clusters(clusters, config))
    name = re.sub(r"\.ckpt(-(\d+))?$", r"-\2", prefix.name).strip("-")
    return Checkpoint(name, config, form, tensors, classifier, prefix.name, hash_weights(files))


def _files(prefix: Path) -> list[Path]:
    """The index and the data files, all of them."""
    index = prefix.with_name(prefix.name + ".index")
    if not index.is_file():
        try:
            found = sorted(path.name.removesuffix(".index") for path in prefix.parent.glob("*.index"))
        except OSError:
            found = []
        fact = f"no checkpoint: {index.name} is not there"
        refuse(str(prefix), [f"{fact}; there is {listed(found)}" if found else fact], "name the prefix of its files")
    pattern = re.compile(re.escape(prefix.name) + r"\.data-(\d{5})-of-(\d{5})")
    shards = [match for path in prefix.parent.iterdir() if (match := pattern.fullmatch(path.name))]
    totals = {int(match[2]) for match in shards}
    if len(totals) != 1:
        refuse(str(prefix), [f"no set of shards {prefix.name}.data-*"], _REMEDY)
    (total,) = totals
    wanted = [prefix.with_name(f"{prefix.name}.data-{i:05d}-of-{total:05d}") for i in range(total)]
    missing = [path.name for path in wanted if not path.is_file()]
    if missing:
        refuse(str(prefix), [f"missing shards: {listed(missing)}"], _REMEDY)
    return [index, *wanted]


def import_tensorflow() -> Any:
    """The module tensorflow. Raises ImportError."""
    # Nothing on the terminal but errors. oneDNN is told of before TensorFlow looks at the level, and only reads here.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    with contextlib.suppress(ImportError):
        # torch builds for CUDA load triton when they trace. Both libraries carry LLVM, and triton crashes if
        # TensorFlow's is there first.
        import triton  # noqa: F401
    with untouched_home():
        import tensorflow

    return tensorflow


def _open(prefix: Path) -> tuple[dict[str, tuple[int, ...]], Read]:
    """Shapes of the model's variables by their names below the scope, and a function that reads one."""
    try:
        tensorflow = import_tensorflow()
    except ImportError as error:
        raise CheckpointError(
            f"{prefix}: reading it needs TensorFlow ({one_line(error)}) - run: pip install tensorflow-cpu"
        ) from error
    try:
        reader: Any = tensorflow.train.load_checkpoint(str(prefix))
        found: dict[str, list[int]] = reader.get_variable_to_shape_map()
        dtypes = reader.get_variable_to_dtype_map()
    except Exception as error:  # TensorFlow raises a class for each of its error codes
        refuse(str(prefix), [f"damaged or truncated: {one_line(error)}"], _REMEDY)
    names = {name for name in found if name.startswith(_SCOPE) and not _TRAINING.search(name)}
    wrong = sorted(name for name in names if dtypes[name].name != "float32")
    if wrong:
        refuse(str(prefix), [f"tensors that are not float32: {listed(wrong)}"], _REMEDY)

    def read(name: str) -> npt.NDArray[np.float32]:
        try:
            array: npt.NDArray[np.float32] = reader.get_tensor(_SCOPE + name)
        except Exception as error:
            refuse(str(prefix), [f"damaged or truncated at {_SCOPE}{name}: {one_line(error)}"], _REMEDY)
        return array

    return {name.removeprefix(_SCOPE): tuple(found[name]) for name in names}, read


def _config(shapes: Mapping[str, tuple[int, ...]], where: str) -> tuple[ImageGPTConfig, int]:
    """Sizes of the model, and the number of classes of its classifier, 0 without one."""
    needed = {"wte": 2, "wpe": 2, "h0/attn/q_proj": 3, "h0/mlp/c_fc/w": 2}
    missing = [f"{_SCOPE}{name}" for name, rank in needed.items() if len(shapes.get(name, ())) != rank]
    if missing:
        refuse(where, [f"not an ImageGPT of openai/image-gpt: no {listed(missing)}"], "name one of its checkpoints")
    if "sos" not in shapes:
        fact = "trained with the BERT objective (it has no model/sos), so its attention is not causal"
        refuse(where, [fact], "take an autoregressive checkpoint: download.py of openai/image-gpt without --bert")
    layers = {int(match[1]) for name in shapes if (match := _LAYER.match(name))}
    n_positions = shapes["wpe"][0]
    problems = []
    if layers != set(range(len(layers))):
        problems.append(f"blocks are missing: there are {listed([f'h{i}' for i in sorted(layers)])}")
    if round(n_positions**0.5) ** 2 != n_positions:
        problems.append(f"{n_positions} positions are no square picture")
    if problems:
        refuse(where, problems, _REMEDY)
    n_embd, n_inner = shapes["h0/mlp/c_fc/w"]
    config = ImageGPTConfig(
        vocab_size=shapes["wte"][0] + 1,
        n_positions=n_positions,
        n_embd=n_embd,
        n_layer=len(layers),
        n_head=shapes["h0/attn/q_proj"][0],
        n_inner=None if n_inner == 4 * n_embd else n_inner,
        layer_norm_epsilon=_EPSILON,
    )
    return config, shapes.get("clf/wclf", (0,))[0]


def _map(
    shapes: Mapping[str, tuple[int, ...]], read: Read, config: ImageGPTConfig, parts: Parts, where: str
) -> dict[str, StoredTensor]:
    """The model's tensors, by their canonical names; nothing is read yet."""
    width, heads, head = config.n_embd, config.n_head, config.head_dim
    per_head = (heads, head, width)
    sources: dict[str, dict[str, tuple[int, ...]]] = {  # canonical name -> variables and their shapes
        "wte.weight": {"wte": (config.n_clusters, width), "sos": (width,)},
        "wpe.weight": {"wpe": (config.n_positions, width)},
        "ln_f.weight": {"ln_f/g": (width,)},
        "lm_head.weight": {"wtet": (config.n_clusters, width)},
    }
    if parts.n_labels:
        sources["classifier.weight"] = {"clf/wclf": (parts.n_labels, width)}
    for layer in range(config.n_layer):
        ours, theirs = f"h.{layer}.", f"h{layer}/"
        sources |= {
            ours + "ln_1.weight": {theirs + "ln_1/g": (width,)},
            ours + "attn.c_attn.weight": {f"{theirs}attn/{kind}_proj": per_head for kind in "qkv"},
            ours + "attn.c_proj.weight": {theirs + "attn/c_proj": per_head},
            ours + "ln_2.weight": {theirs + "ln_2/g": (width,)},
            ours + "mlp.c_fc.weight": {theirs + "mlp/c_fc/w": (width, config.inner_dim)},
            ours + "mlp.c_proj.weight": {theirs + "mlp/c_proj/w": (config.inner_dim, width)},
        }
    wanted = {name: shape for group in sources.values() for name, shape in group.items()}
    groups = {
        "missing tensors": [_SCOPE + name for name in wanted if name not in shapes],
        "tensors of another shape": [
            f"{_SCOPE}{name} {list(shapes[name])}, not {list(shape)}"
            for name, shape in wanted.items()
            if name in shapes and shapes[name] != shape
        ],
        "unknown tensors": sorted(_SCOPE + name for name in shapes if name not in wanted),
    }
    problems = [f"{fact} ({len(names)}): {listed(names)}" for fact, names in groups.items() if names]
    if problems:
        refuse(where, problems, _REMEDY)
    parameters = empty_model(config, parts).named_parameters()
    return {
        name: StoredTensor(name, tuple(parameter.shape), _DTYPE, _reader(name, list(sources[name]), read))
        for name, parameter in parameters
    }


def _reader(name: str, variables: list[str], read: Read) -> Callable[[], Tensor]:
    """Reads variables and lays them out as the model has them."""

    def make() -> Tensor:
        arrays = [read(variable) for variable in variables]
        if name.endswith("c_attn.weight"):
            # einsum("bsf,hef->bhse"): heads and their channels are the outputs.
            arrays = [array.reshape(-1, array.shape[2]).T for array in arrays]
            return torch.from_numpy(np.concatenate(arrays, axis=1))
        if name.endswith("attn.c_proj.weight"):
            # einsum("bhse,hef->bsf"): they are the inputs.
            return torch.from_numpy(arrays[0].reshape(-1, arrays[0].shape[2]))
        if name == "wte.weight":
            return torch.from_numpy(np.concatenate([arrays[0], arrays[1][None]]))
        return torch.from_numpy(arrays[0])

    return make


def _clusters(path: Path, config: ImageGPTConfig) -> npt.NDArray[np.float32]:
    """[n_clusters, 3] colours in [-1, 1]."""
    try:
        values = read_array(path)
    except FileNotFoundError:
        refuse(str(path), ["no such file"], "name the kmeans_centers.npy of the checkpoint")
    except (OSError, DamagedArrayError) as error:
        refuse(str(path), [f"not an array in NumPy's format: {one_line(error)}"], "download kmeans_centers.npy again")
    problems: list[str] = []
    clusters = check_clusters(values, config, problems)
    if problems:
        refuse(str(path), problems, "take the kmeans_centers.npy that was published with the checkpoint")
    return clusters
