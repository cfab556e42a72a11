"""The demo model: what is embedded is what the checkpoint exports to, and it does what its card says."""

import json
from pathlib import Path

import numpy as np
import pytest

from igpt_export.checkpoint import load_checkpoint
from igpt_export.export import export_bundle
from igpt_runtime import GenerationOptions, classify, complete, demo_bundle_path, generate_all, open_session, tokens_of
from igpt_runtime.palette import read_image

DEMO = Path(__file__).parent.parent / "models" / "demo"
EXAMPLES = sorted((DEMO / "examples").glob("*.png"))
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
