"""How far the numbers of a written bundle may be from those they are compared with."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from igpt_export.precision.overflow import check_finite
from igpt_export.precision.precision import Precision
from igpt_runtime.errors import VerificationError

Array = npt.NDArray[np.float32]

TOLERANCE = 1e-4  # of the largest difference, relative to the largest reference value once that exceeds 1
# Below fp32 the kernels round activations too, which torch does not, and single values may be far off. This bounds the
# root mean square, relative to the reference's; a wrong graph is off by about 1, the rest the certificate tells.
COARSE_TOLERANCE = 0.2
HALF_TOLERANCE = 0.02  # likewise in fp16, which was 0.0015 off with 24 layers and 0.0009 with 6


def tolerance_of(precision: Precision) -> float:
    """The one that holds for a precision."""
    if precision.is_half:
        return HALF_TOLERANCE
    return TOLERANCE if precision.is_exact else COARSE_TOLERANCE


@dataclass(frozen=True)
class Difference:
    """How far two arrays are apart."""

    largest: float  # absolute
    relative: float  # what the tolerance limits: see `igpt_export.verify.tolerance`


def check_difference(expected: Array, actual: Array, what: str, precision: Precision) -> Difference:
    """Compare an array with a reference. Raises VerificationError if they are too far apart."""
    if precision.is_half:
        check_finite(actual, what)
    largest = float(np.abs(expected - actual).max())
    if precision.is_exact:
        found, size = largest, max(1.0, float(np.abs(expected).max()))
    else:
        found, size = _root_mean_square(expected - actual), _root_mean_square(expected)
    limit = tolerance_of(precision) * size
    if not found <= limit:
        raise VerificationError(
            f"the exported graphs disagree with torch: {what} differ by {found:.2g} (allowed {limit:.2g}); "
            "nothing was kept - please report this checkpoint"
        )
    return Difference(largest, found / size if found else 0.0)


def check_equal(actual: npt.NDArray[np.generic], expected: npt.NDArray[np.generic], what: str) -> None:
    """Raise VerificationError unless two arrays are the same."""
    if not np.array_equal(actual, expected):
        raise VerificationError(
            f"the exported {what} graph disagrees with the runtime; nothing was kept - please report this checkpoint"
        )


def _root_mean_square(values: Array) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
