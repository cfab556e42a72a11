"""The paper's claims about representation, at the scale of digits, measured with the toolkit itself.

Usage: python -m models.digits.reproduce [--work DIRECTORY]. Trains models of three widths where DIRECTORY lacks their
snapshots, then writes claims/: figures.json, plots and a page of pictures. "Generative Pretraining from Pixels",
section 4: features by depth, features against validation loss, few labels.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.decomposition import PCA

from igpt_export.checkpoint.checkpoint import load_checkpoint
from igpt_export.export import export_bundle
from igpt_export.probe.fit import Fit, Labelled, best_of, fit_layers, fit_linear, standard_error
from igpt_runtime import (
    GenerationOptions,
    Session,
    complete,
    features,
    images_of,
    open_session,
    sample,
    score,
    tokens_of,
)
from models.digits import digits
from models.digits.claim_plots import draw_plots
from models.digits.inks import Bytes, Floats, Ints, one_ink, paint, random_inks
from models.digits.train import SNAPSHOTS
from models.training import pages

HERE = Path(__file__).parent
WIDTHS = (32, 64, 128)
STEPS = 1200  # fewer than the model's own, so that three trainings take about half an hour
LABELS_PER_CLASS = (1, 4, 16)
DRAWS = 10  # of the labelled pictures
COMPONENTS = (8, 16, 32, 64)  # of PCA, chosen on validation
_CLASSES = 10
_INK_SEED = 600
_SHOWN = {"n": 8, "seed": 3}  # by the recommended sampling


@dataclass(frozen=True, eq=False)
class Part:
    """Pictures and labels, for fitting, choosing or measuring."""

    pictures: list[Image.Image]
    labels: Ints


def load_parts(*, plain: bool = False) -> tuple[Part, Part, Part]:
    """Training, validation and held-out digits, upright, in random inks; plain: all black on white."""
    parts = []
    for seed, part in enumerate(digits.load_split(), _INK_SEED):
        n = len(part.labels)
        inks = one_ink(n, 0, 255) if plain else random_inks(n, np.random.default_rng(seed))
        pixels = paint(digits.render(part.scans), inks)
        parts.append(Part([Image.fromarray(picture) for picture in pixels], part.labels))
    return parts[0], parts[1], parts[2]


def train_widths(work: Path) -> None:
    """Train a model of each width whose last snapshot is missing: the recipe's first stage."""
    for width in WIDTHS:
        if (work / f"width-{width}" / f"step-{STEPS}").is_dir():
            continue
        print(f"training width {width} ...", flush=True)
        command = [sys.executable, "-m", "models.digits.train", "--n-embd", str(width), "--steps", str(STEPS)]
        command += [
            "--snapshots",
            str(work / f"width-{width}"),
            "--work",
            str(work / f"width-{width}/training"),
            "--fine-tuning-steps",
            "0",
        ]
        command += ["--output", str(work / f"width-{width}/last"), "--fine-tuning-steps", "0"]
        subprocess.run(command, check=True)


def opened(checkpoint: Path, bundle: Path) -> Session:
    """The bundle of a checkpoint, exported if it is not there."""
    if not bundle.is_dir():
        export_bundle(load_checkpoint(checkpoint), bundle)
    return open_session(bundle, device="cpu")


def embedded(session: Session, parts: Sequence[Part]) -> list[Floats]:
    """Features of each part by the paper's protocol, [pictures, n_layer + 1, n_embd]."""
    return [features(session, part.pictures, protocol="paper") for part in parts]


def probed(states: Sequence[Floats], parts: Sequence[Part]) -> list[Fit]:
    """A probe of each layer, fitted on the first part, chosen on the second."""
    train, validation = (Labelled(states[i], parts[i].labels) for i in (0, 1))
    return fit_layers(train, validation, _CLASSES, range(states[0].shape[1]))


def held_out_accuracy(fit: Fit, states: Floats, labels: Ints) -> float:
    """Of one layer's probe."""
    return fit.linear.accuracy(states[:, fit.layers[0]], labels)


def measure_layers(fits: Sequence[Fit], states: Floats, labels: Ints) -> list[dict[str, object]]:
    """Accuracy by layer, with its standard error, on held-out digits."""
    rows = []
    for fit in fits:
        accuracy = held_out_accuracy(fit, states, labels)
        rows.append({**fit.record(), "held_out": accuracy, "standard_error": standard_error(accuracy, len(labels))})
    return rows


def measure_snapshots(work: Path, parts: tuple[Part, Part, Part]) -> list[dict[str, object]]:
    """Nats per token and the best probe's accuracy on held-out digits, of every snapshot of every width."""
    rows: list[dict[str, object]] = []
    for width in WIDTHS:
        for step in (*SNAPSHOTS, STEPS):
            name = f"width-{width}/step-{step}"
            session = opened(work / name, work / "bundles" / name)
            nats = [scored.nats_per_token for scored in score(session, parts[2].pictures)]
            states = embedded(session, parts)
            best = best_of(probed(states, parts))
            accuracy = held_out_accuracy(best, states[2], parts[2].labels)
            rows.append(
                {
                    "width": width, "step": step, "nats": float(np.mean(nats)), "layer": best.layers[0],
                    "held_out": accuracy, "standard_error": standard_error(accuracy, len(parts[2].labels)),
                }
            )  # fmt: skip
            print(f"{name}: {rows[-1]['nats']:.3f} nats, layer {best.layers[0]}, {accuracy:.1%}", flush=True)
    return rows


def measure_low_data(states: Sequence[Floats], parts: tuple[Part, Part, Part]) -> list[dict[str, object]]:
    """Accuracy on held-out digits with few labels, of features, raw pixels and their principal components.

    All digits are in one ink: in random inks raw pixels would say as much of the ink as of the digit. Layer, number of
    components and strength of regularisation are chosen on all validation digits, for each alike.
    """
    raw: list[Floats] = [
        np.stack([np.asarray(p, np.float32).ravel() / np.float32(255) for p in own.pictures]) for own in parts
    ]
    components = PCA(max(COMPONENTS), random_state=0).fit(raw[0])  # of all training pictures, without labels
    principal: list[Floats] = [components.transform(pixels).astype(np.float32) for pixels in raw]
    # By the name of an input, its choices: what the pictures of each part are then.
    choices: dict[str, list[list[Floats]]] = {
        "features": [[state[:, layer] for state in states] for layer in range(states[0].shape[1])],
        "pixels": [raw],
        "pca": [[pixels[:, :n] for pixels in principal] for n in COMPONENTS],
    }
    rows: list[dict[str, object]] = []
    for count in LABELS_PER_CLASS:
        found: dict[str, list[float]] = {name: [] for name in choices}
        for draw in range(DRAWS):
            chosen = _few(parts[0].labels, count, draw)
            for name, options in choices.items():
                fits = [
                    fit_linear(
                        Labelled(seen[chosen], parts[0].labels[chosen]), Labelled(choosing, parts[1].labels),
                        _CLASSES, [i],
                    )
                    for i, (seen, choosing, _) in enumerate(options)
                ]  # fmt: skip
                best = best_of(fits)
                found[name].append(best.linear.accuracy(options[best.layers[0]][2], parts[2].labels))
        for name, accuracies in found.items():
            error = float(np.std(accuracies, ddof=1) / np.sqrt(DRAWS))
            rows.append(
                {"labels_per_class": count, "input": name, "held_out": float(np.mean(accuracies)),
                 "standard_error": error}
            )  # fmt: skip
            print(f"{count} labels a class, {name}: {rows[-1]['held_out']:.1%} +- {error:.1%}", flush=True)
    return rows


def _few(labels: Ints, count: int, seed: int) -> Ints:
    """Indices of `count` random pictures of each class."""
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [rng.choice(np.flatnonzero(labels == label), count, replace=False) for label in range(_CLASSES)]
    )


def draw_page(session: Session, held_out: Part, path: Path) -> None:
    """Completions of the second held-out digit of each class, and below them samples from nothing."""
    rows = []
    for label in range(_CLASSES):
        picture = held_out.pictures[int(np.flatnonzero(held_out.labels == label)[1])]
        result = complete(session, picture, GenerationOptions(**_SHOWN))
        original = _pixels(images_of(session, tokens_of(session, picture)[None]))
        rows.append(np.concatenate([original, pages.blank_lower_half(original), _pixels(result.images)]))
    sampled = sample(session, GenerationOptions(**{**_SHOWN, "n": 4 * _SHOWN["n"]}))
    white = np.full((2, digits.SIDE, digits.SIDE, 3), 255, np.uint8)
    for row in _pixels(sampled.images).reshape(4, _SHOWN["n"], digits.SIDE, digits.SIDE, 3):
        rows.append(np.concatenate([white, row]))
    headers = {0: "original", 1: "given", 2: "completions; where nothing is given, samples"}
    pages.save_page(path, rows, headers, frozenset({1, 2}))


def _pixels(images: Sequence[Image.Image]) -> Bytes:
    return np.stack([np.asarray(image) for image in images])


def main() -> None:
    """Train what is missing, measure, plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/reproduce"), help="snapshots and bundles, kept")
    parser.add_argument("--output", type=Path, default=HERE / "claims")
    options = parser.parse_args()
    start = time.monotonic()
    options.work.mkdir(parents=True, exist_ok=True)
    options.output.mkdir(exist_ok=True)
    train_widths(options.work)
    parts = load_parts()
    shipped = open_session("digits", device="cpu")
    states = embedded(shipped, parts)
    figures: dict[str, object] = {"digits": {name: len(part.labels) for name, part in zip(
        ("training", "validation", "held_out"), parts, strict=True)}}  # fmt: skip
    layers = measure_layers(probed(states, parts), states[2], parts[2].labels)
    plain = load_parts(plain=True)
    low_data = measure_low_data(embedded(shipped, plain), plain)
    snapshots = measure_snapshots(options.work, parts)
    figures |= {"layers": layers, "low_data": low_data, "snapshots": snapshots, "seconds": time.monotonic() - start}
    (options.output / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    draw_plots(figures, options.output)
    draw_page(shipped, parts[2], options.output / "pictures.png")


if __name__ == "__main__":
    main()
