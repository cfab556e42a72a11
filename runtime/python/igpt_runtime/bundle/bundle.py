"""A bundle directory: found, read, and compared with its manifest."""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from igpt_runtime.bundle.directory import MANIFEST_FILE, is_file_name, leads_out, read_manifest
from igpt_runtime.bundle.hub import find_bundle
from igpt_runtime.bundle.manifest import Manifest, shortened
from igpt_runtime.errors import BundleError, OptionError
from igpt_runtime.regular import placeholder

EMBEDDED_BUNDLES = ("demo", "digits")  # names of the bundles in this package; the first is the default
_POINTER = 1024  # bytes: less than such a file has
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk."""

    path: Path  # its directory
    manifest: Manifest  # what it says of itself

    def graph_path(self, name: str) -> Path:
        """Path of a graph, after checking that it is the file the manifest describes.

        Raises:
            BundleError: the bundle has no such graph, or a file is missing or altered.
        """
        graph = self.manifest.graphs.get(name)
        if graph is None:
            raise BundleError(
                f"{self.path} has no {name} graph: its checkpoint has no language-model head; "
                "export an ImageGPTForCausalImageModeling checkpoint"
            )
        return self.check_file(graph.file)

    def check_file(self, name: str) -> Path:
        """Path of a file, after comparing it with its size and hash in the manifest. Raises BundleError."""
        path = self.find(name)
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != self.manifest.files[name].sha256:
                raise BundleError(f"{path} does not match its sha256 in the manifest; copy or export the bundle again")
        return path

    def find(self, name: str) -> Path:
        """Path of a file, after a look at all but its contents. Raises BundleError."""
        record = self.manifest.files.get(name)
        path = self.path / name
        if record is None or not is_file_name(name):
            raise BundleError(
                f"{self.path / MANIFEST_FILE} names {shortened(repr(name))}, which is not a file of the bundle"
            )
        if not path.is_file() or leads_out(self.path, path):
            raise BundleError(f"{path} is missing or not a regular file; copy or export the bundle again")
        size = path.stat().st_size
        if size != record.size and size < _POINTER:
            with path.open("rb") as file:
                if stands_for := placeholder(file.read()):
                    raise BundleError(f"{path} {stands_for}")
        if size != record.size:
            raise BundleError(f"{path} has {size} bytes instead of {record.size}; copy or export the bundle again")
        return path


def demo_bundle_path() -> Path:
    """The bundle embedded in this package that is used unless another one is named."""
    return _embedded_path(EMBEDDED_BUNDLES[0])


def open_bundle(path: str | os.PathLike[str] | None = None, *, sha256: str | None = None) -> Bundle:
    """Read the bundle at `path`, or an embedded one.

    path: a directory; None is the embedded demo. A string that is no directory is taken for the name of an embedded
    bundle, `demo` or `digits`, or for the name `owner/name` or `owner/name@revision` of a bundle on the Hugging Face
    Hub. That one is downloaded unless it is in the Hub's cache.
    sha256: of its manifest.json, in hexadecimal, so that no other bundle is taken for it; None takes any.

    Raises:
        BundleError: there is no bundle at `path`, its manifest cannot be read, or has another SHA-256.
        DeviceError: it must be downloaded, and huggingface_hub is not installed.
        OptionError: `sha256` is not 64 hexadecimal digits.
    """
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise OptionError(f"sha256 must be 64 hexadecimal digits, got {sha256!r}")
    directory = _located(path, sha256)
    return Bundle(directory, read_manifest(directory, sha256))


def _located(path: str | os.PathLike[str] | None, sha256: str | None) -> Path:
    if path is None:
        return demo_bundle_path()
    if not isinstance(path, str):
        return Path(path)
    if path in EMBEDDED_BUNDLES and not os.path.exists(path):
        return _embedded_path(path)
    return find_bundle(path, sha256)


def _embedded_path(name: str) -> Path:
    return Path(__file__).parent.with_name(name)
