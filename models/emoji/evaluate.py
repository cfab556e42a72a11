"""Measures the trained demo model on held-out emoji, and draws the model card's pictures.

Usage: python -m models.emoji.evaluate [--directory DIRECTORY] [--work DIRECTORY]. Fits the probe and stores it and the
recommended sampling in the checkpoint; writes examples/, metrics.json and the pictures.
"""

import argparse
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from igpt_export.checkpoint.checkpoint import load_checkpoint
from igpt_export.export import ExportOptions, export_bundle
from igpt_runtime import GenerationOptions, generate_all, open_session
from models.emoji import measures
from models.emoji.emoji import SIDE, VENDORS, Ints
from models.emoji.measures import Measured, Sampling
from models.emoji.sources import Demo
from models.training import checkpoint, pages
from models.training.sampling import Sampling as Recommended

EXAMPLES = {"rocket": "noto"}  # names of held-out emoji, and whose; chosen by eye
_SHOWN = 10


def draw_pages(measured: Measured, completed: Ints, sampling: Sampling, directory: Path) -> None:
    """Write the pages: completions of ten held-out emoji that nobody picked, and samples."""
    emoji = measured.source.emoji
    order = sorted(
        range(len(measured.held_out)),
        key=lambda i: _order(emoji.names[measured.held_out[i]], int(emoji.vendors[measured.held_out[i]])),
    )
    rows = []
    for i in order[:_SHOWN]:
        original = measured.pictures(measured.held_out[i : i + 1])
        drawn = measured.colours(completed[i])
        rows.append(np.concatenate([original, pages.blank_lower_half(original), drawn]))
    pages.save_page(
        directory / "completions.png", rows, {0: "original", 1: "given", 2: "completions"}, frozenset({1, 2})
    )
    options = GenerationOptions(n=48, seed=0, temperature=sampling[0], top_p=sampling[1], top_k=0)
    sampled = generate_all(measured.session, np.zeros(0, np.int64), options).reshape(6, 8, SIDE, SIDE)
    pages.save_page(directory / "samples.png", list(measured.colours(sampled)), {}, frozenset())


def _order(name: str) -> str:
    """As good as random, and the same for whoever looks."""
    return hashlib.sha256(name.encode()).hexdigest()


def write_examples(measured: Measured, directory: Path) -> None:
    """Write held-out emoji as files, 128x128, called like themselves: those of EXAMPLES."""
    emoji = measured.source.emoji
    directory.mkdir(exist_ok=True)
    for name, vendor in EXAMPLES.items():
        row = next(r for r in measured.held_out if emoji.names[r] == name and VENDORS[emoji.vendors[r]].name == vendor)
        pages.save_example(directory / f"{name.replace('_', '-')}.png", measured.pictures(np.array([row]))[0])


def main() -> None:
    """Measure, store the probe, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, default=Path(__file__).parent)
    parser.add_argument("--data", type=Path, default=Path("build/emoji"), help="where the packages of emoji are")
    parser.add_argument("--work", type=Path, default=Path("build/emoji-bundle"), help="bundle of the checkpoint")
    asked = parser.parse_args()
    start = time.monotonic()
    export_bundle(load_checkpoint(asked.directory), asked.work, ExportOptions(force=True))
    source = Demo(asked.data)
    toneless = source.rows[~source.emoji.tones[source.rows]]
    other = source.other_versions[~source.emoji.tones[source.other_versions]]
    session = open_session(asked.work, device="cpu")
    measured = Measured(
        session, session.manifest.image_format.clusters, source, toneless, source.held_out_rows(), other
    )
    figures: dict[str, Any] = {"likelihood": measures.measure_likelihood(measured)}
    print(json.dumps(figures, indent=1, default=_plain), flush=True)
    figures["likeness"] = measures.measure_likeness(measured)
    figures["palette"] = measures.measure_palette(measured)
    fit, protocol, figures["probe"] = measures.measure_probe(measured)
    figures["completion"], sampling, completed = measures.measure_completions(measured)
    draw_pages(measured, completed, sampling, asked.directory)
    write_examples(measured, asked.directory / "examples")
    weight, bias = (torch.from_numpy(array) for array in (fit.linear.weight, fit.linear.bias))
    probe = checkpoint.Probe(tuple(measured.category_names), fit.layers[0], protocol, weight, bias)
    model, clusters, _ = checkpoint.load(asked.directory)
    recommended = Recommended(temperature=sampling[0], top_p=sampling[1])
    checkpoint.save(asked.directory, model, clusters, probe, recommended)
    figures["weights_sha256"] = hashlib.sha256((asked.directory / "model.safetensors").read_bytes()).hexdigest()
    figures["seconds"] = time.monotonic() - start
    (asked.directory / "metrics.json").write_text(json.dumps(figures, indent=1, default=_plain) + "\n")


def _plain(number: np.generic) -> object:
    return number.item()


if __name__ == "__main__":
    main()
