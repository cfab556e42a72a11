"""Libraries that write into the user's home directory as they are imported leave nothing there."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

_KERAS, _MATPLOTLIB = "KERAS_HOME", "MPLCONFIGDIR"  # their variables for where they write


@contextlib.contextmanager
def untouched_home() -> Iterator[None]:
    """Import TensorFlow, whose Keras writes its settings, and matplotlib, which writes its list of fonts, inside.

    Who has used one of them has its directory already. It is used as ever then.
    """
    with contextlib.ExitStack() as stack:
        if not _used_before(_KERAS, ".keras"):
            # Of a file, Keras makes no directory, and goes on with its defaults.
            stack.enter_context(_variable(_KERAS, os.devnull))
        if not _used_before(_MATPLOTLIB, ".cache/matplotlib", ".config/matplotlib", ".matplotlib"):
            stack.enter_context(_variable(_MATPLOTLIB, stack.enter_context(tempfile.TemporaryDirectory())))
        yield


def _used_before(variable: str, *places: str) -> bool:
    """Whether the user has set the variable, or has one of the places below the home directory."""
    # Where these two directories of a home may be instead.
    moved = {".cache": "XDG_CACHE_HOME", ".config": "XDG_CONFIG_HOME"}
    for place in map(Path, places):
        base = os.environ.get(moved.get(place.parts[0], ""), "") or Path.home() / place.parts[0]
        if Path(base, *place.parts[1:]).exists():
            return True
    return variable in os.environ


@contextlib.contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
