"""Bundles below fp32: what is rounded how, what it costs, and when that is too much."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional

from igpt_export import export
from igpt_export.checkpoint.checkpoint import load_checkpoint
from igpt_export.cli import main
from igpt_export.export import ExportOptions, export_bundle
from igpt_export.model.model import NIBBLE_BLOCK
from igpt_export.precision.calibration import Outputs, load_pictures, observe
from igpt_export.precision.picture_source import picture_source
from igpt_export.precision.precision import Precision
from igpt_export.precision.quantize import INTEGER_LEVELS, QuantizedTensors
from igpt_export.verify.certificate import Certificate, Shift, check_loss, compare, compare_features
from igpt_runtime import open_bundle
from igpt_runtime.bundle.config import Classifier
from igpt_runtime.errors import VerificationError

BundleOf = Callable[[str, str], Path]
Rounded = tuple[torch.Tensor, torch.Tensor, QuantizedTensors]
LINEAR = "h.1.mlp.c_fc"


def failure(*arguments: object) -> str:
    """The one line that the command fails with."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 1 and result.stdout == "", result.output
    return next(line for line in result.stderr.splitlines() if line.startswith("Error: "))


@pytest.mark.parametrize(
    ("weights", "kv_cache"), [("int8", "int8"), ("int4", "fp32"), ("fp32", "int8"), ("fp16", "fp16")]
)
def test_certificate_is_complete(bundle_of: BundleOf, weights: str, kv_cache: str) -> None:
    manifest = open_bundle(bundle_of(weights, kv_cache)).manifest
    assert (manifest.precision, manifest.kv_cache) == (weights, kv_cache)
    certificate = manifest.certificate
    assert certificate is not None and certificate["pictures"] == "64 handwritten digits"
    assert len(certificate["largest_activation"]) == 3 and min(certificate["largest_activation"]) > 0
    for graph in ("prefill", "decode"):
        for part in ("calibration", "held_out"):
            loss = certificate[graph][part]
            assert loss["pictures"] == 32
            assert loss["increase"] == pytest.approx(loss["nats_per_token"] - loss["nats_per_token_fp32"])
            exact = weights == "fp32" and graph == "prefill"  # its logits do not come from the cache
            assert loss["kl_divergence"] < 1e-9 if exact else 1e-9 < loss["kl_divergence"] < 2
            assert loss["top1_agreement"] == 1 if exact else 0.3 < loss["top1_agreement"] <= 1
    for part in ("calibration", "held_out"):
        shift = certificate["features"][part]
        assert shift["pictures"] == 32
        assert shift["features_error"] < 1e-5 if weights == "fp32" else 1e-5 < shift["features_error"] < 0.2
        assert shift["kl_divergence"] < 1e-9 if weights == "fp32" else 1e-12 < shift["kl_divergence"] < 0.1
        assert 0.8 < shift["top1_agreement"] <= 1


def test_certificate_of_features_alone(write_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    checkpoint = load_checkpoint(write_checkpoint("ImageGPTModel"))
    certificate = export_bundle(checkpoint, tmp_path / "bundle", ExportOptions(Precision("int8", "int8"))).certificate
    assert certificate is not None and certificate["prefill"] is None and certificate["decode"] is None
    shift = open_bundle(tmp_path / "bundle").manifest.certificate["features"]["held_out"]
    assert 1e-5 < shift["features_error"] < 0.2 and shift["kl_divergence"] is None


def test_a_shift_is_relative_error_and_kl_divergence() -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(5, 2, 3)).astype(np.float32)
    classes, others = generator.normal(size=(2, 5, 4)).astype(np.float32)
    moved = features * np.array([1.01, 1.1], np.float32)[:, None]
    classifier = Classifier(("a", "b", "c", "d"), (1,), "hf")
    ours, theirs = Outputs(None, moved, others), Outputs(None, features, classes)
    shift = compare_features(theirs, ours, classifier)
    assert shift.features_error == pytest.approx(0.1, rel=1e-4)  # of the worse layer
    flat = [functional.log_softmax(torch.from_numpy(logits).double(), -1) for logits in (others, classes)]
    assert shift.kl_divergence == pytest.approx(float(functional.kl_div(*flat, reduction="batchmean", log_target=True)))
    assert shift.top1_agreement == (classes.argmax(-1) == others.argmax(-1)).mean()
    several = compare_features(theirs, ours, replace(classifier, function_to_apply="sigmoid"))
    right, found = (torch.distributions.Bernoulli(logits=torch.from_numpy(logits)) for logits in (classes, others))
    divergence = torch.distributions.kl_divergence(right, found).sum(-1).mean()
    assert several.kl_divergence == pytest.approx(float(divergence), rel=1e-5)
    assert several.top1_agreement == ((classes > 0) == (others > 0)).mean()
    values = compare_features(theirs, ours, replace(classifier, function_to_apply="none"))
    assert (values.kl_divergence, values.top1_agreement) == (None, None)


def test_a_loss_that_falls_by_chance_does_not_hide_other_predictions() -> None:
    generator = torch.Generator().manual_seed(0)
    reference = torch.randn(2, 5, 7, generator=generator).numpy()
    other = torch.randn(2, 5, 7, generator=generator).numpy()
    loss = compare(reference, other, other.argmax(-1))  # tokens that the other predicts better
    assert loss.increase < 0 < loss.kl_divergence
    shift = Shift(2, 0.1, None, None)
    parts = {"calibration": loss, "held_out": loss}
    certificate = Certificate("2 pictures", parts, None, {"calibration": shift, "held_out": shift}, ())
    with pytest.raises(
        VerificationError, match=r"costs \d\.\d{4} nats of divergence \(prefill, 2 pictures\), more than"
    ):
        check_loss(certificate, 0.04)
    check_loss(certificate, 10.0)


def test_exact_bundles_have_no_certificate(tiny_bundle: Path) -> None:
    assert open_bundle(tiny_bundle).manifest.certificate is None


def test_compare_is_cross_entropy_and_kl_divergence() -> None:
    generator = torch.Generator().manual_seed(0)
    reference, logits = (torch.randn(2, 5, 7, generator=generator) for _ in range(2))
    tokens = torch.randint(7, (2, 5), generator=generator)
    loss = compare(reference.numpy(), logits.numpy(), tokens.numpy())
    flat = [functional.log_softmax(t.double().flatten(0, 1), -1) for t in (logits, reference)]
    assert loss.nats_per_token == pytest.approx(float(functional.nll_loss(flat[0], tokens.flatten())))
    assert loss.nats_per_token_fp32 == pytest.approx(float(functional.nll_loss(flat[1], tokens.flatten())))
    expected = float(functional.kl_div(*flat, reduction="batchmean", log_target=True))
    assert loss.kl_divergence == pytest.approx(expected)
    assert loss.top1_agreement == float((logits.argmax(-1) == reference.argmax(-1)).double().mean())


@pytest.fixture(scope="module")
def rounded(tiny_checkpoint: Path) -> Callable[[str], Rounded]:
    """A function from a precision to a matrix, the mean squares of its inputs, and the rounded tensors."""
    checkpoint = load_checkpoint(tiny_checkpoint)
    observation, _ = observe(checkpoint, load_pictures(checkpoint, picture_source(checkpoint, None)))
    weight = checkpoint.tensors[f"{LINEAR}.weight"]
    return lambda name: (
        weight,
        observation.power[LINEAR],
        QuantizedTensors(
            checkpoint.tensors,
            checkpoint.config,
            Precision(name, "fp16" if name == "fp16" else "int8"),
            observation,
        ),
    )


def test_bytes_are_the_nearest_levels(rounded: Callable[[str], Rounded]) -> None:
    weight, _, tensors = rounded("int8")
    levels, scale = tensors[f"{LINEAR}.weight"], tensors[f"{LINEAR}.weight_scale"]
    assert levels.dtype == torch.int8 and levels.shape == weight.shape and scale.shape == weight.shape[1:]
    assert ((levels * scale - weight).abs() <= scale / 2 * (1 + 1e-5)).all()
    assert (levels.abs().amax(0) == INTEGER_LEVELS).all()
    assert 2 * 255 * INTEGER_LEVELS < 2**15  # what kernels without VNNI add in 16 bits


def test_nibbles_beat_plain_rounding(rounded: Callable[[str], Rounded]) -> None:
    weight, power, tensors = rounded("int4")
    stored, scale = tensors[f"{LINEAR}.weight"], tensors[f"{LINEAR}.weight_scale"]
    n_in, n_out = weight.shape
    block = min(NIBBLE_BLOCK, n_in)
    assert stored.dtype == torch.uint8 and stored.shape == (n_out, n_in // block, block // 2)
    levels = torch.stack([stored & 15, stored >> 4], -1).flatten(2).float() - 8
    ours = (levels * scale[..., None]).flatten(1).t()
    step = weight.abs().amax(0) / 7
    plain = torch.round(weight / step) * step
    ours_error, plain_error = ((power[:, None] * (w - weight) ** 2).mean() for w in (ours, plain))
    assert ours_error < 0.9 * plain_error


def test_every_tensor_has_the_announced_shape(
    rounded: Callable[[str], Rounded],
) -> None:
    for name in ("fp32", "int8", "int4", "fp16"):
        *_, tensors = rounded(name)
        assert {k: (t.dtype, tuple(t.shape)) for k, t in tensors.items()} == tensors.shapes


def test_a_loss_above_the_limit_leaves_nothing(tiny_checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "bundle"
    message = failure(
        "--checkpoint", tiny_checkpoint, "--precision", "int4", "--max-loss-increase", "-1", "--output", output
    )
    assert "nats per token (prefill, 64 handwritten digits), more than --max-loss-increase -1" in message
    assert list(tmp_path.iterdir()) == []


def test_a_classifier_is_held_to_the_limit_too(write_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    checkpoint = write_checkpoint("ImageGPTForImageClassification")
    arguments = ("--checkpoint", checkpoint, "--precision", "int8", "--output", tmp_path / "bundle")
    assert "nats per picture (classes, 64 handwritten digits)" in failure(*arguments, "--max-loss-increase", "-1")
    assert not (tmp_path / "bundle").exists()


def test_a_limit_without_anything_to_lose(write_checkpoint: Callable[..., Path]) -> None:
    arguments = ("--checkpoint", write_checkpoint("ImageGPTModel"), "--precision", "int8", "--max-loss-increase", "1")
    assert "predicts neither tokens nor classes, so its loss is not known" in failure(*arguments)


def test_calibration_pictures_of_the_user(tiny_checkpoint: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    generator = np.random.default_rng(0)
    for i in range(5):
        Image.fromarray(generator.integers(0, 255, (9, 12, 3), dtype=np.uint8)).save(pictures / f"{i}.png")
    (pictures / "notes.txt").write_text("not a picture")
    arguments = ["--checkpoint", tiny_checkpoint, "--precision", "int8", "--kv-cache", "fp32"]
    arguments += ["--calibration", pictures, "--max-loss-increase", "9", "--output", tmp_path / "bundle", "--json"]
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    certificate = json.loads(result.stdout)["certificate"]
    assert certificate["pictures"] == "5 pictures of pictures"
    assert [certificate["decode"][part]["pictures"] for part in ("calibration", "held_out")] == [3, 2]


def test_bad_calibration_pictures(tiny_checkpoint: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    arguments = ("--checkpoint", tiny_checkpoint, "--precision", "int8", "--calibration", pictures)
    assert f"{pictures} is no directory; give --calibration a directory of at least 2" in failure(*arguments)
    pictures.mkdir()
    Image.new("RGB", (8, 8)).save(pictures / "a.png")
    assert f"{pictures} holds one picture; give --calibration a directory of at least 2" in failure(*arguments)
    (pictures / "b.png").write_bytes(b"no picture")
    assert "--calibration: " in failure(*arguments) and "b.png" in failure(*arguments)


def test_a_width_the_kernels_do_not_take(write_checkpoint: Callable[..., Path]) -> None:
    checkpoint = write_checkpoint(fields={"n_embd": 24, "n_head": 3})
    message = failure("--checkpoint", checkpoint, "--precision", "int4")
    assert message == "Error: int4 needs n_embd to be a multiple of 16, it is 24; use --precision fp32"


def test_everything_is_half_in_fp16(rounded: Callable[[str], Rounded], bundle_of: BundleOf) -> None:
    weight, _, tensors = rounded("fp16")
    assert {dtype for dtype, _ in tensors.shapes.values()} == {torch.float16}
    assert torch.equal(tensors[f"{LINEAR}.weight"], weight.half())
    manifest = open_bundle(bundle_of("fp16", "fp16")).manifest
    embedded = {"preprocess", "postprocess", "features", "classify", "score"}
    assert set(manifest.graphs) == {"prefill", "decode", *embedded}
    dtypes = {spec.name: spec.dtype for graph in manifest.graphs.values() for spec in (*graph.inputs, *graph.outputs)}
    assert {name.split(".")[0] for name, dtype in dtypes.items() if dtype == "float16"} == {
        "past_key_values",
        "present",
    }


@pytest.mark.parametrize(
    ("precision", "kv_cache"), [("fp16", "fp32"), ("fp16", "int8"), ("fp32", "fp16"), ("int8", "fp16")]
)
def test_an_fp16_cache_goes_with_fp16_weights_only(
    refused: Callable[..., str], tiny_checkpoint: Path, precision: str, kv_cache: str
) -> None:
    message = refused(main, "--checkpoint", tiny_checkpoint, "--precision", precision, "--kv-cache", kv_cache)
    assert message == (
        f"a {kv_cache} cache does not go with {precision} weights: fp16 weights have an fp16 cache and no others do; "
        "leave --kv-cache out"
    )


BLOCK = "the largest activation of block {}, the residual stream included, is "


def scaled(directory: Path, name: str, factor: float) -> Path:
    """A checkpoint with one of its tensors multiplied."""
    tensors = load_file(directory / "model.safetensors")
    tensors[name] *= factor
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


@pytest.mark.parametrize(
    ("name", "factor", "message"),
    [
        pytest.param("transformer.h.1.mlp.c_fc.weight", 1e5, BLOCK.format(1), id="activation"),
        pytest.param("transformer.h.0.mlp.c_proj.bias", 1e6, BLOCK.format(0), id="residual stream"),
        pytest.param("lm_head.weight", 1e5, "the largest logit is ", id="logits"),
    ],
)
def test_overflow_is_refused(
    refused: Callable[..., str], write_checkpoint: Callable[..., Path], name: str, factor: float, message: str
) -> None:
    directory = scaled(write_checkpoint(), name, factor)
    said = refused(main, "--checkpoint", directory, "--precision", "fp16", "--output", directory.parent / "bundle")
    assert said.startswith(f"fp16 overflows: {message}")
    assert said.endswith(
        ", float16 ends at 65504; nothing was kept - use --precision fp32, or int8, whose activations are float32"
    )


def test_overflow_of_a_weight_is_refused(tiny_checkpoint: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    tensors = {
        name: tensor * 1e6 if name == f"{LINEAR}.weight" else tensor for name, tensor in checkpoint.tensors.items()
    }
    rounded = QuantizedTensors(tensors, checkpoint.config, Precision("fp16", "fp16"), None)
    with pytest.raises(VerificationError, match=rf"^fp16 overflows: the largest weight of {LINEAR}.weight is \d"):
        rounded[f"{LINEAR}.weight"]


def test_overflow_of_the_written_graphs_is_refused(
    monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str], write_checkpoint: Callable[..., Path]
) -> None:
    monkeypatch.setattr(export, "check_activations", lambda *_: None)  # as if the pictures had told nothing
    directory = scaled(write_checkpoint(), "transformer.h.0.mlp.c_fc.weight", 5e4)
    said = refused(main, "--checkpoint", directory, "--precision", "fp16", "--output", directory.parent / "bundle")
    assert said.startswith("fp16 overflows: an activation behind the logits of the written graphs is inf, float16 ends")


def test_default_names_say_the_precision() -> None:
    assert [str(Precision("fp32", "fp32")), str(Precision("int8", "int8"))] == ["fp32", "int8"]
    assert str(Precision("fp16", "fp16")) == "fp16"
    assert [str(Precision("fp32", "int8")), str(Precision("int4", "fp32"))] == ["fp32-kv-int8", "int4-kv-fp32"]
