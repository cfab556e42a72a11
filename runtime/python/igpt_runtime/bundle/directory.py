"""The directory of a bundle: the names of its files, what is a part of it, and its manifest read from there."""

import hashlib
import os
from pathlib import Path

from igpt_runtime.bundle.manifest import Manifest, manifest_from_json
from igpt_runtime.errors import BundleError
from igpt_runtime.regular import placeholder, read_regular

MANIFEST_FILE = "manifest.json"
WEIGHTS_FILE = "weights.safetensors"
CARD_FILE = "README.md"  # for people, who may change it: not among the files that the manifest describes
MAX_MANIFEST_BYTES = 16 << 20
_BLOBS = "blobs"  # where the cache of the Hugging Face Hub has the files that the links of its snapshots lead to
_LEVELS = 3  # that such a directory may be above a bundle: beside snapshots/COMMIT, of the repository, of the cache


def is_file_name(name: str) -> bool:
    """Whether a name is that of a file directly in a directory, and no path."""
    # A text from JSON may hold half a character, of which no name can be made.
    return name.isprintable() and name == Path(name).name and name not in ("", ".", "..")


def leads_out(directory: Path, path: Path) -> bool:
    """Whether a path in the directory of a bundle is a link to what was not given along with the bundle.

    Only a link to where the Hub's cache keeps the files of this bundle is none: any other could make foreign files a
    part of it.
    """
    if not path.is_symlink():
        return False
    target = Path(os.path.realpath(path))  # unlike Path.resolve, it also has an answer for links in a circle
    stores = (parent / _BLOBS for parent in list(directory.resolve().parents)[:_LEVELS])
    return not any(target.is_relative_to(store) and not store.is_symlink() for store in stores)


def read_manifest(directory: Path, sha256: str | None = None) -> Manifest:
    """The manifest in the directory of a bundle.

    sha256: of the file, in hexadecimal; None takes any.

    Raises:
        BundleError: there is no bundle, its manifest cannot be read, or it is another one.
    """
    path = directory / MANIFEST_FILE
    if not directory.is_dir():
        raise BundleError(f"no bundle at {directory}; make one with igpt-export")
    if leads_out(directory, path):
        raise BundleError(f"{path} is a link out of the bundle; copy or export the bundle again")
    try:
        content = read_regular(path, MAX_MANIFEST_BYTES)
        text = content.decode("utf-8")
    except FileNotFoundError as error:
        raise BundleError(
            f"{directory} is not a bundle: it has no {MANIFEST_FILE}; make one with igpt-export"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BundleError(f"{path} cannot be read ({reason}); copy or export the bundle again") from error
    if stands_for := placeholder(content):
        raise BundleError(f"{path} {stands_for}")
    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256.lower():
        raise BundleError(
            f"{path} has the SHA-256 {found}, not {sha256}: it is not the bundle that was asked for; "
            "get the right one, or ask for this one if you trust it"
        )
    return manifest_from_json(text, str(path))
