"""The demo's checkpoint directory: four files in Hugging Face's layout."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import digits
import numpy as np
from safetensors.torch import load_file, save_file
from sampling import Sampling
from torch import Tensor

from igpt_export.model.model import ImageGPT
from igpt_runtime.bundle.config import ImageGPTConfig

_CONFIG, _PREPROCESSOR, _WEIGHTS = "config.json", "preprocessor_config.json", "model.safetensors"
_GENERATION = "generation_config.json"
_LM_HEAD, _PROBE = "lm_head.", "probe."


@dataclass(frozen=True)
class Probe:
    """A linear classifier of ten digits over features of one layer."""

    layer: int  # 0..n_layer
    protocol: str  # of the features: paper or hf
    weight: Tensor  # [10, n_embd]
    bias: Tensor  # [10]


def save(
    directory: Path,
    model: ImageGPT,
    clusters: digits.Floats,
    probe: Probe | None = None,
    recommended: Sampling | None = None,
) -> None:
    """Write the checkpoint; without a probe its keys and weights are left out.

    recommended: how to draw from it, for generation_config.json; without it that file is left as it is.
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
    _write_json(directory / _CONFIG, config)
    _write_json(directory / _PREPROCESSOR, _preprocessor(clusters))
    if recommended is not None:
        _write_json(directory / _GENERATION, {"do_sample": True, **dataclasses.asdict(recommended)})
    save_file(tensors, directory / _WEIGHTS, metadata={"format": "pt"})


def load(directory: Path) -> tuple[ImageGPT, digits.Floats, Probe | None]:
    """Read the checkpoint: the model ready to evaluate, the clusters [256, 3] and the probe if it has one."""
    stored = json.loads((directory / _CONFIG).read_text())
    fields = {field.name: stored[field.name] for field in dataclasses.fields(ImageGPTConfig)}
    tensors = load_file(directory / _WEIGHTS)
    probe = None
    if f"{_PROBE}weight" in tensors:
        weight, bias = tensors.pop(f"{_PROBE}weight"), tensors.pop(f"{_PROBE}bias")
        probe = Probe(stored["probe_layers"][0], stored["probe_protocol"], weight, bias)
    model = ImageGPT(ImageGPTConfig(**fields)).eval()
    model.load_state_dict({name.removeprefix("transformer."): tensor for name, tensor in tensors.items()})
    clusters = json.loads((directory / _PREPROCESSOR).read_text())["clusters"]
    return model, np.asarray(clusters, np.float32), probe


def _config(config: ImageGPTConfig) -> dict[str, object]:
    labels = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
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
        "id2label": {str(index): label for index, label in enumerate(labels)},
        "label2id": {label: index for index, label in enumerate(labels)},
    }


def _preprocessor(clusters: digits.Floats) -> dict[str, object]:
    return {
        "image_processor_type": "ImageGPTImageProcessor",
        "do_resize": True,
        "size": {"height": digits.SIDE, "width": digits.SIDE},
        "resample": 2,
        "do_normalize": True,
        "do_color_quantize": True,
        "clusters": [[float(value) for value in colour] for colour in clusters],
    }


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")
