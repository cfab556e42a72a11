"""What a graph has computed must be numbers: of NaN and infinity, nothing can be told."""

import numpy as np
import numpy.typing as npt

from igpt_runtime.engine.session import Session
from igpt_runtime.errors import BundleError


def check_numbers(session: Session, values: npt.NDArray[np.float32]) -> None:
    """Raise BundleError if a value is NaN or infinite."""
    if not np.isfinite(values).all():
        raise BundleError(
            f"{session.bundle.path} computes NaN or infinity; its weights or graphs are no good: "
            "export the bundle again, from a sound checkpoint"
        )
