"""Runs ImageGPT bundles on ONNX Runtime: completes, samples, classifies and embeds pictures. No torch, no onnx.

from igpt_runtime import GenerationOptions, complete, open_session

session = open_session()  # the embedded demo model; or a path to a bundle
for picture in complete(session, "digit.png", GenerationOptions(n=4, seed=1)).images:
    picture.show()
"""

import importlib
from typing import TYPE_CHECKING, Any

from igpt_runtime import errors as errors  # `igpt_runtime.errors.OptionError` needs no import of its own

if TYPE_CHECKING:
    from igpt_runtime.bundle.bundle import Bundle, demo_bundle_path, open_bundle
    from igpt_runtime.bundle.config import Classifier, ImageFormat, ImageGPTConfig, SamplingDefaults
    from igpt_runtime.bundle.manifest import Manifest
    from igpt_runtime.engine.generate import GenerationOptions, ResolvedOptions, generate, generate_all
    from igpt_runtime.engine.session import Session, open_session
    from igpt_runtime.errors import (
        BundleError,
        CheckpointError,
        DeviceError,
        IgptError,
        ImageError,
        MemoryShortageError,
        OptionError,
        OutputError,
        VerificationError,
    )
    from igpt_runtime.pictures.reading import read_image
    from igpt_runtime.tasks.classify import classify
    from igpt_runtime.tasks.complete import Completion, complete, images_of, tokens_of
    from igpt_runtime.tasks.features import features
    from igpt_runtime.tasks.sample import sample
    from igpt_runtime.tasks.score import Score, score

__all__ = [
    "Bundle",
    "BundleError",
    "CheckpointError",
    "Classifier",
    "Completion",
    "DeviceError",
    "GenerationOptions",
    "IgptError",
    "ImageError",
    "ImageFormat",
    "ImageGPTConfig",
    "Manifest",
    "MemoryShortageError",
    "OptionError",
    "OutputError",
    "ResolvedOptions",
    "SamplingDefaults",
    "Score",
    "Session",
    "VerificationError",
    "classify",
    "complete",
    "demo_bundle_path",
    "features",
    "generate",
    "generate_all",
    "images_of",
    "open_bundle",
    "open_session",
    "read_image",
    "sample",
    "score",
    "tokens_of",
]

# Modules are imported when a name is first used: a command needs few of them, and `doctor` must start without numpy.
_NAMES = {
    "bundle.bundle": ("Bundle", "demo_bundle_path", "open_bundle"),
    "bundle.config": ("Classifier", "ImageFormat", "ImageGPTConfig", "SamplingDefaults"),
    "bundle.manifest": ("Manifest",),
    "engine.generate": ("GenerationOptions", "ResolvedOptions", "generate", "generate_all"),
    "engine.session": ("Session", "open_session"),
    "errors": tuple(name for name in __all__ if name.endswith("Error")),
    "pictures.reading": ("read_image",),
    "tasks.classify": ("classify",),
    "tasks.complete": ("Completion", "complete", "images_of", "tokens_of"),
    "tasks.features": ("features",),
    "tasks.sample": ("sample",),
    "tasks.score": ("Score", "score"),
}
_MODULES = {name: f"{__name__}.{module}" for module, names in _NAMES.items() for name in names}


if not TYPE_CHECKING:  # a type checker would take any name for one of the package

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(_MODULES[name]), name)
        globals()[name] = value  # found without this function from now on
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
