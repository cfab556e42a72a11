"""The model of digits: what is embedded is what the checkpoint exports to, and it does what its card says."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from igpt_export.checkpoint.checkpoint import load_checkpoint
from igpt_export.export import ExportOptions, export_bundle
from igpt_export.precision.precision import Precision
from igpt_runtime import (
    Classifier,
    GenerationOptions,
    Session,
    classify,
    complete,
    generate_all,
    open_bundle,
    open_session,
    tokens_of,
)
from igpt_runtime.bundle import graph_io
from igpt_runtime.bundle.manifest import manifest_to_json
from igpt_runtime.pictures.palette import nearest_clusters
from igpt_runtime.pictures.reading import read_image
from models.digits import digits
from models.digits.evaluate import kinds
from models.digits.folders import WORDS
from models.digits.inks import paint

DIGITS = Path(__file__).parent.parent / "models" / "digits"
EXAMPLES = sorted((DIGITS / "examples").glob("*.png"))
PRECISION = Precision("int8", "fp32")  # that of the embedded bundle


@pytest.fixture(scope="module")
def exact(digits_bundle: Path) -> Session:
    """The checkpoint in fp32."""
    return open_session(digits_bundle, device="cpu")


def test_embedded_bundle_is_the_exported_checkpoint(tmp_path: Path) -> None:
    """But for what another CPU rounds otherwise while it calibrates."""
    options = ExportOptions(PRECISION, embed=True, examples=DIGITS / "examples")
    fresh = export_bundle(load_checkpoint(DIGITS), tmp_path / "digits", options)
    embedded = open_bundle("digits")
    unlike = {"tools": {}, "verification": {}, "likelihood": None, "certificate": None, "files": {}}
    left, right = (manifest_to_json(replace(m, **unlike)) for m in (embedded.manifest, fresh))
    assert left == right and set(embedded.manifest.files) == set(fresh.files), "run `make embed` and commit the bundle"
    stored, made = (load_file(path / "weights.safetensors") for path in (embedded.path, tmp_path / "digits"))
    assert stored.keys() == made.keys()
    for name, tensor in stored.items():
        other = made[name]
        if tensor.dtype == np.float32:
            assert np.allclose(tensor, other, rtol=1e-3, atol=1e-6), name
        else:
            assert np.abs(tensor.astype(int) - other).max() <= 1 and (tensor != other).mean() < 1e-3, name
    assert embedded.manifest.likelihood is not None and fresh.likelihood is not None
    assert embedded.manifest.likelihood.pictures == fresh.likelihood.pictures
    assert np.array(embedded.manifest.likelihood.by_rows) == pytest.approx(np.array(fresh.likelihood.by_rows), abs=1e-2)


@pytest.mark.slow
def test_four_bits_cost_what_the_card_says(tmp_path: Path) -> None:
    certificate = export_bundle(
        load_checkpoint(DIGITS), tmp_path / "digits-int4", ExportOptions(Precision("int4", "int8"))
    ).certificate
    assert certificate is not None
    shift = certificate["features"]["held_out"]
    row = next(line for line in (DIGITS / "README.md").read_text().splitlines() if line.startswith("| int4 | "))
    _, _, prefill, decode, _, _, features, classes = (cell.strip() for cell in row.strip("|").split("|"))
    for figure, graph in ((prefill, "prefill"), (decode, "decode")):
        assert certificate[graph]["held_out"]["increase"] == pytest.approx(float(figure), abs=0.002)
    assert shift["features_error"] == pytest.approx(float(features), abs=0.02)
    assert shift["kl_divergence"] == pytest.approx(float(classes.split(",")[0]), abs=0.1)


def test_embedded_bundle_is_small() -> None:
    assert sum(file.size for file in open_bundle("digits").manifest.files.values()) < 3e6


def test_examples_are_classified() -> None:
    session = open_session("digits", device="cpu")
    labels = session.manifest.classifier
    assert labels is not None and len(EXAMPLES) >= 6
    predicted = [labels.labels[row.argmax()] for row in classify(session, EXAMPLES)]
    expected = [path.stem for path in EXAMPLES]
    assert predicted == expected


def test_greedy_completion_is_token_identical(
    exact: Session, transformers_greedy: Callable[[Path, np.ndarray], np.ndarray]
) -> None:
    primer = tokens_of(exact, read_image(EXAMPLES[0]))[:128]
    ours = generate_all(exact, primer, GenerationOptions(n=2, temperature=0.0))
    assert (ours == transformers_greedy(DIGITS, primer)).all()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_completions_keep_the_given_half_and_the_ink(path: Path) -> None:
    session = open_session("digits", device="cpu")
    result = complete(session, path, GenerationOptions(n=4, seed=1))
    assert result.original is not None
    given = np.asarray(result.images[0], np.int16)[:8]
    assert (
        np.abs(given - np.asarray(result.original, np.int16)[:8]).mean() < 14
    )  # 256 colours for any ink are far apart
    assert all((np.asarray(image)[:8] == given).all() for image in result.images)
    assert len({image.tobytes() for image in result.images}) > 1
    # Ink and paper of the completed part are those of the given part: few pixels are of any other hue.
    drawn = np.concatenate([np.asarray(image)[8:].reshape(-1, 3) for image in result.images]).astype(int)
    palette = np.unique(given.reshape(-1, 3), axis=0).astype(int)
    distance = np.abs(drawn[:, None] - palette[None]).sum(-1).min(1)
    assert (distance > 120).mean() < 0.05


def test_card_is_of_these_weights_and_quotes_their_metrics() -> None:
    metrics = json.loads((DIGITS / "metrics.json").read_text())
    card = (DIGITS / "README.md").read_text()
    assert metrics["weights_sha256"] == hashlib.sha256((DIGITS / "model.safetensors").read_bytes()).hexdigest()
    likelihood, completion, chosen = metrics["likelihood"], metrics["completion"], metrics["probe"]["chosen"]
    for name in ("model_nats", "unigram_nats", "neighbour_nats", "uniform_nats"):
        assert f"{likelihood[name]:.3f}" in card, name
    for name in ("model_distribution", "recommended", "recommended_softened"):
        assert f"{completion[name]['class_kept']:.1%}".replace("%", " ±") in card, name
    for kind, accuracy in chosen["held_out"].items():
        assert accuracy >= 0.95 and f"{accuracy:.1%}".replace("%", " %") in card.replace("**", ""), kind
    assert open_bundle("digits").manifest.classifier == Classifier(
        tuple(WORDS), tuple(chosen["layers"]), chosen["protocol"]
    )


def test_likelihood_of_held_out_digits_is_the_cards(exact: Session) -> None:
    session = exact
    config, held_out = session.manifest.config, digits.load_split()[2]
    pictures = paint(digits.render(held_out.scans), kinds(len(held_out.labels))["random"])
    tokens = nearest_clusters(pictures, session.manifest.image_format.clusters).reshape(len(pictures), -1)
    inputs = np.concatenate([np.full((len(tokens), 1), config.sos), tokens[:, :-1]], axis=1)
    nats = []
    for rows in np.array_split(np.arange(len(tokens)), 12):
        logits = (
            session.graph(graph_io.PREFILL)
            .run([graph_io.LOGITS], {graph_io.INPUT_IDS: inputs[rows]})[0]
            .astype(np.float64)
        )
        likelihood = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        nats.append(-np.take_along_axis(likelihood, tokens[rows][:, :, None], axis=2).mean())
    measured = json.loads((DIGITS / "metrics.json").read_text())["likelihood"]["model_nats"]
    assert abs(np.mean(nats) - measured) < 1e-4


def test_pictures_are_pictures() -> None:
    for path in [*EXAMPLES, *DIGITS.glob("*.png"), *DIGITS.glob("claims/*.png")]:
        with Image.open(path) as image:
            assert image.convert("RGB").getcolors(maxcolors=1 << 24), path
