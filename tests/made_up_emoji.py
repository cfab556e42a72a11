"""Emoji that are none: discs of random colours, in directories like those of the packages."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from models.emoji import emoji

TONES = {"1F3FB": {"image": "wave-light.png"}, "1F3FF": {"image": "wave-dark.png"}}
ENTRIES = [
    {"unified": "1F680", "short_name": "rocket", "category": "Travel & Places", "image": "rocket.png"},
    {"unified": "1F44B", "short_name": "wave", "category": "People & Body", "image": "wave.png",
     "skin_variations": TONES},
    {"unified": "1F468-200D-2695-FE0F", "short_name": "male-doctor", "category": "People & Body", "image": "m.png"},
    {"unified": "1F469-200D-2695-FE0F", "short_name": "female-doctor", "category": "People & Body", "image": "f.png"},
    {"unified": "1F3FB", "short_name": "skin-tone-2", "category": "Component", "image": "tone.png"},
    *({"unified": f"X{i}", "short_name": f"x{i}", "category": "Symbols", "image": f"x{i}.png"} for i in range(60)),
]  # fmt: skip


def make_packages(directory: Path) -> None:
    """Write the packages of all vendors."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64] - 31.5
    for vendor in emoji.VENDORS:
        folder = directory / vendor.name / "package" / vendor.folder
        folder.mkdir(parents=True)
        for entry in ENTRIES:
            for image in [entry["image"], *(tone["image"] for tone in entry.get("skin_variations", {}).values())]:
                rgba = np.zeros((64, 64, 4), np.uint8)
                rgba[..., :3] = rng.integers(0, 256, 3)
                rgba[..., 3] = 255 * (y**2 + x**2 < 28**2)
                Image.fromarray(rgba).save((folder / image).with_suffix(vendor.suffix), lossless=True)
        entries = [{"subcategory": "", **entry} for entry in ENTRIES]
        (directory / vendor.name / "package/emoji.json").write_text(json.dumps(entries))
