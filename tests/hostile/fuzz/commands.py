"""Commands that write files, and what they are given: for kills, and for two of them at once."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hostile.fuzz.forks import command, import_as
from PIL import Image

ROOT = Path(__file__).parents[3]
_GOLDEN = ROOT / "tests/golden/bundle"
_ONE = ["--threads", "1", "--progress", "never"]
_PICTURES, _CLASSES = 24, 3


Work = Callable[[], object]


@dataclass(frozen=True)
class Written:
    """A command that writes below the directory OUT."""

    module: str
    arguments: tuple[str, ...]  # OUT and GIVEN stand for directories
    outputs: tuple[str, ...]  # the files it writes, those last that it writes last
    beside: tuple[str, ...] = ()  # what it may leave for a later run, when it has ended well
    resumes: tuple[str, ...] = ()  # what it may leave if it is killed, and goes on from
    forced: bool = False  # it always replaces what is there
    seconds: float = 0.0  # that it takes

    def work(self, given: Path, out: Path, *, force: bool, alone: bool = False) -> Work:
        """What runs it."""
        places = {"OUT": str(out), "GIVEN": str(given)}
        arguments = [_filled(argument, places) for argument in self.arguments]
        return command(self.module, [*arguments, *(["--force"] if force else [])], alone=alone)


def _filled(argument: str, places: dict[str, str]) -> str:
    for name, place in places.items():
        argument = argument.replace(name, place)
    return argument


def make_given(directory: Path) -> None:
    """Write pictures, in a directory for each class, and a checkpoint."""
    from tiny_checkpoints import save_checkpoint

    rng = np.random.default_rng(0)
    for number in range(_PICTURES):
        target = directory / f"pictures/{number % _CLASSES}"
        target.mkdir(parents=True, exist_ok=True)
        levels = rng.integers(0, 100, (9, 9, 3)) + 70 * (number % _CLASSES)
        Image.fromarray(levels.astype(np.uint8)).save(target / f"{number}.png")
    save_checkpoint(directory / "checkpoint")


def _runs(*arguments: str) -> tuple[str, ...]:
    return (*arguments, "--model", str(_GOLDEN), *_ONE)


COMMANDS: dict[str, Written] = {
    "features": Written(
        "igpt_runtime", _runs("features", "GIVEN/pictures", "-o", "OUT/f.npz"), ("f.npz",), resumes=("f.npz.partial",)
    ),
    "features in parquet": Written(
        "igpt_runtime", _runs("features", "GIVEN/pictures", "-o", "OUT/f.parquet"), ("f.parquet",),
        resumes=("f.parquet.partial",),
    ),
    "complete": Written(
        "igpt_runtime",
        _runs("complete", "GIVEN/pictures/0/0.png", "-n", "2", "--separate", "--gif", "-o", "OUT/deep/c.png"),
        ("deep/c.png", "deep/c-1.png", "deep/c-2.png", "deep/c.gif"),
    ),
    "score": Written(
        "igpt_runtime", _runs("score", "GIVEN/pictures/1", "--maps", "OUT/maps", "-o", "OUT/s.csv"),
        (*(f"maps/{number}-surprise.png" for number in range(1, _PICTURES, _CLASSES)), "s.csv"),
    ),
    "probe fit": Written(
        "igpt_runtime", _runs("probe", "fit", "GIVEN/pictures", "-o", "OUT/p"),
        tuple(f"p/{name}" for name in ("probe.npz", "curve.png", "curve.csv", "report.json")),
        beside=("p/features-train", "p/features-validation"), resumes=("p",),
    ),
    "export": Written(
        "igpt_export", ("--checkpoint", "GIVEN/checkpoint", "-o", "OUT/b", "--progress", "never"), ("b",)
    ),
    "export, replacing": Written(
        "igpt_export", ("--checkpoint", "GIVEN/checkpoint", "-o", "OUT/b", "--progress", "never"), ("b",), forced=True
    ),
}  # fmt: skip


def preload(given: Path, place: Path) -> None:
    """Import what the commands import, so that forks begin with their work."""
    for name, written in COMMANDS.items():
        (place / name).mkdir(parents=True)
        outcome = import_as(name, place / name, written.work(given, place / name / "out", force=False))
        assert not outcome.code, (name, outcome.stderr)
