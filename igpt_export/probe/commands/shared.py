"""What the commands of `igpt-run probe` share."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from igpt_export.home import untouched_home
from igpt_runtime.errors import INSTALL, DeviceError

PROBE_FILE = "probe.npz"


@contextmanager
def needing(extra: str) -> Iterator[None]:
    """Raise DeviceError that names the extra to install if an import inside of the block fails."""
    try:
        with untouched_home():
            yield
    except ImportError as error:
        raise DeviceError(f"this needs more packages ({error}); {INSTALL} '.[{extra}]'") from error


def probe_path(path: Path) -> Path:
    """The file of a probe that is named itself, or by the directory it is in."""
    return path / PROBE_FILE if path.is_dir() else path
