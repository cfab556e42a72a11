"""Missing, damaged and hostile checkpoint files: each is one clear line."""

import codecs
import json
import os
import pickle
import resource
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from igpt_export.checkpoint.checkpoint import load_checkpoint
from igpt_runtime.errors import CheckpointError

Write = Callable[..., Path]


class Hostile:
    """Runs a command when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def refusal(source: Path | str, file: str = "") -> str:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(source)
    message = str(caught.value)
    assert message.isprintable()
    assert message.startswith(str(Path(source) / file) + ": ")
    assert " - " in message  # a remedy
    return message


def edit_processor(directory: Path, changes: dict[str, Any], remove: tuple[str, ...] = ()) -> None:
    path = directory / "preprocessor_config.json"
    fields = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in fields.items() if key not in remove}))


def test_no_such_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for source in (tmp_path / "none", str(tmp_path / "none"), "../none/here", "none", "a/b/c", "~/x", "a b"):
        assert "no such directory - check the name, or give a Hub id as owner/name" in refusal(source)
    for source in ("", "./none", "x" * 5000):
        with pytest.raises(CheckpointError, match=r"no such directory|cannot be read: File name too long"):
            load_checkpoint(source)


def test_file_instead_of_directory(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    assert "a file, not a checkpoint directory" in refusal(tmp_path / "model.safetensors")


def test_empty_directory(tmp_path: Path) -> None:
    assert "no such file - copy config.json" in refusal(tmp_path, "config.json")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty - copy"),
        (b"version https://git-lfs.github.com/spec/v1\noid x", "is a pointer of Git LFS, not the file itself"),
        (b'{"model_type": ', "not valid JSON"),
        (b"\xff\xfe", "not valid JSON: 'utf-8' codec"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[1]", "holds a JSON list, not an object"),
        (b"null", "holds a JSON NoneType, not an object"),
    ],
)
@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
def test_bad_json(write_checkpoint: Write, file: str, content: bytes, expected: str) -> None:
    directory = write_checkpoint()
    (directory / file).write_bytes(content)
    assert expected in refusal(directory, file)


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
def test_missing_json(write_checkpoint: Write, file: str) -> None:
    directory = write_checkpoint()
    (directory / file).unlink()
    assert f"no such file - copy {file} from the original checkpoint" in refusal(directory, file)


def test_no_weights(write_checkpoint: Write) -> None:
    directory = write_checkpoint()
    (directory / "model.safetensors").rename(directory / "weights.safetensors")
    assert "no weights (looked for model.safetensors, model.safetensors.index.json, pytorch_model" in refusal(directory)


def test_damaged_safetensors(write_checkpoint: Write) -> None:
    directory = write_checkpoint()
    path = directory / "model.safetensors"
    content = path.read_bytes()
    for damaged in (content[:-1], content[:100], content[:4], b"\xff" * 100, content + b"x", b"<html>not found</html>"):
        path.write_bytes(damaged)
        assert "damaged or truncated: " in refusal(directory, path.name)
    path.write_bytes(b"")
    assert "is empty - get the file again" in refusal(directory, path.name)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    assert "is a pointer of Git LFS, not the file itself - run: git lfs pull" in refusal(directory, path.name)


@pytest.fixture
def pickled(write_checkpoint: Write) -> Path:
    """The directory of a checkpoint whose weights are in pytorch_model.bin."""
    directory = write_checkpoint()
    torch.save(load_file(directory / "model.safetensors"), directory / "pytorch_model.bin")
    (directory / "model.safetensors").unlink()
    return directory


def test_damaged_pickle(pickled: Path) -> None:
    path = pickled / "pytorch_model.bin"
    content = path.read_bytes()
    for damaged in (content[:-1], content[:100], b"PK\x03\x04", b"<html>not found</html>", pickle.dumps({}, 2)[:-1]):
        path.write_bytes(damaged)
        assert "damaged" in refusal(pickled, path.name)
    path.write_bytes(b"")
    assert "is empty - get the file again" in refusal(pickled, path.name)


def test_hostile_pickle_is_not_run(pickled: Path, tmp_path: Path) -> None:
    path = pickled / "pytorch_model.bin"
    for hostile in ({"wte.weight": Hostile(tmp_path / "owned")}, Hostile(tmp_path / "owned")):
        torch.save(hostile, path)
        assert "not a state dict" in refusal(pickled, path.name)
        path.write_bytes(pickle.dumps(hostile, 2))
        refusal(pickled, path.name)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([torch.zeros(1)], "holds a list, not a state dict"),
        (torch.zeros(1), "holds a Tensor, not a state dict"),
        ({}, "holds a dict, not a state dict"),
        ({"state_dict": {"wte.weight": torch.zeros(1)}, "epoch": 3}, "not a state dict: state_dict, epoch is not a"),
        ({5: torch.zeros(1)}, "not a state dict: 5 is not"),
    ],
    ids=["list", "tensor", "empty", "wrapped", "numbered"],
)
def test_pickles_that_are_not_state_dicts(pickled: Path, content: object, expected: str) -> None:
    torch.save(content, pickled / "pytorch_model.bin")
    assert expected in refusal(pickled, "pytorch_model.bin")


def test_tensors_that_are_not_dense(pickled: Path) -> None:
    state = torch.load(pickled / "pytorch_model.bin", weights_only=True)
    state["lm_head.weight"] = state["lm_head.weight"].to_sparse()
    torch.save(state, pickled / "pytorch_model.bin")
    assert "none of F16, BF16, F32, F64 (1): lm_head.weight (torch.sparse_coo" in refusal(pickled)


@pytest.fixture
def sharded(write_checkpoint: Write) -> Path:
    """The directory of a checkpoint in several shards."""
    return write_checkpoint(max_shard_size="4KB")


INDEX = "model.safetensors.index.json"


def edit_index(directory: Path, change: Callable[[dict[str, str]], object]) -> None:
    index = json.loads((directory / INDEX).read_text())
    change(index["weight_map"])
    (directory / INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize(
    "name", ["../model.safetensors", "/etc/model.safetensors", "a\\b.safetensors", "C:x.safetensors", "x.bin", "", ".."]
)
def test_shards_outside_the_directory(sharded: Path, name: str) -> None:
    (sharded.parent / "model.safetensors").touch()
    edit_index(sharded, lambda shards: shards.update({"lm_head.weight": name}))
    assert "not the name of a .safetensors file beside it: " + name in refusal(sharded, INDEX)


@pytest.mark.parametrize("content", [{}, {"weight_map": []}, {"weight_map": {}}, {"weight_map": {"a": 1}}], ids=str)
def test_bad_index(sharded: Path, content: dict[str, Any]) -> None:
    (sharded / INDEX).write_text(json.dumps(content))
    assert "weight_map does not map tensor names to file names - download" in refusal(sharded, INDEX)


def test_missing_shard(sharded: Path) -> None:
    shard = sorted(sharded.glob("model-*.safetensors"))[1]
    shard.unlink()
    assert f"missing shards: {shard.name} - download the checkpoint again" in refusal(sharded, INDEX)


def test_damaged_shard(sharded: Path) -> None:
    shard = sorted(sharded.glob("model-*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-1])
    assert "damaged or truncated" in refusal(sharded, shard.name)


def test_index_and_shards_disagree(sharded: Path) -> None:
    first, second = sorted(sharded.glob("model-*.safetensors"))[:2]
    edit_index(sharded, lambda shards: (shards.pop("lm_head.weight"), shards.update({"ghost": first.name})))
    save_file({**load_file(second), "copy": torch.zeros(1)}, second)
    save_file({**load_file(first), "copy": torch.zeros(1)}, first)
    message = refusal(sharded)
    assert f"copy is both in {first.name} and in {second.name}" in message
    assert f"ghost is not in {first.name}" in message
    assert "lm_head.weight of " in message and "is not in the index" in message


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"size": 5}, "size 5x5 has 25 pixels, but the model has n_positions = 16"),
        ({"size": {"height": 2, "width": 4}}, "size 2x4 has 8 pixels"),
        ({"size": {"shortest_edge": 4}}, "size is {'shortest_edge': 4}, neither a number of pixels nor"),
        ({"size": -4}, "size is -4, neither"),
        ({"size": 4.0}, "size is 4.0, neither"),
        ({"size": True}, "size is True, neither"),
        ({"size": None}, "size is None, neither"),
        ({"clusters": None}, "clusters are missing"),
        ({"clusters": [[0.0, 0.0, 0.0]] * 7}, "clusters have shape [7, 3], not [8, 3] (vocab_size - 1 colours)"),
        ({"clusters": [[0.0, 0.0]] * 8}, "clusters have shape [8, 2], not [8, 3]"),
        ({"clusters": [[0.0, 0.0, 0.0], [0.0]]}, "clusters are not rows of three numbers"),
        ({"clusters": [["0", "0", "0"]] * 8}, "clusters are not rows of three numbers"),
        ({"clusters": "red"}, "clusters are not rows of three numbers"),
        ({"clusters": [[0.0, 0.0, float("nan")]] * 8}, "clusters contain NaN or infinity"),
        ({"clusters": [[0, 128, 255]] * 8}, "clusters reach 255, but colours lie in [-1, 1]"),
        ({"do_color_quantize": False}, "do_color_quantize is False, but tokens cannot be made without it"),
        ({"do_normalize": False}, "do_normalize is False"),
        ({"do_rescale": None}, "do_rescale is None"),
        ({"resample": 6}, "resample is 6, not one of PIL's filter numbers"),
        ({"resample": "bilinear"}, "resample is 'bilinear', not one of"),
        ({"image_mean": [0.48, 0.45, 0.41]}, "do not map pixels 0..255 to [-1, 1]"),
        ({"image_std": 0}, "do not map pixels"),
        ({"image_std": "x"}, "do not map pixels"),
        ({"rescale_factor": 1}, "do not map pixels"),
        ({"rescale_factor": None}, "do not map pixels"),
        ({"rescale_factor": 10**400}, "do not map pixels"),
        ({"image_processor_type": "ViTImageProcessor"}, "image_processor_type is 'ViTImageProcessor', not ImageGPT"),
    ],
    ids=str,
)
def test_bad_preprocessor(write_checkpoint: Write, changes: dict[str, Any], expected: str) -> None:
    directory = write_checkpoint()
    edit_processor(directory, changes)
    assert expected in refusal(directory, "preprocessor_config.json")


def test_one_refusal_lists_every_problem_of_the_preprocessor(write_checkpoint: Write) -> None:
    directory = write_checkpoint()
    edit_processor(directory, {"resample": 9, "do_rescale": False}, remove=("size", "clusters"))
    message = refusal(directory, "preprocessor_config.json")
    assert "size 256x256 (the default of a missing size) has 65536 pixels" in message
    for problem in ("clusters are missing", "resample is 9", "do_rescale is False"):
        assert problem in message


def test_preprocessors_of_older_transformers(write_checkpoint: Write) -> None:
    directory = write_checkpoint()
    removed = ("image_mean", "image_std", "rescale_factor", "do_rescale", "do_color_quantize", "image_processor_type")
    changes = {"size": 4, "feature_extractor_type": "ImageGPTFeatureExtractor", "resample": 3, "do_resize": False}
    edit_processor(directory, changes, removed)
    image_format = load_checkpoint(directory).image_format
    assert (image_format.height, image_format.width, image_format.resample) == (4, 4, 3)


def test_scaling_may_be_written_otherwise(write_checkpoint: Write) -> None:
    directory = write_checkpoint()
    edit_processor(directory, {"rescale_factor": 1 / 127.5, "image_mean": 1.0, "image_std": [1, 1, 1]})
    load_checkpoint(directory)


def test_zipped_weights_have_checksums(pickled: Path) -> None:
    """torch compares none, so that flipped bits would be other weights."""
    path = pickled / "pytorch_model.bin"
    content = bytearray(path.read_bytes())
    state = torch.load(path, weights_only=True, mmap=True)
    weight = state["transformer.wte.weight"].numpy().tobytes()
    place = bytes(content).index(weight)
    content[place + 5] ^= 4
    path.write_bytes(content)
    assert torch.load(path, weights_only=True).keys() == state.keys()
    assert "damaged: the checksum of " in refusal(pickled, path.name)


class Copies:
    """A long text that is copied again and again when it is unpickled."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __reduce__(self) -> Any:
        return codecs.encode, (self.text, "latin1")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_small_pickle_that_would_fill_the_memory(pickled: Path, zipped: bool) -> None:
    path = pickled / "pytorch_model.bin"
    text = "a" * 1_000_000
    torch.save([Copies(text) for _ in range(5000)], path, _use_new_zipfile_serialization=zipped)
    assert path.stat().st_size < 2_000_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "not a state dict: it also holds _codecs.encode" in refusal(pickled, path.name)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KB


def test_tensors_that_repeat_what_is_there(pickled: Path) -> None:
    path = pickled / "pytorch_model.bin"
    state = torch.load(path, weights_only=True)
    state["transformer.wte.weight"] = torch.zeros(1, 1).expand(1 << 20, 1 << 10)
    torch.save(state, path)
    assert "its tensors have 4,29" in refusal(pickled, path.name)


def test_compressed_weights(pickled: Path) -> None:
    path = pickled / "pytorch_model.bin"
    with zipfile.ZipFile(path) as old:
        members = {member.filename: old.read(member) for member in old.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name, content in members.items():
            new.writestr(name, content)
    assert "holds compressed parts, which torch.save does not write: " in refusal(pickled, path.name)


def test_more_calls_than_tensors(pickled: Path) -> None:
    path = pickled / "pytorch_model.bin"
    torch.save([OrderedDict() for _ in range(200_000)], path)
    assert "describes more tensors than a model can have" in refusal(pickled, path.name)
