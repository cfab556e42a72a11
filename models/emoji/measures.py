"""What a trained model of emoji is measured by. Each function gives figures for the record."""

import dataclasses
import io
import lzma
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.cluster import KMeans
from sklearn.datasets import load_sample_image

from igpt_export.model.model import ImageGPT
from igpt_runtime import Session
from igpt_runtime.bundle.config import PROTOCOLS, SamplingDefaults
from igpt_runtime.pictures.palette import nearest_clusters
from models.digits import digits, inks
from models.emoji import rendering
from models.emoji.emoji import SIDE, Bytes, Ints
from models.emoji.held_out import HeldOut, categories, standard_error
from models.emoji.judge import HALF, Judge
from models.emoji.sources import Demo
from models.training import checkpoint
from models.training.command import tokens as quantised
from models.training.completions import complete_halves, draw, to_pixels
from models.training.likelihood import fit_counts
from models.training.loop import nats
from models.training.palette import Floats
from models.training.probe import Pictures, fit_probe, pooled_states

COPIES = 8  # completions of each picture
COUNTED = 20_000  # training pictures that the count models see
PROBED = (4000, 1000)  # varied training pictures that fit and choose probes
_CHOOSING = 8  # one in so many groups of emoji chooses a probe, and the others fit it
FROM_NOTHING = 16  # samples, to see how many are blank
MOST_BLANK = 0.25  # of them, for a sampling that is recommended
PLAIN = SamplingDefaults()
TRIED = (
    PLAIN,
    SamplingDefaults(top_p=0.95),
    SamplingDefaults(top_p=0.9),
    SamplingDefaults(temperature=0.9),
    SamplingDefaults(temperature=0.9, top_p=0.95),
    SamplingDefaults(top_k=32),
    SamplingDefaults(top_k=12),
    SamplingDefaults(temperature=0.9, top_k=12),
)
_SEEDS = {"sampling": 400, "counted": 300, "probed": 200, "noise": 500, "photos": 501, "digits": 502, "palette": 503}

Figures = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Subject:
    """A checkpoint, and what it is measured on."""

    model: ImageGPT
    clusters: Floats  # [512, 3]
    session: Session
    source: Demo
    validation: HeldOut
    test: HeldOut

    def tokens(self, pictures: Bytes) -> Ints:
        """Sequences int64 [n, 1024] of pictures [n, 32, 32, 3]."""
        found: Ints = quantised(pictures, self.clusters).numpy()
        return found

    def nats(self, pictures: Bytes) -> Floats:
        """What each picture costs, mean nats per token [n]."""
        found: Floats = nats(self.model, torch.from_numpy(self.tokens(pictures))).mean(1).numpy()
        return found


def likelihood(subject: Subject) -> Figures:
    """Nats per token of held-out emoji, against count models and compressors; and of emoji that training knows."""
    test = subject.test
    rng = np.random.default_rng(_SEEDS["counted"])
    training = subject.tokens(rendering.vary(subject.source.emoji, subject.source.draw(COUNTED, rng), rng))
    tokens, validation = subject.tokens(test.pictures), subject.tokens(subject.validation.pictures)
    counts = fit_counts(training, validation, SIDE, len(subject.clusters))
    own = subject.nats(test.pictures)
    untoned = subject.source.rows[~subject.source.emoji.tones[subject.source.rows]]
    known = rng.choice(untoned, len(test), replace=False)
    versions = subject.source.other_versions
    versions = versions[~subject.source.emoji.tones[versions]]
    return {
        "pictures": len(test),
        "groups": len(set(test.groups)),
        "model": own.mean(),
        "standard_error": standard_error(own, test.groups),
        "neighbours": counts.neighbour_nats(tokens).mean(),
        "unigram": counts.unigram_nats(tokens).mean(),
        "uniform": math.log(len(subject.clusters)),
        "png": np.mean([_png_bytes(image) for image in to_pixels(subject.session, tokens)]) * _NATS_A_BYTE / SIDE**2,
        "xz": len(lzma.compress(tokens.astype("<u2").tobytes(), preset=9)) * _NATS_A_BYTE / tokens.size,
        "training_emoji": subject.nats(rendering.on_white(subject.source.emoji, known)).mean(),
        "other_versions": subject.nats(rendering.on_white(subject.source.emoji, versions)).mean(),
    }


def probes(subject: Subject) -> tuple[checkpoint.Probe, Figures]:
    """A linear probe of the category, chosen on varied training emoji; and retrieval by features, layer by layer."""
    names = categories(subject.source)
    parts = []
    rng = np.random.default_rng(_SEEDS["probed"])
    groups = np.array(subject.source.emoji.groups)
    known = sorted(set(groups[subject.source.rows]))
    choosing = np.isin(groups[subject.source.rows], rng.choice(known, len(known) // _CHOOSING, replace=False))
    for rows, n in zip((subject.source.rows[~choosing], subject.source.rows[choosing]), PROBED, strict=True):
        drawn = rng.choice(rows, n)
        half = n // 2
        pictures = np.concatenate([
            rendering.vary(subject.source.emoji, drawn[:half], rng),
            rendering.on_white(subject.source.emoji, drawn[half:]),
        ])  # fmt: skip
        labels = np.array([names.index(subject.source.emoji.categories[row]) for row in drawn])
        parts.append(Pictures(torch.from_numpy(subject.tokens(pictures)), labels))
    test = Pictures(torch.from_numpy(subject.tokens(subject.test.pictures)), subject.test.labels)
    fit, protocol, figures = fit_probe(subject.model, parts[0], parts[1], {"test": test}, len(names))
    figures["retrieval"] = _retrieval(subject)
    figures["constant"] = float(np.bincount(subject.test.labels).max() / len(subject.test))
    weight, bias = (torch.from_numpy(array) for array in (fit.linear.weight, fit.linear.bias))
    return checkpoint.Probe(names, fit.layers[0], protocol, weight, bias), figures


def _retrieval(subject: Subject) -> Figures:
    """How often the nearest emoji of another vendor, by features of a layer, is the same one; and what pixels give."""
    emoji, rows = subject.source.emoji, subject.test.rows
    names, vendors = np.array(emoji.names)[rows], emoji.vendors[rows]
    known = [row for row in range(len(rows)) if ((names == names[row]) & (vendors != vendors[row])).any()]

    def share(vectors: Floats) -> float:
        unit = vectors - vectors.mean(0)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        alike = unit @ unit.T
        alike[vendors[:, None] == vendors] = -np.inf
        return float((names[alike.argmax(1)] == names)[known].mean())

    tokens = torch.from_numpy(subject.tokens(subject.test.pictures))
    states = {protocol: pooled_states(subject.model, tokens, protocol) for protocol in PROTOCOLS}
    return {
        "pictures": len(known),
        "by_layer": {name: [share(own[:, i]) for i in range(own.shape[1])] for name, own in states.items()},
        "pixels": share(subject.test.pictures.reshape(len(rows), -1).astype(np.float32)),
        "chance": float(np.mean([((names == names[i]) & (vendors != vendors[i])).sum() / (vendors != vendors[i]).sum()
                                 for i in known])),
    }  # fmt: skip


def completions(
    subject: Subject, judge: Judge, part: HeldOut, sampling: SamplingDefaults, copies: int
) -> tuple[Figures, Ints]:
    """How often completions of upper halves keep the category; and they, int64 [n, copies, 1024]."""
    tokens = subject.tokens(part.pictures)
    drawn = complete_halves(subject.session, tokens, sampling, copies, _SEEDS["sampling"])
    found = judge.labels(to_pixels(subject.session, drawn.reshape(-1, tokens.shape[1])))
    kept = (found.reshape(len(part), copies) == part.labels[:, None]).mean(1)
    names = categories(subject.source)
    return {
        **dataclasses.asdict(sampling),
        "completions": drawn.shape[0] * copies,
        "kept": kept.mean(),
        "standard_error": standard_error(kept, part.groups),
        "kept_by_category": {names[i]: kept[part.labels == i].mean() for i in sorted(set(part.labels))},
    }, drawn  # fmt: skip


def blank_from_nothing(subject: Subject, sampling: SamplingDefaults) -> float:
    """Which share of pictures that are drawn from nothing have one colour only, or almost."""
    drawn = draw(subject.session, np.zeros(0, np.int64), sampling, FROM_NOTHING, _SEEDS["sampling"])
    most = np.array([np.bincount(row).max() for row in drawn]) / drawn.shape[1]
    return float((most > 0.98).mean())


def judges(judge: Judge, half_judge: Judge, part: HeldOut) -> Figures:
    """How often the judges are right about real pictures."""
    right = judge.labels(part.pictures) == part.labels
    right_half = half_judge.labels(part.pictures) == part.labels
    return {
        "real_pictures": right.mean(),
        "upper_halves": right_half.mean(),
        "rows": HALF,
        "constant": np.bincount(part.labels).max() / len(part),
        "chance": 1 / len(set(part.labels)),
    }


def unlike(subject: Subject) -> Figures:
    """How many pictures of each kind, wholly and by their upper halves, the bundle calls unlike its own."""
    kinds = {
        "held-out emoji": subject.test.pictures,
        "photographs": photo_squares(200),
        "noise": np.random.default_rng(_SEEDS["noise"]).integers(0, 256, (100, SIDE, SIDE, 3), np.uint8),
        "digits in any ink": _written(100),
    }
    bands = subject.session.manifest.likelihood
    assert bands is not None
    found: Figures = {}
    for kind, pictures in kinds.items():
        rows = {"whole": SIDE, "upper half": HALF}
        cost = nats(subject.model, torch.from_numpy(subject.tokens(pictures))).numpy()
        found[kind] = {
            name: float((cost[:, : SIDE * n].mean(1) > bands.limit(n)).mean()) for name, n in rows.items()
        } | {"pictures": len(pictures), "median": float(np.median(cost.mean(1)))}
    return found


def photo_squares(n: int) -> Bytes:
    """Random squares of scikit-learn's two photographs, at least 64 pixels wide, uint8 [n, 32, 32, 3]."""
    rng = np.random.default_rng(_SEEDS["photos"])
    squares = []
    for i in range(n):
        photo = load_sample_image(("china.jpg", "flower.jpg")[i % 2])
        side = int(rng.integers(64, min(photo.shape[:2])))
        y, x = (int(rng.integers(0, size - side + 1)) for size in photo.shape[:2])
        square = Image.fromarray(photo[y : y + side, x : x + side])
        squares.append(np.asarray(square.resize((SIDE, SIDE), Image.Resampling.BILINEAR)))
    return np.stack(squares)


def palette(clusters: Floats) -> Figures:
    """How far colours are from their nearest in the palette, and in the 512 best for those pictures: levels of 255."""
    rng = np.random.default_rng(_SEEDS["palette"])
    kinds = {name: load_sample_image(f"{name}.jpg").reshape(-1, 3) for name in ("china", "flower")}
    kinds["uniform"] = rng.integers(0, 256, (100_000, 3), np.uint8)
    found = {}
    for name, pixels in kinds.items():
        some = pixels[rng.choice(len(pixels), 50_000, replace=False)]
        best = KMeans(len(clusters), n_init=1, max_iter=50, random_state=0).fit(some / 127.5 - 1).cluster_centers_
        found[name] = {"palette": _distance(some, clusters), "best": _distance(some, best.astype(np.float32))}
    return found


def _distance(pixels: Bytes, clusters: Floats) -> float:
    """Mean Euclidean distance from the nearest colour, in levels."""
    nearest = clusters[nearest_clusters(pixels, clusters)]
    return float(np.linalg.norm((pixels / 127.5 - 1 - nearest) * 127.5, axis=1).mean())


def _written(n: int) -> Bytes:
    coverage = digits.render(digits.load_split()[2].scans[:n], side=SIDE)
    return inks.paint(coverage, inks.random_inks(n, np.random.default_rng(_SEEDS["digits"])))


_NATS_A_BYTE = 8 * math.log(2)


def _png_bytes(pixels: Bytes) -> int:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return len(buffer.getvalue())
