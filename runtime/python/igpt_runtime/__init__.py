"""Runs ImageGPT bundles on ONNX Runtime: completes, samples, classifies and embeds pictures. No torch, no onnx.

from igpt_runtime import GenerationOptions, complete, open_session

session = open_session()  # the embedded demo model; or a path to a bundle
for picture in complete(session, "digit.png", GenerationOptions(n=4, seed=1)).images:
    picture.show()
"""

from igpt_runtime.bundle import Bundle, demo_bundle_path, open_bundle
from igpt_runtime.complete import Completion, complete, images_of, sample, tokens_of
from igpt_runtime.config import Classifier, ImageFormat, ImageGPTConfig
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
from igpt_runtime.features import classify, features
from igpt_runtime.generate import GenerationOptions, generate, generate_all
from igpt_runtime.manifest import Manifest
from igpt_runtime.palette import read_image
from igpt_runtime.score import Score, score
from igpt_runtime.session import Session, open_session

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
