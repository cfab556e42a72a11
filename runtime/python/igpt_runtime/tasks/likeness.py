"""Whether a picture is of the kind that a model was trained on, by what it costs."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from igpt_runtime.bundle.manifest import Manifest

__all__ = ["Likeness", "likeness"]


@dataclass(frozen=True)
class Likeness:
    """A picture, or its upper rows, beside those that a model was trained on."""

    nats_per_token: float
    usual: tuple[float, float]  # nats per token that 5 % and 95 % of the model's own kind of pictures cost at most
    unlike: bool  # it costs far more than these

    def record(self) -> dict[str, Any]:
        """As --json shows it."""
        return {"nats_per_token": self.nats_per_token, "usual": list(self.usual), "unlike": self.unlike}

    @property
    def notice(self) -> str | None:
        """A line for who would believe the answer anyway; None for a picture of the model's kind."""
        if not self.unlike:
            return None
        low, high = self.usual
        cost = f"{self.nats_per_token:.1f} nats a pixel, its own pictures cost {low:.1f} to {high:.1f}"
        return f"unlike what this model was trained on: {cost}"


def likeness(manifest: Manifest, nats: npt.NDArray[np.float32]) -> Likeness | None:
    """Compare a picture with what the manifest says of the model's own.

    nats: of the pixels of one row or more at the top, of any shape. None if there are none, or if the manifest does not
    say what such pictures cost.
    """
    if manifest.likelihood is None or not nats.size:
        return None
    rows = nats.size // manifest.image_format.width
    low, _, high = manifest.likelihood.by_rows[rows - 1]
    cost = float(nats.mean(dtype=np.float64))
    return Likeness(cost, (low, high), cost > manifest.likelihood.limit(rows))
