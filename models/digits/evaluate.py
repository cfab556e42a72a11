"""Measures the trained model of digits on held-out digits, fits its probe, and draws the model card's pictures.

Usage: python -m models.digits.evaluate [--directory DIRECTORY]. Rewrites the checkpoint with the probe and the sampling
that validation chose; writes metrics.json, completions.png, samples.png and examples/.
"""

import argparse
import dataclasses
import hashlib
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from igpt_export.model.model import ImageGPT
from igpt_runtime import Session
from igpt_runtime.bundle.config import SamplingDefaults
from igpt_runtime.pictures.palette import nearest_clusters
from models.digits import digits
from models.digits.folders import WORDS
from models.digits.inks import Bytes, Floats, Inks, Ints, mixtures, one_ink, paint, random_inks
from models.digits.judge import HALF, Judge, train_judge
from models.training import checkpoint, pages
from models.training.completions import complete_halves, draw, exported, to_pixels
from models.training.likelihood import fit_counts
from models.training.loop import nats
from models.training.probe import Pictures, fit_probe

COUNTED_COPIES = 60  # warped renderings of every training digit that the count models see
COPIES = 3  # of every training and validation digit that the probe sees, crisp and softened each
COMPLETIONS = 6  # of every held-out upper half, for each sampling
TRIED_COMPLETIONS = 3  # of every validation upper half
PLAIN = SamplingDefaults()
TRIED = (  # on validation digits, to choose the recommended one
    PLAIN,
    SamplingDefaults(top_p=0.95),
    SamplingDefaults(top_p=0.9),
    SamplingDefaults(temperature=0.9),
    SamplingDefaults(temperature=0.8),
    SamplingDefaults(temperature=0.8, top_p=0.95),
    SamplingDefaults(top_k=32),
    SamplingDefaults(top_k=12),
)
EXAMPLES = {"two": 34, "three": 9, "four": 52, "five": 18, "six": 11, "seven": 66}  # file name: held-out digit
SAMPLES = 80  # from nothing
_SEEDS = {"inks": 300, "sampling": 400, "training": 200, "validation": 201}


@dataclass(frozen=True, eq=False)
class Subject:
    """The checkpoint, and the digits that it is measured on."""

    model: ImageGPT
    clusters: Floats  # [256, 3]
    session: Session
    train: digits.Part
    validation: digits.Part
    held_out: digits.Part

    def tokens(self, coverage: Bytes, inks: Inks) -> Ints:
        """Token sequences int64 [n, 256] of digits in some inks."""
        return nearest_clusters(paint(coverage, inks), self.clusters).reshape(len(coverage), -1)


def kinds(n: int) -> dict[str, Inks]:
    """The inks in which digits are measured."""
    return {
        "black on white": one_ink(n, 0, 255),
        "white on black": one_ink(n, 255, 0),
        "random": random_inks(n, np.random.default_rng(_SEEDS["inks"])),
    }


def upright(part: digits.Part, *, soft: bool = False) -> Bytes:
    """Coverage of a part's digits; soft: see digits.soften."""
    coverage = digits.render(part.scans)
    return digits.soften(coverage) if soft else coverage


def measure_likelihood(subject: Subject) -> dict[str, object]:
    """Nats per token on held-out digits: the model's and the count models'."""
    held_out, validation = upright(subject.held_out), upright(subject.validation)
    inks = kinds(len(held_out))
    scans = np.tile(subject.train.scans, (COUNTED_COPIES, 1, 1))
    coverage = digits.render(scans, digits.Augmentation(), _SEEDS["inks"])
    training = subject.tokens(coverage, random_inks(len(scans), np.random.default_rng(_SEEDS["training"])))
    counts = fit_counts(
        training, subject.tokens(validation, kinds(len(validation))["random"]), digits.SIDE, len(subject.clusters)
    )
    tokens = {kind: subject.tokens(held_out, own) for kind, own in inks.items()}
    found = {kind: nats(subject.model, torch.from_numpy(own)).numpy() for kind, own in tokens.items()}
    seen = upright(subject.train)
    trained = subject.tokens(seen, kinds(len(seen))["random"])
    own = found["random"]
    return {
        "model_nats": own.mean(),
        "model_nats_by_ink": {kind: values.mean() for kind, values in found.items()},
        "model_bits_per_channel": own.mean() / math.log(2) / 3,
        "model_nats_upper_half": own[:, :HALF].mean(),
        "model_nats_lower_half": own[:, HALF:].mean(),
        "model_nats_on_training_digits": nats(subject.model, torch.from_numpy(trained)).mean().item(),
        "neighbour_nats": counts.neighbour_nats(tokens["random"]).mean(),
        "neighbour_strength": counts.strength,
        "unigram_nats": counts.unigram_nats(tokens["random"]).mean(),
        "uniform_nats": math.log(len(subject.clusters)),
    }


def judge_completions(
    subject: Subject, judge: Judge, part: digits.Part, sampling: SamplingDefaults, copies: int, *, soft: bool = False
) -> tuple[dict[str, Any], Ints]:
    """Complete every digit's upper half `copies` times; figures, and the completions int64 [n, copies, 256]."""
    inks = kinds(len(part.labels))["random"]
    tokens = subject.tokens(upright(part, soft=soft), inks)
    completed = complete_halves(subject.session, tokens, sampling, copies, _SEEDS["sampling"])
    flat, labels, each = completed.reshape(-1, tokens.shape[1]), np.repeat(part.labels, copies), inks.repeated(copies)
    right = judge.labels(flat, each) == labels
    known = np.zeros((len(inks), len(subject.clusters)), np.bool_)
    np.put_along_axis(known, nearest_clusters(mixtures(inks), subject.clusters), True, 1)
    stray = ~np.take_along_axis(known.repeat(copies, 0), flat[:, HALF:], 1)
    deviation = np.std(right.reshape(-1, copies).mean(1)) / math.sqrt(len(part.labels))
    figures = {
        **dataclasses.asdict(sampling),
        "completions": len(labels),
        "class_kept": right.mean(),
        "standard_error": deviation,
        "class_kept_by_class": [right[labels == label].mean() for label in range(len(WORDS))],
        "stray_pixels": stray.mean(),
        "pictures_with_stray_pixels": stray.any(1).mean(),
    }
    return figures, completed


def measure_completions(subject: Subject) -> tuple[dict[str, object], SamplingDefaults, Ints]:
    """Whether completions keep the class; also the sampling that kept most on validation, and its completions."""
    judge = train_judge(subject.train, subject.clusters)
    half_judge = train_judge(subject.train, subject.clusters, HALF)
    tried: list[dict[str, Any]] = []
    for sampling in TRIED:
        tried.append(judge_completions(subject, judge, subject.validation, sampling, TRIED_COMPLETIONS)[0])
        print(f"{sampling}: class kept {tried[-1]['class_kept']:.1%}", flush=True)
    best = max(zip(TRIED, tried, strict=True), key=lambda pair: float(pair[1]["class_kept"]))[0]
    recommended, completed = judge_completions(subject, judge, subject.held_out, best, COMPLETIONS)
    plain, _ = judge_completions(subject, judge, subject.held_out, PLAIN, COMPLETIONS)
    softened, _ = judge_completions(subject, judge, subject.held_out, best, COMPLETIONS, soft=True)
    labels = subject.held_out.labels
    inks = kinds(len(labels))["random"]
    crisp, soft = (subject.tokens(upright(subject.held_out, soft=soft), inks) for soft in (False, True))
    return {
        "recommended": recommended,
        "recommended_softened": softened,
        "model_distribution": plain,
        "tried_on_validation": tried,
        "judge_on_real_pictures": (judge.labels(crisp, inks) == labels).mean(),
        "judge_on_softened_pictures": (judge.labels(soft, inks) == labels).mean(),
        "judge_of_upper_halves": (half_judge.labels(crisp, inks) == labels).mean(),
        "chance": 1 / len(WORDS),
        "best_constant_answer": np.bincount(labels).max() / len(labels),
    }, best, completed  # fmt: skip


def warped_pictures(subject: Subject, part: digits.Part, seed: int) -> Pictures:
    """Warped renderings of a part's digits in random inks, each crisp and softened."""
    crisp = digits.render(np.tile(part.scans, (COPIES, 1, 1)), digits.Augmentation(), seed)
    coverage = np.concatenate([crisp, digits.soften(crisp)])
    inks = random_inks(len(coverage), np.random.default_rng(seed))
    return Pictures(torch.from_numpy(subject.tokens(coverage, inks)), np.tile(part.labels, 2 * COPIES))


def measure_probe(subject: Subject) -> tuple[checkpoint.Probe, dict[str, object]]:
    """The probe chosen on validation digits, and the figures of every layer."""
    train, validation = (
        warped_pictures(subject, getattr(subject, part), _SEEDS[seed])
        for part, seed in (("train", "training"), ("validation", "validation"))
    )
    labels = subject.held_out.labels
    held_out = {
        kind + ", softened" * soft: Pictures(
            torch.from_numpy(subject.tokens(upright(subject.held_out, soft=soft), inks)), labels
        )
        for kind, inks in kinds(len(labels)).items()
        for soft in (False, True)
    }
    fit, protocol, figures = fit_probe(subject.model, train, validation, held_out, len(WORDS))
    weight, bias = (torch.from_numpy(array) for array in (fit.linear.weight, fit.linear.bias))
    return checkpoint.Probe(WORDS, fit.layers[0], protocol, weight, bias), figures


def draw_pages(subject: Subject, sampling: SamplingDefaults, completed: Ints, directory: Path) -> float:
    """Write the two pages: completions of the first held-out digit of each class, and samples from nothing.

    Returns how many of the samples have one colour only.
    """
    inks = kinds(len(completed))["random"]
    originals = to_pixels(subject.session, subject.tokens(upright(subject.held_out), inks))
    rows = []
    for label in range(len(WORDS)):
        index = int(np.flatnonzero(subject.held_out.labels == label)[0])
        original = originals[index][None]
        drawn = to_pixels(subject.session, completed[index])
        rows.append(np.concatenate([original, pages.blank_lower_half(original), drawn]))
    headers = {0: "original", 1: "given", 2: "completions"}
    pages.save_page(directory / "completions.png", rows, headers, frozenset({1, 2}))
    tokens = draw(subject.session, np.zeros(0, np.int64), sampling, SAMPLES, _SEEDS["sampling"])
    sampled = to_pixels(subject.session, tokens).reshape(-1, 10, digits.SIDE, digits.SIDE, 3)
    pages.save_page(directory / "samples.png", list(sampled), {}, frozenset())
    return float((tokens == tokens[:, :1]).all(1).mean())


def draw_examples(held_out: digits.Part, directory: Path) -> None:
    """Write the example digits: black on white, white on black, and in colours."""
    colours = [
        ((0, 0, 0), (255, 255, 255)), ((255, 255, 255), (0, 0, 0)), ((20, 60, 200), (255, 255, 255)),
        ((255, 225, 120), (40, 20, 90)), ((200, 30, 60), (250, 240, 225)), ((60, 220, 190), (25, 45, 40)),
    ]  # fmt: skip
    for (name, index), (ink, ground) in zip(EXAMPLES.items(), colours, strict=True):
        coverage = digits.render(held_out.scans[index : index + 1])
        picture = paint(coverage, Inks(np.array([ground], np.float32), np.array([ink], np.float32)))[0]
        pages.save_example(directory / "examples" / f"{name}.png", picture)


def main() -> None:
    """Measure, store the probe, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, default=Path(__file__).parent)
    directory = parser.parse_args().directory
    start = time.monotonic()
    model, clusters = checkpoint.load(directory)
    with exported(directory) as session:
        subject = Subject(model, clusters, session, *digits.load_split())
        figures: dict[str, object] = {"held_out_digits": len(subject.held_out.labels)}
        figures["likelihood"] = measure_likelihood(subject)
        figures["completion"], sampling, completed = measure_completions(subject)
        figures["blank_from_nothing"] = draw_pages(subject, sampling, completed, directory)
        draw_examples(subject.held_out, directory)
        probe, figures["probe"] = measure_probe(subject)
    checkpoint.save(directory, model, clusters, probe, sampling)
    figures["weights_sha256"] = hashlib.sha256((directory / "model.safetensors").read_bytes()).hexdigest()
    figures["seconds"] = time.monotonic() - start
    (directory / "metrics.json").write_text(json.dumps(figures, indent=1, default=_plain) + "\n")


def _plain(number: np.generic) -> object:
    return number.item()


if __name__ == "__main__":
    main()
