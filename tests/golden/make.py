"""Makes the golden pack: a tiny bundle and what the references make of it, for the tests of every language.

Run `python tests/golden/make.py` after a change of the bundle's format. The expectations come from transformers' model
and image processor, and from the rules of `runtime/SPEC.md` written down here once more; none comes from the runtime.
"""

import base64
import itertools
import json
import math
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

GOLDEN = Path(__file__).parent
sys.path.insert(0, str(GOLDEN.parent))

from tiny_checkpoints import BUNDLED, add_probe, save_checkpoint  # noqa: E402

SIDE, P, V = 8, 64, 16
SOS = V
PROBE_LAYER = 1
MASK = 0xFFFFFFFF
MARGIN = 2e-5  # how far a draw must be from the border between two tokens
# keep, n, seed, temperature, top_k, top_p; of seeds that come too near a border the next one is taken
REQUESTS = [
    (0, 2, 0, 1.0, 0, 1.0),
    (32, 9, 3, 1.0, 0, 1.0),
    (32, 1, 2**53 + 1, 1.0, 0, 1.0),
    (32, 2, 0, 0.0, 0, 1.0),
    (32, 3, 2**63 + 5, 0.7, 5, 1.0),
    (1, 1, 7, 1.0, 0, 0.8),
    (63, 5, 2**32, 1.3, 3, 0.9),
    (64, 2, 1, 1.0, 0, 1.0),
]


def threefry(key: tuple[int, int], counter: tuple[int, int]) -> tuple[int, int]:
    """Threefry-2x32-20, in Python's integers."""
    keys = [*key, key[0] ^ key[1] ^ 0x1BD11BDA]
    a, b = (counter[0] + key[0]) & MASK, (counter[1] + key[1]) & MASK
    for i in range(20):
        bits = (13, 15, 26, 6, 17, 29, 16, 24)[i % 8]
        a = (a + b) & MASK
        b = ((b << bits | b >> (32 - bits)) & MASK) ^ a
        if i % 4 == 3:
            turn = i // 4 + 1
            a, b = (a + keys[turn % 3]) & MASK, (b + keys[(turn + 1) % 3] + turn) & MASK
    return a, b


def uniform(seed: int, sample: int, position: int) -> float:
    return (threefry((seed >> 32, seed & MASK), (sample, position))[0] >> 8) / 2**24


class TooNearError(Exception):
    """A draw that rounding may turn into another token."""


def draw(logits: np.ndarray, u: float, temperature: float, top_k: int, top_p: float) -> int:
    """Section 4 of the specification in float64."""
    ranks = sorted(range(V), key=lambda token: (-logits[token], token))
    gaps = [logits[a] - logits[b] for a, b in itertools.pairwise(ranks)]
    if min(gaps[: 1 if temperature == 0 else None]) < 1e-5:
        raise TooNearError
    if temperature == 0:
        return ranks[0]
    scaled = [(float(logits[t]) - float(logits[ranks[0]])) / float(np.float32(temperature)) for t in ranks]
    if top_k:
        scaled = scaled[:top_k]
    weights = [math.exp(x) for x in scaled]
    probability = [w / sum(weights) for w in weights]
    kept, before = [], 0.0
    for rank, p in enumerate(probability):
        if top_p < 1 and abs(before - top_p) < MARGIN:
            raise TooNearError
        kept.append(p if rank == 0 or before < top_p else 0.0)
        before += p
    borders = np.cumsum(kept) / sum(kept)
    if np.abs(borders[:-1] - u).min(initial=1.0) < MARGIN:
        raise TooNearError
    return ranks[int(np.searchsorted(borders, u, side="right"))]


def complete(model: Any, primer: list[int], n: int, seed: int, *options: float) -> list[list[int]]:
    """n completions, the whole sequence computed again for every token."""
    rows = [list(primer) for _ in range(n)]
    for position in range(len(primer), P):
        logits = forward(model, *([SOS, *row] for row in rows)).logits[:, -1].numpy()
        for sample, row in enumerate(rows):
            row.append(draw(logits[sample], uniform(seed, sample, position), *options))  # type: ignore[arg-type]
    return rows


@torch.no_grad()
def forward(model: Any, *rows: list[int]) -> Any:
    return model(torch.tensor(rows), output_hidden_states=True)


def pictures() -> Iterator[tuple[str, np.ndarray]]:
    rng = np.random.default_rng(5)
    ramp = np.arange(12, dtype=np.uint8)
    photo = load_sample_image("china.jpg")
    yield "black", np.zeros((1, 1, 3), np.uint8)
    yield "white", np.full((3, 2, 3), 255, np.uint8)
    yield "noise-8x8", rng.integers(0, 256, (8, 8, 3), np.uint8)
    yield "noise-30x90", np.random.default_rng(6).integers(0, 256, (90, 30, 3), np.uint8)
    yield "noise-97x61", rng.integers(0, 256, (61, 97, 3), np.uint8)
    yield "wide", np.ascontiguousarray(photo[100:103, :200])
    yield "tall", np.ascontiguousarray(photo[:200, 300:303])
    yield "photo", np.asarray(Image.fromarray(photo).resize((64, 48)))
    yield "ramp", np.stack(np.broadcast_arrays(ramp[:, None] * 20, ramp * 20, ramp[::-1] * 10), -1).astype(np.uint8)


def cut_square(image: Image.Image) -> Image.Image:
    """The centre, at the model's size."""
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    return image.resize((8, 8), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))


def encoded(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()


def rounded(values: Any) -> Any:
    """Six significant digits are far finer than what runtimes agree on."""
    return json.loads(
        json.dumps(np.asarray(values, np.float64).tolist()), parse_float=lambda x: float(f"{float(x):.6g}")
    )


def cases(checkpoint: Path) -> dict[str, Any]:
    """All expectations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers' own, at import
        from transformers import ImageGPTForCausalImageModeling, ImageGPTImageProcessorPil

    from safetensors.torch import load_file

    model = ImageGPTForCausalImageModeling.from_pretrained(checkpoint).eval()
    processor = ImageGPTImageProcessorPil.from_pretrained(checkpoint)
    stored = load_file(checkpoint / "model.safetensors")
    clusters = np.asarray(processor.clusters, np.float64).astype(np.float32).astype(np.float64)
    colours = np.clip(np.rint(127.5 * (clusters + 1)), 0, 255).astype(np.uint8)
    shown = dict(pictures())
    tokens = {
        name: np.asarray(processor(images=Image.fromarray(pixels))["input_ids"][0]).tolist()
        for name, pixels in shown.items()
    }
    teacher = []
    for name in ("photo", "noise-8x8", "noise-30x90"):
        picture = tokens[name]
        behind_sos, alone = forward(model, [SOS, *picture[:-1]]), forward(model, picture)
        square = processor(images=cut_square(Image.fromarray(shown[name])))["input_ids"][0].tolist()
        hidden = forward(model, [SOS, *square[:-1]]).hidden_states[PROBE_LAYER]
        with torch.no_grad():
            pooled = model.transformer.h[PROBE_LAYER].ln_1(hidden).mean(1)
        probe = torch.softmax(pooled @ stored["probe.weight"].t() + stored["probe.bias"], -1)
        likelihood = torch.log_softmax(behind_sos.logits[0].double(), -1)
        nats = -likelihood[range(P), picture]
        teacher.append(
            {
                "picture": name,
                "tokens": picture,
                "logits": rounded(behind_sos.logits[0]),
                "features": rounded([hidden.mean(1)[0].tolist() for hidden in alone.hidden_states]),
                "probabilities": rounded(probe[0]),
                "nats": rounded(nats),
                "nats_per_token": rounded(nats.mean()),
            }
        )
    completions = []
    for keep, n, seed, temperature, top_k, top_p in REQUESTS:
        while True:
            try:
                drawn = complete(model, tokens["photo"][:keep], n, seed, temperature, top_k, top_p)
                break
            except TooNearError:
                seed += 1
        completions.append(
            {
                "picture": "photo", "keep": keep, "n": n, "seed": str(seed), "temperature": temperature, "top_k": top_k,
                "top_p": top_p, "tokens": drawn,
            }
        )  # fmt: skip
    keys = [(0, 0), (MASK, MASK), (0x13198A2E, 0x03707344)]
    counters = [(0, 0), (MASK, MASK), (0x243F6A88, 0x85A308D3)]
    seeds = [0, 1, 2**32 - 1, 2**32, 2**53 + 1, 2**64 - 1]
    return {
        "threefry": [
            {"key": [f"{k:08x}" for k in key], "counter": [f"{c:08x}" for c in counter],
             "result": [f"{w:08x}" for w in threefry(key, counter)]}
            for key, counter in zip(keys, counters, strict=True)
        ],
        "uniforms": [
            {"seed": str(seed), "sample": sample, "position": position, "uniform": uniform(seed, sample, position)}
            for seed in seeds for sample in (0, 1, 4095) for position in (0, 63, 1023)
        ],
        "pictures": [
            {"name": name, "height": pixels.shape[0], "width": pixels.shape[1], "rgb": encoded(pixels),
             "tokens": tokens[name]}
            for name, pixels in shown.items()
        ],
        "images": [{"tokens": row, "rgb": encoded(colours[row])} for row in (tokens["photo"], list(range(V)) * 4)],
        "model": teacher,
        "completions": completions,
    }  # fmt: skip


def make_checkpoint(directory: Path) -> Path:
    """The tiny checkpoint, which transformers writes."""
    checkpoint = save_checkpoint(directory, fields=BUNDLED)
    add_probe(checkpoint, layer=PROBE_LAYER)
    return checkpoint


def main() -> None:
    from igpt_export.checkpoint.checkpoint import load_checkpoint
    from igpt_export.export import ExportOptions, export_bundle

    with tempfile.TemporaryDirectory() as directory:
        checkpoint = make_checkpoint(Path(directory) / "golden")
        export_bundle(load_checkpoint(checkpoint), GOLDEN / "bundle", ExportOptions(embed=True, force=True))
        (GOLDEN / "cases.json").write_text(json.dumps(cases(checkpoint), separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
