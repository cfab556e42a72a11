"""A checkpoint as the exporter sees it: checked configuration, canonical tensors, colour clusters.

Reads Hugging Face's layout from a directory or from the Hub, and makes checkpoints of random weights.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from igpt_export.checkpoint.about import About, read_license
from igpt_export.checkpoint.config import architectures_from_hf, classifier_from_hf, config_from_hf, config_of
from igpt_export.checkpoint.generation import read_recommendation
from igpt_export.checkpoint.hub import download, parse_hub_id
from igpt_export.checkpoint.preprocessor import image_format_from_hf
from igpt_export.checkpoint.problems import one_line, read_json, refuse
from igpt_export.checkpoint.tensors import LazyTensors, MadeTensors, empty_model, find_heads, map_tensors, unwrapped
from igpt_export.checkpoint.weights import find_weights, hash_weights, open_weights
from igpt_export.model.model import ImageGPT, Parts, initialize_parameter
from igpt_runtime.bundle.config import Classifier, ImageFormat, ImageGPTConfig, SamplingDefaults
from igpt_runtime.engine.background import Task
from igpt_runtime.errors import OptionError

SHEET = "calibration.png"  # pictures beside a checkpoint: see `igpt_export.precision.picture_source.Sheet`
_CHECK_NAME = "check the name, or give a Hub id as owner/name"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Everything a bundle is made from."""

    name: str  # of the directory or repository, e.g. "imagegpt-small"
    config: ImageGPTConfig
    image_format: ImageFormat
    tensors: Mapping[str, Tensor]  # float32, named and shaped as ImageGPT's parameters; read or made when accessed
    classifier: Classifier | None
    source: str  # "owner/name@commit", the directory's name, or the recipe of random weights
    sha256: str | None  # over the weight files; over the recipe of random weights
    file: "WeightsFile | None" = None  # if all tensors are in one, as they are here
    sampling: SamplingDefaults = SamplingDefaults()  # that its author recommends
    about: About = field(default_factory=About)
    pictures: Path | None = None  # a sheet of pictures like those it was trained on, if it brings one along


@dataclass(frozen=True)
class WeightsFile:
    """A safetensors file whose tensors need no conversion."""

    path: Path
    stored_names: Mapping[str, str]  # by the names of ImageGPT's parameters


def load_checkpoint(source: str | Path) -> Checkpoint:
    """The checkpoint in a directory, or of a Hub id `owner/name[@revision]` (a directory of that name goes first).

    Raises CheckpointError, in one line with every problem of the first damaged file, for whatever cannot be used.
    """
    path = Path(source)
    try:
        is_directory, exists = path.is_dir() and source != "", path.exists() and source != ""
    except OSError as error:
        refuse(one_line(source), [f"cannot be read: {error.strerror}"], _CHECK_NAME)
    if is_directory:
        name = path.resolve().name
        return _read_directory(path, name=name, source=name)
    if exists:
        refuse(str(source), ["a file, not a checkpoint directory"], "name the directory that holds config.json")
    # A mistyped path is not looked up on the Hub.
    is_path = not isinstance(source, str) or (path.parent != Path(".") and path.parent.is_dir())
    hub = None if is_path else parse_hub_id(str(source))
    if hub is None:
        refuse(one_line(source), ["no such directory"], _CHECK_NAME)
    repo_id, revision = hub
    snapshot = download(repo_id, revision)
    return _read_directory(snapshot, name=repo_id.split("/")[1], source=f"{repo_id}@{snapshot.name}")


def random_checkpoint(variant: str, seed: int) -> Checkpoint:
    """A checkpoint of a variant's real size with GPT-2's initial weights: for trying and timing without a download.

    Its pictures are 32x32 and its clusters 8 evenly spread levels each of red, green and blue. The same seed gives the
    same weights. Raises OptionError for an unknown variant or a seed outside 0..2^64 - 1.
    """
    config = config_of(variant)
    if not 0 <= seed < 1 << 64:
        raise OptionError(f"seed {seed} is out of range - choose one from 0 to 2^64 - 1")
    side = round(config.n_positions**0.5)
    source = f"random weights, variant {variant}, seed {seed}"
    return Checkpoint(
        name=f"imagegpt-{variant}-random",
        config=config,
        image_format=ImageFormat(height=side, width=side, clusters=_lattice(config.n_clusters)),
        tensors=RandomTensors(config, seed),
        classifier=None,
        source=source,
        sha256=hashlib.sha256(source.encode()).hexdigest(),
    )


class RandomTensors(MadeTensors):
    """Initial weights of a whole model, made when they are accessed: a seed's are always the same."""

    def __init__(self, config: ImageGPTConfig, seed: int) -> None:
        self._config, self._seed = config, seed
        parameters = empty_model(config, Parts()).named_parameters()
        self.shapes = {name: tuple(parameter.shape) for name, parameter in parameters}
        super().__init__(self.shapes)

    def __getitem__(self, name: str) -> Tensor:
        tensor = torch.empty(self.shapes[name])
        # Of each tensor its own, so that none has to be made for another.
        key = hashlib.sha256(f"{self._seed} {name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(key[:8], "little"))
        initialize_parameter(tensor, name, self._config, generator)
        return tensor


def build_model(checkpoint: Checkpoint) -> ImageGPT:
    """The torch module of a checkpoint, in eval mode, with the heads it has."""
    tensors = checkpoint.tensors
    model = empty_model(checkpoint.config, Parts.of(tensors))
    model.load_state_dict(dict(tensors), assign=True)
    return model.requires_grad_(False).eval()


def _read_directory(directory: Path, *, name: str, source: str) -> Checkpoint:
    config_path, processor_path = directory / "config.json", directory / "preprocessor_config.json"
    raw = read_json(config_path)
    config = config_from_hf(raw, str(config_path))
    image_format = image_format_from_hf(read_json(processor_path), config, str(processor_path))
    recommended = read_recommendation(directory)
    stored = unwrapped(open_weights(directory), str(directory))
    hashing = Task(lambda: hash_weights(find_weights(directory)))  # while their values are looked at
    heads = find_heads(stored, architectures_from_hf(raw), str(directory))
    tensors = map_tensors(stored, config, heads, str(directory))
    classifier = None
    if heads.classifier:
        is_probe = heads.classifier == "probe"
        classifier = classifier_from_hf(raw, config, heads.shape, is_probe, str(config_path))
    sha256 = hashing.result()
    return Checkpoint(
        name,
        config,
        image_format,
        tensors,
        classifier,
        source,
        sha256,
        file=_weights_file(directory, tensors),
        sampling=recommended.sampling,
        about=About(read_license(directory), recommended.left_out),
        pictures=sheet if (sheet := directory / SHEET).is_file() else None,
    )


def _weights_file(directory: Path, tensors: LazyTensors) -> WeightsFile | None:
    paths = find_weights(directory)
    if len(paths) > 1 or paths[0].suffix != ".safetensors":
        return None
    if any(tensor.dtype != "F32" for tensor in tensors.stored.values()):
        return None
    return WeightsFile(paths[0], {name: tensor.name for name, tensor in tensors.stored.items()})


def _lattice(n_colors: int) -> npt.NDArray[np.float32]:
    """[n_colors, 3] colours in [-1, 1] on a cubic lattice; n_colors is a cube number."""
    levels = np.linspace(-1.0, 1.0, round(n_colors ** (1 / 3)), dtype=np.float32)
    return np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(n_colors, 3)
