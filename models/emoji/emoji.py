"""The demo's pictures: emoji of three vendors, over grounds of any colour, as RGB of 32x32.

`npm pack` gets the packages, of which the versions are fixed here. What an emoji is, and its category, is said by
`emoji.json` of emoji-data (https://github.com/iamcal/emoji-data).
"""

import hashlib
import json
import re
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

SIDE = 32  # height and width of a picture, pixels
STORED = 64  # of an emoji as it is kept

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Vendor:
    """Emoji in one style, as a package has them."""

    name: str
    package: str  # at npm, with its version
    folder: str  # of the pictures in it
    suffix: str


VENDORS = (
    Vendor("noto", "emoji-datasource-google@16.0.0", "img/google/64", ".png"),
    Vendor("twemoji", "emoji-datasource-twitter@16.0.0", "img/twitter/64", ".png"),
    Vendor("fluent", "@lobehub/fluent-emoji-3d@1.1.0", "assets", ".webp"),
)
_LIST = "emoji.json"
_SHARE_HELD_OUT = 12  # one in so many groups of emoji is held out, and of one in so many others one vendor's version
_PEOPLE = re.compile("1F46[89]|1F9D1")  # man, woman, person
_GENDER = re.compile("-200D-264[02]-FE0F")


@dataclass(frozen=True, eq=False)
class Emoji:
    """Pictures with transparency, and what they show."""

    rgba: Bytes  # [n, 64, 64, 4], colours multiplied by alpha
    names: list[str]  # of the emoji in each, of whatever skin tone
    categories: list[str]
    vendors: Ints  # [n], indices of VENDORS
    groups: list[str]  # emoji that differ in gender or the time they show only
    tones: npt.NDArray[np.bool_]  # [n], whether it has a skin tone

    def __len__(self) -> int:
        """How many pictures."""
        return len(self.names)

    def of(self, rows: Ints) -> "Emoji":
        """Some of them."""
        lists = [[values[i] for i in rows] for values in (self.names, self.categories, self.groups)]
        return Emoji(self.rgba[rows], lists[0], lists[1], self.vendors[rows], lists[2], self.tones[rows])


def download(directory: Path) -> None:
    """Have every package in `directory`/VENDOR/package."""
    for vendor in VENDORS:
        target = directory / vendor.name
        if (target / "package").is_dir():
            continue
        target.mkdir(parents=True, exist_ok=True)
        packed = subprocess.run(
            ["npm", "pack", "--silent", vendor.package], cwd=target, check=True, capture_output=True, text=True
        )
        archive = target / packed.stdout.split()[-1]
        wanted = (f"package/{vendor.folder}/", f"package/{_LIST}", "package/LICENSE")
        with tarfile.open(archive) as tar:
            members = [member for member in tar if member.name.startswith(wanted)]
            tar.extractall(target, members, filter="data")
        archive.unlink()


def load(directory: Path) -> Emoji:
    """Every emoji of every vendor, and its skin tones."""
    cache = directory / "emoji.npz"
    listed = json.loads((directory / VENDORS[0].name / "package" / _LIST).read_text())
    rows: list[tuple[str, str, int, str, bool]] = []
    files: list[Path] = []
    for entry in listed:
        images = [entry["image"], *(tone["image"] for tone in entry.get("skin_variations", {}).values())]
        for number, vendor in enumerate(VENDORS):
            for image in images:
                path = directory / vendor.name / "package" / vendor.folder / Path(image).with_suffix(vendor.suffix)
                if path.is_file() and entry["category"] != "Component":
                    rows.append((entry["short_name"], entry["category"], number, _group(entry), image != images[0]))
                    files.append(path)
    if not cache.exists():
        np.savez(cache, rgba=np.stack([_read(path) for path in files]))
    with np.load(cache) as stored:
        rgba = stored["rgba"]
    names, categories, vendors, groups, tones = zip(*rows, strict=True)
    return Emoji(rgba, list(names), list(categories), np.array(vendors), list(groups), np.array(tones))


def split(emoji: Emoji) -> tuple[Ints, Ints, Ints]:
    """Rows to train on, rows of held-out emoji, and rows of held-out versions of emoji that others train on.

    All versions of an emoji are on one side, and so are those that differ only in gender or in the time they show.
    """
    draws = np.array([_draw(group) for group in emoji.groups])
    held_out = draws % _SHARE_HELD_OUT == 0
    version = (draws % _SHARE_HELD_OUT == 1) & (draws // _SHARE_HELD_OUT % len(VENDORS) == emoji.vendors)
    return np.flatnonzero(~held_out & ~version), np.flatnonzero(held_out), np.flatnonzero(version)


def _draw(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest()[:12], 16)


def _group(entry: dict[str, Any]) -> str:
    if entry["subcategory"] == "keycap" or "clock" in entry["short_name"]:
        return str(entry["subcategory"])
    return _GENDER.sub("", _PEOPLE.sub("1F9D1", entry["unified"]))


def _read(path: Path) -> Bytes:
    with Image.open(path) as image:
        # Colours times alpha, since what is transparent has no colour that could be averaged.
        return np.asarray(image.convert("RGBA").convert("RGBa").resize((STORED, STORED), Image.Resampling.BOX))
