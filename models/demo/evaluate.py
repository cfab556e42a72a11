"""Measures the trained demo model on held-out digits, fits its probe, and draws the model card's pictures.

Usage: python evaluate.py [--directory DIRECTORY]. Rewrites the checkpoint with the probe and the recommended sampling;
writes metrics.json, completions.png, samples.png and examples/.
"""

import argparse
import dataclasses
import hashlib
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import checkpoint
import digits
import numpy as np
import pictures
import torch
from judge import HALF, Judge, train_judge
from likelihood import fit_counts, model_nats
from probe import Pictures, augmented_pictures, fit_probe
from sampling import Sampling, continue_sequences

from igpt_export.model.model import ImageGPT

COUNTED_COPIES = 60  # augmented renderings of every training digit that the count models see
COMPLETIONS = 6  # of every held-out upper half, for each sampling
TRIED_COMPLETIONS = 3  # of every validation upper half
TRIED = (  # on validation digits, to choose a default
    Sampling(),
    Sampling(top_p=0.95),
    Sampling(top_p=0.9),
    Sampling(top_p=0.8),
    Sampling(temperature=0.9),
    Sampling(temperature=0.8),
    Sampling(temperature=0.8, top_p=0.95),
    Sampling(temperature=0.7, top_p=0.95),
)
RECOMMENDED = Sampling(temperature=0.8, top_p=0.95)
EXAMPLES = {"two": 34, "three": 9, "four": 52, "five": 18, "six": 11, "seven": 66}  # file name: held-out digit
_INK_SEED, _SAMPLING_SEED = 300, 400


@dataclass(frozen=True, eq=False)
class Demo:
    """The checkpoint and the quantised, upright pictures it is measured on."""

    model: ImageGPT
    clusters: digits.Floats  # [256, 3]
    train: digits.Part
    validation: digits.Part
    held_out: digits.Part

    def tokens(self, part: digits.Part, *, soft: bool = False) -> digits.Ints:
        """Token sequences int64 [n, 256] of a part's digits, upright, each in a random ink; soft: see digits.soften."""
        inks = digits.random_inks(len(part.labels), _INK_SEED)
        coverage = digits.render(part.scans)
        if soft:
            coverage = digits.soften(coverage)
        return digits.token_sequences(coverage, inks, self.clusters).astype(np.int64)


def measure_likelihood(demo: Demo) -> dict[str, object]:
    """Nats per token on held-out digits: the model's and the count models'."""
    tokens = demo.tokens(demo.held_out)
    scans = np.tile(demo.train.scans, (COUNTED_COPIES, 1, 1))
    coverage = digits.render(scans, digits.Augmentation(), _INK_SEED)
    training = digits.token_sequences(coverage, digits.random_inks(len(scans), _INK_SEED), demo.clusters)
    counts = fit_counts(training, demo.tokens(demo.validation).astype(np.uint8))
    quantised = tokens.astype(np.uint8)
    nats = model_nats(demo.model, torch.from_numpy(tokens))
    train_nats = model_nats(demo.model, torch.from_numpy(demo.tokens(demo.train)))
    return {
        "model_nats": nats.mean(),
        "model_bits_per_channel": nats.mean() / math.log(2) / 3,
        "model_nats_upper_half": nats[:, :HALF].mean(),
        "model_nats_lower_half": nats[:, HALF:].mean(),
        "model_nats_on_training_digits": train_nats.mean(),
        "neighbour_nats": counts.neighbour_nats(quantised).mean(),
        "neighbour_strength": counts.strength,
        "unigram_nats": counts.unigram_nats(quantised).mean(),
        "uniform_nats": math.log(len(demo.clusters)),
    }


def judge_completions(
    demo: Demo, judge: Judge, part: digits.Part, sampling: Sampling, copies: int, *, soft: bool = False
) -> tuple[dict[str, object], digits.Ints]:
    """Complete every digit's upper half `copies` times; figures, and the completions int64 [n, copies, 256]."""
    tokens = demo.tokens(part, soft=soft)
    primers = torch.from_numpy(np.repeat(tokens[:, :HALF], copies, 0))
    completed = continue_sequences(demo.model, primers, sampling, _SAMPLING_SEED).numpy()
    labels = np.repeat(part.labels, copies)
    right = judge.labels(completed) == labels
    inks = np.repeat(digits.random_inks(len(part.labels), _INK_SEED), copies)
    stray = ~digits.used_clusters(demo.clusters)[inks[:, None], completed[:, HALF:]]
    deviation = np.std(right.reshape(-1, copies).mean(1)) / math.sqrt(len(part.labels))
    figures = {
        **dataclasses.asdict(sampling),
        "completions": len(labels),
        "class_kept": right.mean(),
        "standard_error": deviation,
        "class_kept_by_class": [right[labels == label].mean() for label in range(10)],
        "stray_pixels": stray.mean(),
        "pictures_with_stray_pixels": stray.any(1).mean(),
    }
    return figures, completed.reshape(-1, copies, completed.shape[-1])


def measure_completions(demo: Demo) -> tuple[dict[str, object], digits.Ints]:
    """Whether completions keep the class; also the recommended sampling's completions of the held-out digits."""
    judge = train_judge(demo.train, demo.clusters)
    half_judge = train_judge(demo.train, demo.clusters, HALF)
    tokens, labels = demo.tokens(demo.held_out), demo.held_out.labels
    tried = [judge_completions(demo, judge, demo.validation, sampling, TRIED_COMPLETIONS)[0] for sampling in TRIED]
    own, _ = judge_completions(demo, judge, demo.held_out, Sampling(), COMPLETIONS)
    softened, _ = judge_completions(demo, judge, demo.held_out, Sampling(), COMPLETIONS, soft=True)
    recommended, completed = judge_completions(demo, judge, demo.held_out, RECOMMENDED, COMPLETIONS)
    return {
        "model_distribution": own,
        "model_distribution_softened": softened,
        "recommended": recommended,
        "tried_on_validation": tried,
        "judge_on_softened_pictures": (judge.labels(demo.tokens(demo.held_out, soft=True)) == labels).mean(),
        "judge_on_real_pictures": (judge.labels(tokens) == labels).mean(),
        "judge_of_upper_halves": (half_judge.labels(tokens) == labels).mean(),
        "chance": 0.1,
        "best_constant_answer": np.bincount(labels).max() / len(labels),
    }, completed


def measure_probe(demo: Demo) -> tuple[checkpoint.Probe, dict[str, object]]:
    """The probe chosen on validation digits, and the figures of every layer."""
    train, validation = (
        augmented_pictures(part, demo.clusters, seed) for part, seed in ((demo.train, 200), (demo.validation, 201))
    )
    held_out, softened = (
        Pictures(torch.from_numpy(demo.tokens(demo.held_out, soft=soft)), demo.held_out.labels)
        for soft in (False, True)
    )
    fit, protocol, figures = fit_probe(demo.model, train, validation, held_out, softened)
    weight, bias = (torch.from_numpy(array) for array in (fit.linear.weight, fit.linear.bias))
    return checkpoint.Probe(fit.layers[0], protocol, weight, bias), figures


def draw_pages(demo: Demo, completed: digits.Ints, directory: Path) -> None:
    """Write the two pages: completions of the first held-out digit of each class, and unconditional samples."""
    originals = digits.to_pixels(demo.tokens(demo.held_out), demo.clusters)
    rows = []
    for label in range(10):
        index = int(np.flatnonzero(demo.held_out.labels == label)[0])
        drawn = digits.to_pixels(completed[index], demo.clusters)
        original = originals[index][None]
        rows.append(np.concatenate([original, pictures.blank_lower_half(original), drawn]))
    headers = {0: "original", 1: "given", 2: "completions"}
    pictures.save_page(directory / "completions.png", rows, headers, frozenset({1, 2}))
    nothing = torch.zeros(80, 0, dtype=torch.long)
    sampled = continue_sequences(demo.model, nothing, RECOMMENDED, _SAMPLING_SEED).numpy()
    samples = digits.to_pixels(sampled, demo.clusters).reshape(8, 10, digits.SIDE, digits.SIDE, 3)
    pictures.save_page(directory / "samples.png", list(samples), {}, frozenset())


def draw_examples(demo: Demo, directory: Path) -> None:
    """Write the example digits, each in its own ink."""
    for ink, (name, index) in enumerate(EXAMPLES.items()):
        scan = demo.held_out.scans[index : index + 1]
        picture = digits.paint(digits.render(scan), np.array([2 * ink]))[0]
        pictures.save_example(directory / "examples" / f"{name}.png", picture)


def main() -> None:
    """Measure, store the probe, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, default=Path(__file__).parent)
    directory = parser.parse_args().directory
    start = time.monotonic()
    model, clusters, _ = checkpoint.load(directory)
    demo = Demo(model, clusters, *digits.load_split())
    figures: dict[str, object] = {"held_out_digits": len(demo.held_out.labels)}
    figures["likelihood"] = measure_likelihood(demo)
    figures["completion"], completed = measure_completions(demo)
    draw_pages(demo, completed, directory)
    draw_examples(demo, directory)
    probe, figures["probe"] = measure_probe(demo)
    checkpoint.save(directory, model, clusters, probe, RECOMMENDED)
    figures["weights_sha256"] = hashlib.sha256((directory / "model.safetensors").read_bytes()).hexdigest()
    figures["seconds"] = time.monotonic() - start
    (directory / "metrics.json").write_text(json.dumps(figures, indent=1, default=_plain) + "\n")


def _plain(number: np.generic) -> object:
    return number.item()


if __name__ == "__main__":
    main()
