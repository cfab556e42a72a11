"""The harnesses by their names."""

import importlib

from hostile.fuzz.campaign import Harness

COUNTS = {
    "bundles": 2000,
    "pictures": 5000,
    "checkpoints": 1000,
    "openai": 300,
    "kills": 300,
    "pairs": 200,
}  # cases by default
_CLASSES = {
    "bundles": "bundles.Bundles", "pictures": "pictures.Pictures", "checkpoints": "checkpoints.Checkpoints",
    "openai": "checkpoints.OpenAICheckpoints", "kills": "kills.Kills", "pairs": "pairs.Pairs",
}  # fmt: skip


def harness(name: str) -> Harness:
    """A new one."""
    module, kind = _CLASSES[name].split(".")
    made: Harness = getattr(importlib.import_module(f"hostile.fuzz.{module}"), kind)()
    return made
