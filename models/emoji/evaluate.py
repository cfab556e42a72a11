"""Measures the trained demo model on held-out emoji, fits its probe, and draws the model card's pictures.

Usage: python -m models.emoji.evaluate [--directory DIRECTORY] [--work DIRECTORY] ... An interrupted run goes on: what
is measured of these weights is kept in --work. Rewrites the checkpoint with the probe and the sampling that validation
chose; writes metrics.json, completions.png, samples.png and examples/.
"""

import argparse
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from igpt_runtime.bundle.config import SamplingDefaults
from models.emoji import measures
from models.emoji.held_out import HeldOut, categories, split
from models.emoji.judge import HALF, Judge, trained_judge
from models.emoji.measures import COPIES, MOST_BLANK, PLAIN, TRIED, Figures, Subject
from models.emoji.sources import Demo
from models.emoji.train import DATA
from models.training import checkpoint, pages
from models.training.completions import draw, exported, to_pixels

_TRIED_COPIES = 4  # completions of each validation picture and sampling
_SHOWN, _SAMPLES = 10, 40  # pictures on the pages
_SEED = 800
EXAMPLES = ("penguin", "cactus", "whale", "house", "sunglasses", "apple", "rocket", "owl")


class Records:
    """Figures that were measured, each kept in a file of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def get(self, name: str, measure: Callable[[], Figures]) -> Figures:
        """The figures of that name, measured if they are not there."""
        kept = self.directory / f"{name}.json"
        if not kept.exists():
            start = time.monotonic()
            found = measure() | {"seconds": round(time.monotonic() - start)}
            kept.write_text(json.dumps(found, indent=1, default=_plain) + "\n")
        figures: Figures = json.loads(kept.read_text())
        print(name, {key: value for key, value in figures.items() if isinstance(value, float | int)}, flush=True)
        return figures


def sampling_name(sampling: SamplingDefaults) -> str:
    """For a file."""
    return f"t{sampling.temperature:g}-k{sampling.top_k}-p{sampling.top_p:g}"


def choose_sampling(subject: Subject, judge: Judge, records: Records) -> tuple[SamplingDefaults, list[Figures]]:
    """The sampling by which most completions of validation emoji keep their category, and the figures of all.

    One that leaves too many pictures from nothing blank is not taken.
    """
    tried = []
    part = subject.validation.first_of_groups()
    for sampling in TRIED:
        name = sampling_name(sampling)
        measure = partial(_completions, subject, judge, part, sampling, _TRIED_COPIES)
        kept = records.get(f"validation-{name}", measure)
        blank = records.get(f"nothing-{name}", partial(_blank, subject, sampling))
        tried.append(kept | {"blank_from_nothing": blank["blank"]})
    allowed = [(row["kept"], i) for i, row in enumerate(tried) if row["blank_from_nothing"] <= MOST_BLANK]
    return TRIED[max(allowed)[1]], tried


def draw_pages(subject: Subject, sampling: SamplingDefaults, directory: Path) -> None:
    """Write the two pages: completions of ten held-out emoji, not picked, and samples from nothing."""
    chosen = _unpicked(subject.test)
    rows = []
    tokens = subject.tokens(chosen.pictures)
    originals = to_pixels(subject.session, tokens)
    for i, row in enumerate(tokens):
        drawn = draw(subject.session, row[: row.size // 2], sampling, 6, _SEED + i)
        original = originals[i][None]
        given = pages.blank_lower_half(original)
        rows.append(np.concatenate([original, given, to_pixels(subject.session, drawn)]))
    headers = {0: "original", 1: "given", 2: "completions"}
    pages.save_page(directory / "completions.png", rows, headers, frozenset({1, 2}))
    tokens = draw(subject.session, np.zeros(0, np.int64), sampling, _SAMPLES, _SEED)
    sampled = to_pixels(subject.session, tokens)
    pages.save_page(directory / "samples.png", list(sampled.reshape(-1, 8, *sampled.shape[1:])), {}, frozenset())


def _unpicked(test: HeldOut) -> HeldOut:
    """One picture each of ten groups, the first ones of a random order."""
    alone = test.first_of_groups()
    return alone.of(np.random.default_rng(_SEED).permutation(len(alone))[:_SHOWN])


def draw_examples(source: Demo, test: HeldOut, directory: Path) -> None:
    """Write held-out emoji of these names, as many as there are, and else others, to try the model with."""
    names = [source.emoji.names[row] for row in test.rows]
    wanted = [names.index(name) for name in EXAMPLES if name in names]
    others = [int(i) for i in np.sort(np.unique(test.groups, return_index=True)[1]) if int(i) not in wanted]
    for i in [*wanted, *others][: len(EXAMPLES)]:
        pages.save_example(directory / "examples" / f"{names[i].replace('_', '-')}.png", test.pictures[i], 256)


def main() -> None:
    """Measure, store the probe, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, default=Path(__file__).parent, help="the checkpoint")
    parser.add_argument("--data", type=Path, default=DATA, help="where the packages of emoji are, or are put")
    parser.add_argument("--work", type=Path, default=Path("build/emoji-measured"), help="what is measured already")
    parser.add_argument("--copies", type=int, default=COPIES, help="completions of each held-out emoji")
    asked = parser.parse_args()
    directory: Path = asked.directory
    model, clusters = checkpoint.load(directory)
    digest = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in model.parameters())).hexdigest()
    records = Records(asked.work / digest[:16])
    source = Demo(asked.data)
    validation, test, twins = split(source)
    with exported(directory) as session:
        subject = Subject(model, clusters, session, source, validation, test)
        figures: dict[str, Any] = {"twins_left_out": twins, "validation_pictures": len(validation)}
        figures["likelihood"] = records.get("likelihood", lambda: measures.likelihood(subject))
        figures["palette"] = records.get("palette", lambda: measures.palette(clusters))
        figures["unlike"] = records.get("unlike", lambda: measures.unlike(subject))
        figures["probe"] = records.get("probe", lambda: _measured_probe(subject, records))
        whole, half = (trained_judge(source, rows, asked.work / f"judge-{rows}.pt") for rows in (2 * HALF, HALF))
        figures["judges"] = records.get("judges", lambda: measures.judges(whole, half, test))
        sampling, figures["tried_on_validation"] = choose_sampling(subject, whole, records)
        for name, own in (("recommended", sampling), ("plain", PLAIN)):
            measure = partial(_completions, subject, whole, test.first_of_groups(), own, asked.copies)
            figures[name] = records.get(f"test-{sampling_name(own)}", measure)
        draw_pages(subject, sampling, directory)
        draw_examples(source, test, directory)
    chosen = figures["probe"]["chosen"]
    kept = torch.load(records.directory / "probe.pt", weights_only=True)
    labels = categories(source)
    probe = checkpoint.Probe(labels, chosen["layers"][0], chosen["protocol"], kept["weight"], kept["bias"])
    checkpoint.save(directory, model, clusters, probe, sampling)
    figures["sampling"] = dataclasses.asdict(sampling)
    figures["weights_sha256"] = hashlib.sha256((directory / "model.safetensors").read_bytes()).hexdigest()
    (directory / "metrics.json").write_text(json.dumps(figures, indent=1, default=_plain) + "\n")


def _completions(*arguments: Any) -> Figures:
    return measures.completions(*arguments)[0]


def _blank(subject: Subject, sampling: SamplingDefaults) -> Figures:
    return {"blank": measures.blank_from_nothing(subject, sampling)}


def _measured_probe(subject: Subject, records: Records) -> Figures:
    probe, figures = measures.probes(subject)
    torch.save({"weight": probe.weight, "bias": probe.bias}, records.directory / "probe.pt")
    return figures


def _plain(number: np.generic) -> object:
    return number.item()


if __name__ == "__main__":
    main()
