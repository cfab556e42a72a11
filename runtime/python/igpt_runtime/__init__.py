"""Runs ImageGPT bundles on ONNX Runtime: completes, samples, classifies and embeds pictures. No torch, no onnx.

from igpt_runtime import GenerationOptions, complete, open_session

session = open_session()  # the embedded demo model; or a path to a bundle
for picture in complete(session, "digit.png", GenerationOptions(n=4, seed=1)).images:
    picture.show()
"""

from igpt_runtime.bundle.bundle import Bundle, demo_bundle_path, open_bundle
from igpt_runtime.bundle.config import Classifier, ImageFormat, ImageGPTConfig
from igpt_runtime.bundle.manifest import Manifest
from igpt_runtime.engine.generate import GenerationOptions, generate, generate_all
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
from igpt_runtime.tasks.complete import Completion, complete, images_of, sample, tokens_of
from igpt_runtime.tasks.features import features
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
