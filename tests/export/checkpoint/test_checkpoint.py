"""Checkpoints of every layout become canonical tensors that compute what transformers computes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from igpt_export.checkpoint.checkpoint import Checkpoint, build_model, load_checkpoint, random_checkpoint
from igpt_export.checkpoint.weights import open_safetensors
from igpt_runtime.bundle.config import Classifier
from igpt_runtime.errors import CheckpointError, OptionError

Write = Callable[..., Path]
TOKENS = torch.randint(0, 9, (2, 16), generator=torch.Generator().manual_seed(0))


def edit_json(path: Path, changes: dict[str, Any], remove: tuple[str, ...] = ()) -> None:
    fields = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in fields.items() if key not in remove}))


def edit_tensors(directory: Path, changes: dict[str, torch.Tensor], remove: tuple[str, ...] = ()) -> None:
    tensors = {**load_file(directory / "model.safetensors"), **changes}
    save_file({k: v for k, v in tensors.items() if k not in remove}, directory / "model.safetensors")


def refusal(source: Path | str) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(source)
    message = str(caught.value)
    assert "\n" not in message
    assert str(source) in message
    assert " - " in message  # a remedy
    return message


def their_logits(directory: Path) -> torch.Tensor:
    model = transformers.ImageGPTForCausalImageModeling.from_pretrained(directory)
    with torch.no_grad():
        logits: torch.Tensor = model(TOKENS).logits
    return logits


def our_logits(checkpoint: Checkpoint) -> torch.Tensor:
    with torch.no_grad():
        return build_model(checkpoint).logits(TOKENS)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"n_inner": 40},
        {"n_head": 1},
        {"activation_function": "gelu_new"},
        {"activation_function": "gelu"},
        {"activation_function": "relu"},
        {"layer_norm_epsilon": 0.5},
        {"scale_attn_weights": False},
        {"scale_attn_by_inverse_layer_idx": True},
        {"reorder_and_upcast_attn": True, "scale_attn_by_inverse_layer_idx": True},
        {"is_decoder": True},
    ],
    ids=str,
)
def test_logits_are_those_of_transformers(write_checkpoint: Write, fields: dict[str, Any]) -> None:
    directory = write_checkpoint(fields=fields)
    checkpoint = load_checkpoint(directory)
    torch.testing.assert_close(our_logits(checkpoint), their_logits(directory), atol=1e-5, rtol=1e-5)


def test_checkpoint_says_where_it_is_from(write_checkpoint: Write) -> None:
    directory = write_checkpoint()
    checkpoint = load_checkpoint(str(directory))
    assert (checkpoint.name, checkpoint.source, checkpoint.classifier) == ("tiny", "tiny", None)
    assert checkpoint.sha256 is not None and len(checkpoint.sha256) == 64
    assert (checkpoint.image_format.height, checkpoint.image_format.width) == (4, 4)
    assert checkpoint.image_format.clusters.shape == (8, 3)
    assert checkpoint.image_format.clusters.dtype == np.float32
    edit_tensors(directory, {"lm_head.weight": torch.zeros(8, 16)})
    assert load_checkpoint(directory).sha256 != checkpoint.sha256


def test_tensors_are_named_as_the_model(write_checkpoint: Write) -> None:
    checkpoint = load_checkpoint(write_checkpoint())
    assert list(checkpoint.tensors) == list(build_model(checkpoint).state_dict())
    assert len(checkpoint.tensors) == 2 + 2 * 10 + 2
    with pytest.raises(KeyError):
        checkpoint.tensors["transformer.wte.weight"]


def test_sharded_safetensors(write_checkpoint: Write) -> None:
    directory = write_checkpoint(max_shard_size="4KB")
    assert not (directory / "model.safetensors").exists()
    assert len(list(directory.glob("model-*.safetensors"))) > 2
    torch.testing.assert_close(our_logits(load_checkpoint(directory)), their_logits(directory), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_weights_with_mask_buffers(write_checkpoint: Write, zipped: bool) -> None:
    directory = write_checkpoint()
    expected = our_logits(load_checkpoint(directory))
    state = load_file(directory / "model.safetensors")
    for layer in range(2):
        state[f"transformer.h.{layer}.attn.bias"] = torch.ones(1, 1, 16, 16, dtype=torch.uint8).tril()
        state[f"transformer.h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    (directory / "model.safetensors").unlink()
    torch.save(state, directory / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    assert torch.equal(our_logits(load_checkpoint(directory)), expected)


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda name: f"_orig_mod.{name}",
        lambda name: f"module.{name}",
        lambda name: f"model._orig_mod.{name}",
        lambda name: f"_orig_mod.module.{name}",
        lambda name: name.replace("transformer.h.", "transformer._orig_mod.h."),
        lambda name: name.replace("h.0.", "h.0._fsdp_wrapped_module._checkpoint_wrapped_module."),
    ],
    ids=["compile", "parallel", "module", "both", "compiled body", "fsdp"],
)
@pytest.mark.parametrize("kind", ["ImageGPTForCausalImageModeling", "ImageGPTForImageClassification", "ImageGPTModel"])
def test_names_that_wrappers_made(write_checkpoint: Write, wrapped: Callable[[str], str], kind: str) -> None:
    directory = write_checkpoint(kind)
    plain = load_checkpoint(directory)
    expected = dict(plain.tensors)
    state = load_file(directory / "model.safetensors")
    save_file({wrapped(name): tensor for name, tensor in state.items()}, directory / "model.safetensors")
    found = load_checkpoint(directory)
    assert found.tensors.keys() == expected.keys()
    assert all(torch.equal(found.tensors[name], expected[name]) for name in expected)
    assert found.file is not None and plain.file is not None
    assert found.file.stored_names == {name: wrapped(there) for name, there in plain.file.stored_names.items()}


def test_one_name_for_two_tensors(write_checkpoint: Write) -> None:
    directory = write_checkpoint()
    state = load_file(directory / "model.safetensors")
    state["_orig_mod.lm_head.weight"] = state["lm_head.weight"].clone()
    save_file(state, directory / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"lm_head\.weight are both lm_head\.weight - keep one"):
        load_checkpoint(directory)


def test_sharded_pickled_weights(write_checkpoint: Write) -> None:
    directory = write_checkpoint()
    expected = our_logits(load_checkpoint(directory))
    state = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    weight_map = {}
    for i, name in enumerate(state):
        weight_map[name] = f"pytorch_model-0000{i % 2 + 1}-of-00002.bin"
    for file in set(weight_map.values()):
        torch.save({n: t for n, t in state.items() if weight_map[n] == file}, directory / file)
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    assert torch.equal(our_logits(load_checkpoint(directory)), expected)


def test_a_file_larger_than_the_memory_opens(tmp_path: Path) -> None:
    """A sparse one of 4 TB, whose second tensor is read."""
    size, small = 1 << 42, torch.arange(6, dtype=torch.bfloat16)
    header = json.dumps(
        {
            "large": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]},
            "small": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [size, size + 12]},
        }
    ).encode()
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.seek(size, 1)
        file.write(small.view(torch.int16).numpy().tobytes())
    stored = open_safetensors(path)
    assert stored["large"].shape == (size // 4,) and torch.equal(stored["small"].read(), small.view(2, 3))


def test_a_file_that_shrinks_while_it_is_read(write_checkpoint: Write) -> None:
    path = write_checkpoint() / "model.safetensors"
    stored = open_safetensors(path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(CheckpointError, match="it has changed"):
        for tensor in stored.values():
            tensor.read()
    path.unlink()
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        stored["lm_head.weight"].read()


def test_safetensors_are_preferred(write_checkpoint: Write) -> None:
    directory = write_checkpoint()
    (directory / "pytorch_model.bin").write_bytes(b"never read")
    load_checkpoint(directory)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_become_float32(write_checkpoint: Write, dtype: torch.dtype) -> None:
    directory = write_checkpoint()
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(directory / "model.safetensors").items()}
    save_file(tensors, directory / "model.safetensors")
    checkpoint = load_checkpoint(directory)
    assert {tensor.dtype for tensor in checkpoint.tensors.values()} == {torch.float32}
    assert torch.equal(checkpoint.tensors["wpe.weight"], tensors["transformer.wpe.weight"].float())


def test_classification_checkpoint(write_checkpoint: Write) -> None:
    labels = {"id2label": {0: "cat", 1: "dog", 2: "eel"}}
    directory = write_checkpoint("ImageGPTForImageClassification", labels)
    checkpoint = load_checkpoint(directory)
    assert checkpoint.classifier == Classifier(("cat", "dog", "eel"), (2,), "hf")
    model = build_model(checkpoint)
    assert model.lm_head is None and model.classifier is not None and model.classifier.bias is None
    theirs = transformers.ImageGPTForImageClassification.from_pretrained(directory)
    with torch.no_grad():
        ours = model.class_logits(model(TOKENS), checkpoint.classifier)
        torch.testing.assert_close(ours, theirs(TOKENS).logits, atol=1e-5, rtol=1e-5)


def test_labels_without_names(write_checkpoint: Write) -> None:
    checkpoint = load_checkpoint(write_checkpoint("ImageGPTForImageClassification"))
    assert checkpoint.classifier is not None and checkpoint.classifier.labels == ("LABEL_0", "LABEL_1")


def test_bare_model_has_no_heads(write_checkpoint: Write) -> None:
    directory = write_checkpoint("ImageGPTModel")
    checkpoint = load_checkpoint(directory)
    assert checkpoint.classifier is None and "lm_head.weight" not in checkpoint.tensors
    theirs = transformers.ImageGPTModel.from_pretrained(directory)
    with torch.no_grad():
        ours = build_model(checkpoint)(TOKENS)[0]
        torch.testing.assert_close(ours, theirs(TOKENS).last_hidden_state, atol=1e-5, rtol=1e-5)


def test_probe(write_checkpoint: Write) -> None:
    directory = write_checkpoint()
    edit_tensors(directory, {"probe.weight": torch.ones(3, 32), "probe.bias": torch.arange(3.0)})
    edit_json(directory / "config.json", {"probe_layers": [1, 0], "probe_protocol": "paper"})
    checkpoint = load_checkpoint(directory)
    assert checkpoint.classifier == Classifier(("LABEL_0", "LABEL_1", "LABEL_2"), (1, 0), "paper")
    model = build_model(checkpoint)
    with torch.no_grad():
        states = model(TOKENS)
        pooled = torch.cat([model.h[1].ln_1(states.hidden[1], torch.zeros(()))[0], states.normed[0]], -1).mean(1)
        ours = model.class_logits(states, checkpoint.classifier)
    torch.testing.assert_close(ours, pooled.sum(1, keepdim=True) + torch.arange(3.0), atol=1e-4, rtol=1e-4)
    assert checkpoint.tensors["classifier.bias"].tolist() == [0, 1, 2]
    assert "lm_head.weight" in checkpoint.tensors


def test_every_tensor_that_does_not_fit_is_listed(write_checkpoint: Write) -> None:
    directory = write_checkpoint()
    changes = {
        "transformer.wpe.weight": torch.zeros(15, 16),
        "transformer.ln_f.weight": torch.zeros(16, dtype=torch.int32),
        "transformer.h.2.attn.bias": torch.zeros(1),
        "transformer.h.0.crossattention.bias": torch.zeros(1),
        "evil\n": torch.zeros(1),
    }
    edit_tensors(directory, changes, remove=("transformer.h.0.ln_1.weight", "lm_head.weight"))
    message = refusal(directory)
    assert "missing tensors (2): transformer.h.0.ln_1.weight, lm_head.weight" in message
    assert "tensors of another shape (1): transformer.wpe.weight [15, 16], not [16, 16]" in message
    assert "tensors that are none of F16, BF16, F32, F64 (1): transformer.ln_f.weight (I32)" in message
    unknown = "unknown tensors (3): evil, transformer.h.0.crossattention.bias, transformer.h.2.attn.bias"
    assert unknown in message


def test_long_lists_are_abbreviated(write_checkpoint: Write) -> None:
    directory = write_checkpoint()
    edit_json(directory / "config.json", {"n_layer": 5})
    assert "missing tensors (30): transformer.h.2.ln_1.weight" in refusal(directory)
    assert "and 10 more" in refusal(directory)


def test_a_lost_score_head_is_missed(write_checkpoint: Write) -> None:
    directory = write_checkpoint("ImageGPTForImageClassification")
    edit_tensors(directory, {}, remove=("score.weight",))
    assert "missing tensors (1): score.weight" in refusal(directory)


def test_heads_that_contradict(write_checkpoint: Write) -> None:
    directory = write_checkpoint()
    edit_tensors(directory, {"probe.weight": torch.ones(3, 16)})
    assert "missing tensors (1): probe.bias" in refusal(directory)
    edit_tensors(directory, {"score.weight": torch.ones(3, 16)})
    assert "two classifiers, score and probe" in refusal(directory)
    edit_tensors(directory, {"score.weight": torch.ones(0, 16)}, remove=("probe.weight",))
    assert "score.weight has no rows" in refusal(directory)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 1e300])
def test_what_is_not_finite_in_float32_is_refused(write_checkpoint: Write, value: float) -> None:
    directory = write_checkpoint()
    weight = torch.zeros(8, 16, dtype=torch.float64)
    weight[3, 3] = value
    edit_tensors(directory, {"lm_head.weight": weight})
    assert "NaN or infinity (in float32) in 1 tensors: lm_head.weight" in refusal(directory)


def test_random_weights_are_the_same_for_the_same_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    from igpt_export.checkpoint import config
    from igpt_runtime.bundle.config import ImageGPTConfig

    monkeypatch.setitem(config.VARIANTS, "small", ImageGPTConfig(n_layer=2, n_embd=16, n_head=2))
    state = torch.get_rng_state()
    first, again, other = (random_checkpoint("small", seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)  # nobody else's random numbers change
    assert first.name == "imagegpt-small-random"
    assert first.source == "random weights, variant small, seed 1"
    assert first.sha256 == again.sha256 != other.sha256
    assert all(torch.equal(first.tensors[name], again.tensors[name]) for name in first.tensors)
    assert not torch.equal(first.tensors["wte.weight"], other.tensors["wte.weight"])
    assert float(first.tensors["wte.weight"].std()) == pytest.approx(0.02, rel=0.1)
    assert build_model(first).logits(TOKENS).shape == (2, 16, 512)
    clusters = first.image_format.clusters
    assert clusters.shape == (512, 3) and len(np.unique(clusters, axis=0)) == 512
    assert (clusters.min(), clusters.max(), first.image_format.height) == (-1, 1, 32)


def test_random_weights_of_nothing() -> None:
    with pytest.raises(OptionError, match="unknown variant 'tiny' - choose one of"):
        random_checkpoint("tiny", 0)
    with pytest.raises(OptionError, match="seed -1 is out of range"):
        random_checkpoint("small", -1)
