"""Samples: pictures that are drawn from nothing."""

import numpy as np

from igpt_runtime.engine.generate import GenerationOptions, generate_all
from igpt_runtime.engine.session import Session
from igpt_runtime.tasks.complete import Completion, Progress, images_of


def sample(
    session: Session, options: GenerationOptions | None = None, *, progress: Progress | None = None
) -> Completion:
    """Draw `options.n` whole pictures from nothing.

    options: None draws 8 with the recommended sampling.
    progress: called after every step with the number of tokens that this step drew.

    Raises:
        BundleError: the bundle has no language-model head, or is damaged.
        DeviceError: CUDA was asked for and ONNX Runtime did not start it.
        MemoryShortageError: not even one picture fits into the memory there is.
    """
    used = (options or GenerationOptions()).resolved(session.manifest)
    tokens = generate_all(session, np.empty(0, np.int64), used, progress)
    return Completion(tokens, 0, images_of(session, tokens), None, used)
