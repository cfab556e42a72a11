"""Figures of the demo model on held-out emoji, measured with the toolkit itself."""

import io
import lzma
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.cluster import KMeans
from sklearn.datasets import load_sample_images

from igpt_export.probe.fit import Fit, Labelled, best_of, fit_linear
from igpt_runtime import GenerationOptions, features, generate_all, score
from igpt_runtime.bundle.config import PROTOCOLS
from igpt_runtime.engine.session import Session
from igpt_runtime.pictures.palette import nearest_clusters
from igpt_runtime.tasks.likeness import likeness
from models.demo import digits
from models.emoji import rendering
from models.emoji.emoji import SIDE, Bytes, Ints
from models.emoji.judge import Judge, train_judge
from models.emoji.sources import Demo
from models.training.counts import fit_counts

Floats = npt.NDArray[np.float32]
Sampling = tuple[float, float]  # temperature and top-p

COMPLETIONS = 6  # of every held-out upper half
TRIED = ((1.0, 1.0), (1.0, 0.95), (0.9, 0.95), (0.8, 0.95), (0.7, 0.95), (0.8, 0.9))  # temperature, top-p
_COUNTED = 20_000  # pictures that the count models see
_SEEDS = {"counts": 11, "judge": 12, "photos": 13, "noise": 14, "likeness": 15}


@dataclass(frozen=True, eq=False)
class Measured:
    """The model, opened, and the pictures it is measured on, uint8 [n, 32, 32, 3]."""

    session: Session
    clusters: Floats
    source: Demo
    train: Ints  # rows of emoji without skin tones
    held_out: Ints
    other_versions: Ints

    def pictures(self, rows: Ints) -> Bytes:
        """Emoji on white."""
        return rendering.on_white(self.source.emoji, rows)

    def tokens(self, pictures: Bytes) -> Ints:
        """Tokens [n, 32, 32]."""
        return nearest_clusters(pictures, self.clusters)

    def colours(self, tokens: Ints) -> Bytes:
        """The pictures of tokens [n, 32, 32]."""
        colours = np.rint((self.clusters + 1) * 127.5).clip(0, 255).astype(np.uint8)
        return colours[tokens]

    def labels(self, rows: Ints) -> Ints:
        """Numbers of the rows' categories, in the order of their names."""
        names = self.category_names
        return np.array([names.index(self.source.emoji.categories[row]) for row in rows])

    @property
    def category_names(self) -> list[str]:
        """In alphabetical order."""
        return sorted(set(self.source.emoji.categories))


def as_images(pictures: Bytes) -> list[Image.Image]:
    """As the toolkit takes them."""
    return [Image.fromarray(picture) for picture in pictures]


def nats(session: Session, pictures: Bytes) -> Floats:
    """Of every token [n, 32, 32]."""
    return np.stack([scored.nats for scored in score(session, as_images(pictures))])


def measure_likelihood(measured: Measured) -> dict[str, Any]:
    """Nats per token of the model, of count models, and of file formats."""
    held_out = measured.pictures(measured.held_out)
    tokens = measured.tokens(held_out)
    rng = np.random.default_rng(_SEEDS["counts"])
    parts = [measured.tokens(measured.source.batch(1000, rng)) for _ in range(_COUNTED // 1000)]
    validation = measured.tokens(measured.pictures(measured.other_versions))
    counts = fit_counts(np.concatenate(parts), validation, len(measured.clusters))
    some = np.random.default_rng(0).permutation(measured.train)[: len(measured.held_out)]
    found = nats(measured.session, held_out)
    by_picture = found.mean((1, 2))
    to_nats = math.log(2) / SIDE**2
    return {
        "pictures": len(held_out),
        "model_nats": found.mean(),
        "standard_error": by_picture.std(ddof=1) / math.sqrt(len(by_picture)),
        "model_bits_per_channel": found.mean() / math.log(2) / 3,
        "model_nats_upper_half": found[:, : SIDE // 2].mean(),
        "model_nats_lower_half": found[:, SIDE // 2 :].mean(),
        "model_nats_on_training_emoji": nats(measured.session, measured.pictures(some)).mean(),
        "model_nats_on_other_versions": nats(measured.session, measured.pictures(measured.other_versions)).mean(),
        "neighbour_nats": counts.neighbour_nats(tokens).mean(),
        "neighbour_strength": counts.strength,
        "unigram_nats": counts.alone_nats(tokens).mean(),
        "uniform_nats": math.log(len(measured.clusters)),
        "png_nats": np.mean([8 * len(_png(picture)) * to_nats for picture in measured.colours(tokens)]),
        "xz_nats": 8 * len(lzma.compress(tokens.astype("<u2").tobytes(), preset=9)) * to_nats / len(tokens),
    }


def _png(picture: Bytes) -> bytes:
    """A picture as a PNG file of its own colours, as small as Pillow makes it."""
    image = Image.fromarray(picture)
    file = io.BytesIO()
    image.convert("P", palette=Image.Palette.ADAPTIVE, colors=256).save(file, "PNG", optimize=True)
    return file.getvalue()


def complete_all(measured: Measured, rows: Ints, sampling: Sampling, n: int, seed: int = 0) -> Ints:
    """Completions of the upper halves of emoji, tokens [rows, n, 32, 32]."""
    tokens = measured.tokens(measured.pictures(rows)).reshape(len(rows), -1)
    drawn = []
    for number, row in enumerate(tokens):
        options = GenerationOptions(n=n, seed=seed + number, temperature=sampling[0], top_p=sampling[1], top_k=0)
        drawn.append(generate_all(measured.session, row[: SIDE**2 // 2], options))
    return np.stack(drawn).reshape(len(rows), n, SIDE, SIDE)


def kept(measured: Measured, judge: Judge, rows: Ints, completed: Ints) -> dict[str, Any]:
    """Share of completions [rows, n, 32, 32] that the judge puts into the category of the given half."""
    n = completed.shape[1]
    found = judge.categories(measured.colours(completed.reshape(-1, SIDE, SIDE)))
    labels = measured.labels(rows)
    right = (found == np.repeat(labels, n)).reshape(-1, n).mean(1)
    names = measured.category_names
    return {
        "completions": completed.shape[0] * n,
        "kept": right.mean(),
        "standard_error": right.std(ddof=1) / math.sqrt(len(right)),
        "by_category": {names[label]: right[labels == label].mean() for label in np.unique(labels)},
    }


def measure_completions(measured: Measured) -> tuple[dict[str, Any], Sampling, Ints]:
    """Whether completions keep the category; the sampling that does so best on validation, and its completions."""
    emoji, labels = measured.source.emoji, measured.labels(measured.held_out)
    rows = measured.source.rows
    judge = train_judge(emoji, rows, measured.labels(rows), _SEEDS["judge"])
    validation = measured.other_versions
    tried = [
        {"temperature": sampling[0], "top_p": sampling[1],
         **kept(measured, judge, validation, complete_all(measured, validation, sampling, 1))}
        for sampling in TRIED
    ]  # fmt: skip
    best = max(range(len(TRIED)), key=lambda i: tried[i]["kept"])
    completed = complete_all(measured, measured.held_out, TRIED[best], COMPLETIONS)
    plain = complete_all(measured, measured.held_out, (1.0, 1.0), COMPLETIONS)
    quantised = measured.colours(measured.tokens(measured.pictures(measured.held_out)))
    halves = quantised.copy()
    halves[:, SIDE // 2 :] = rendering.WHITE
    figures = {
        "recommended": {"temperature": TRIED[best][0], "top_p": TRIED[best][1],
                        **kept(measured, judge, measured.held_out, completed)},
        "model_distribution": kept(measured, judge, measured.held_out, plain),
        "tried_on_validation": tried,
        "judge_on_real_pictures": (judge.categories(quantised) == labels).mean(),
        "judge_on_upper_halves_over_white": (judge.categories(halves) == labels).mean(),
        "chance": 1 / len(measured.category_names),
        "best_constant_answer": np.bincount(labels).max() / len(labels),
    }  # fmt: skip
    return figures, TRIED[best], completed


def measure_probe(measured: Measured) -> tuple[Fit, str, dict[str, Any]]:
    """Linear probes of the category, and retrieval of the same emoji by another vendor, for every layer."""
    parts = {"train": measured.train, "validation": measured.other_versions, "held_out": measured.held_out}
    pictures = {name: as_images(measured.pictures(rows)) for name, rows in parts.items()}
    labels = {name: measured.labels(rows) for name, rows in parts.items()}
    names = len(measured.category_names)
    rows: list[dict[str, Any]] = []
    fits: list[tuple[Fit, str]] = []
    for protocol in PROTOCOLS:
        found = {name: features(measured.session, some, protocol=protocol) for name, some in pictures.items()}
        for layer in range(found["train"].shape[1]):
            train, validation = (Labelled(found[name][:, layer], labels[name]) for name in ("train", "validation"))
            fit = fit_linear(train, validation, names, [layer])
            fits.append((fit, protocol))
            rows.append({
                "protocol": protocol, **fit.record(),
                "held_out_accuracy": fit.linear.accuracy(found["held_out"][:, layer], labels["held_out"]),
                "other_vendor_retrieval": _retrieval(measured, found["held_out"][:, layer]),
            })  # fmt: skip
    best = best_of([fit for fit, _ in fits])
    protocol = next(protocol for fit, protocol in fits if fit is best)
    counts = np.bincount(labels["held_out"])
    return best, protocol, {"layers": rows, "best_constant_answer": counts.max() / counts.sum()}


def _retrieval(measured: Measured, found: Floats) -> float:
    """Share of held-out emoji whose nearest picture of other vendors, by the cosine, is the same emoji.

    found: [held-out rows, n_embd].
    """
    emoji, rows = measured.source.emoji, measured.held_out
    names, vendors = np.array([emoji.names[row] for row in rows]), emoji.vendors[rows]
    centred = found - found.mean(0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    cosines = np.where(vendors[:, None] == vendors[None], -2.0, unit @ unit.T)
    elsewhere = np.array(
        [((names == name) & (vendors != vendor)).any() for name, vendor in zip(names, vendors, strict=True)]
    )
    return float((names[cosines.argmax(1)] == names)[elsewhere].mean())


def photos(n: int) -> Bytes:
    """Squares of scikit-learn's two photographs, uint8 [n, 32, 32, 3]."""
    rng = np.random.default_rng(_SEEDS["photos"])
    whole = load_sample_images().images
    found = []
    for number in range(n):
        photo = whole[number % len(whole)]
        side = int(rng.integers(96, min(photo.shape[:2]) + 1))
        y, x = (int(rng.integers(0, size - side + 1)) for size in photo.shape[:2])
        crop = Image.fromarray(photo[y : y + side, x : x + side])
        found.append(np.asarray(crop.resize((SIDE, SIDE), Image.Resampling.BILINEAR)))
    return np.stack(found)


def noise(n: int) -> Bytes:
    """Pixels of any colour."""
    return np.random.default_rng(_SEEDS["noise"]).integers(0, 256, (n, SIDE, SIDE, 3), np.uint8)


def measure_likeness(measured: Measured) -> dict[str, float]:
    """Share of pictures of several kinds that are called unlike the model's own."""
    rng = np.random.default_rng(_SEEDS["likeness"])
    scans = digits.load_split()[2].scans
    black_on_white = 255 - digits.render(scans, side=SIDE)[..., None].repeat(3, -1)
    kinds = {
        "held_out_emoji": measured.pictures(measured.held_out),
        "training_emoji": measured.pictures(rng.permutation(measured.train)[:300]),
        "held_out_emoji_on_grounds": rendering.vary(measured.source.emoji, measured.held_out, rng),
        "photos": photos(200), "noise": noise(100),
        "digits_black_on_white": black_on_white, "digits_any_ink": rendering.write_digits(scans, rng),
    }  # fmt: skip
    found = {}
    for name, pictures in kinds.items():
        results = [likeness(measured.session.manifest, one) for one in nats(measured.session, pictures)]
        halves = [likeness(measured.session.manifest, one[: SIDE // 2]) for one in nats(measured.session, pictures)]
        found[name] = np.mean([one is not None and one.unlike for one in results])
        found[f"{name}_upper_half"] = np.mean([one is not None and one.unlike for one in halves])
    return found


def measure_palette(measured: Measured) -> dict[str, float]:
    """Mean distance, in levels of 0..255, of colours from the nearest of the palette, and of the best 512."""
    cube = np.random.default_rng(0).integers(0, 256, (100_000, 3), np.uint8)
    whole = load_sample_images().images
    kinds = {"uniform": cube, **{name: whole[i].reshape(-1, 3) for i, name in enumerate(("china", "flower"))}}
    found = {}
    for name, pixels in kinds.items():
        some = np.random.default_rng(1).permutation(pixels)[:50_000]
        best = KMeans(512, n_init=1, max_iter=50, random_state=0).fit(some / 127.5 - 1).cluster_centers_
        found[name] = _distance(some, measured.clusters)
        found[f"{name}_best"] = _distance(some, best.astype(np.float32))
    return found


def _distance(pixels: Bytes, clusters: Floats) -> float:
    nearest = (clusters[nearest_clusters(pixels, clusters)] + 1) * 127.5
    return float(np.linalg.norm(pixels - nearest, axis=-1).mean())
