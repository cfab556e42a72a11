"""A checkpoint directory: four files in Hugging Face's layout."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.torch import load_file, save_file
from torch import Tensor

from igpt_export.model.model import ImageGPT
from igpt_runtime.bundle.config import ImageGPTConfig, SamplingDefaults

Floats = npt.NDArray[np.float32]

_CONFIG, _PREPROCESSOR, _WEIGHTS = "config.json", "preprocessor_config.json", "model.safetensors"
_GENERATION = "generation_config.json"
_LM_HEAD, _PROBE = "lm_head.", "probe."


@dataclass(frozen=True, eq=False)
class Probe:
    """A linear classifier over features of one layer."""

    labels: Sequence[str]
    layer: int  # 0..n_layer
    protocol: str  # of the features: paper or hf
    weight: Tensor  # [labels, n_embd]
    bias: Tensor  # [labels]


def save(
    directory: Path,
    model: ImageGPT,
    clusters: Floats,
    probe: Probe | None = None,
    recommended: SamplingDefaults | None = None,
) -> None:
    """Write the checkpoint of a model of square pictures.

    clusters: [n, 3] in [-1, 1]. probe: without one its keys and weights are left out. recommended: how to draw from the
    model, for generation_config.json; without it that file is left as it is.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {
        name if name.startswith(_LM_HEAD) else f"transformer.{name}": tensor.detach().float().contiguous()
        for name, tensor in model.state_dict().items()
    }
    config = _config(model.config)
    if probe is not None:
        tensors |= {f"{_PROBE}weight": probe.weight.contiguous(), f"{_PROBE}bias": probe.bias}
        config |= {"probe_layers": [probe.layer], "probe_protocol": probe.protocol}
        config["id2label"] = {str(i): label for i, label in enumerate(probe.labels)}
        config["label2id"] = {label: i for i, label in enumerate(probe.labels)}
    side = round(model.config.n_positions**0.5)
    _write_json(directory / _CONFIG, config)
    _write_json(directory / _PREPROCESSOR, _preprocessor(clusters, side))
    if recommended is not None:
        _write_json(directory / _GENERATION, {"do_sample": True, **dataclasses.asdict(recommended)})
    save_file(tensors, directory / _WEIGHTS, metadata={"format": "pt"})


def load(directory: Path) -> tuple[ImageGPT, Floats]:
    """The model of a checkpoint, ready to evaluate and without its probe, and the clusters [n, 3]."""
    stored = json.loads((directory / _CONFIG).read_text())
    fields = {field.name: stored[field.name] for field in dataclasses.fields(ImageGPTConfig)}
    tensors = load_file(directory / _WEIGHTS)
    model = ImageGPT(ImageGPTConfig(**fields)).eval()
    own = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items() if _PROBE not in name}
    model.load_state_dict(own)
    clusters = json.loads((directory / _PREPROCESSOR).read_text())["clusters"]
    return model, np.asarray(clusters, np.float32)


def _config(config: ImageGPTConfig) -> dict[str, object]:
    return {
        "architectures": ["ImageGPTForCausalImageModeling"],
        "model_type": "imagegpt",
        **dataclasses.asdict(config),
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "initializer_range": 0.02,
        "tie_word_embeddings": False,
        "use_cache": True,
        "dtype": "float32",
    }


def _preprocessor(clusters: Floats, side: int) -> dict[str, object]:
    return {
        "image_processor_type": "ImageGPTImageProcessor",
        "do_resize": True,
        "size": {"height": side, "width": side},
        "resample": 2,
        "do_normalize": True,
        "do_color_quantize": True,
        "clusters": [[float(value) for value in colour] for colour in clusters],
    }


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")
