"""The model card of a bundle: its header, its text with names of any kind, and that what it shows runs."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from PIL import Image

from igpt_export.card import model_card
from igpt_export.checkpoint.about import About
from igpt_export.checkpoint.checkpoint import load_checkpoint
from igpt_export.export import ExportOptions, export_bundle
from igpt_export.markup import plain, quoted
from igpt_export.minimum import MINIMA, minimum
from igpt_export.precision.precision import Precision
from igpt_export.probe.bake import bake_probe
from igpt_runtime.bundle.bundle import open_bundle
from igpt_runtime.bundle.config import Classifier, SamplingDefaults
from igpt_runtime.bundle.manifest import PRECISIONS, PROFILES, Manifest
from igpt_runtime.engine.session import open_session
from tests_of_probe import fitted  # type: ignore[import-not-found]
