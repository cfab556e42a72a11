"""Whether the numbers of a model fit float16, which ends at 65504."""

import numpy as np
import numpy.typing as npt

from igpt_export.precision.calibration import Observation, Outputs
from igpt_runtime.errors import VerificationError

LARGEST = float(np.finfo(np.float16).max)


def check_fits(largest: float, what: str) -> None:
    """Raise VerificationError if the largest absolute value of something is above LARGEST, or not a number."""
    if not largest <= LARGEST:
        raise VerificationError(
            f"fp16 overflows: {what} is {largest:.3g}, float16 ends at {LARGEST:.0f}; nothing was kept - use "
            "--precision fp32, or int8, whose activations are float32"
        )


def check_activations(observation: Observation, outputs: Outputs) -> None:
    """Check what the float model computed inside of the calibration pictures, and its outputs for all pictures.

    Raises VerificationError that names the first block with an activation float16 does not hold.
    """
    for block, largest in sorted(observation.largest.items()):
        check_fits(largest, f"the largest activation of block {block}, the residual stream included,")
    for logits, what in ((outputs.logits, "the largest logit"), (outputs.class_logits, "the largest class logit")):
        if logits is not None:
            check_fits(float(np.abs(logits).max()), what)


def check_finite(values: npt.NDArray[np.float32], what: str) -> None:
    """Check what the written graphs computed: an activation that float16 does not hold ends in infinity or NaN."""
    if not np.isfinite(values).all():
        check_fits(float("inf"), f"an activation behind the {what} of the written graphs")
