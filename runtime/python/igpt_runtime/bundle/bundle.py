"""A bundle directory: found, read, and compared with its manifest."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from igpt_runtime.bundle.manifest import MANIFEST_FILE, Manifest, manifest_from_json
from igpt_runtime.errors import BundleError

_MAX_MANIFEST_BYTES = 16 << 20


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk."""

    path: Path
    manifest: Manifest

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
        if record is None or name != Path(name).name or name in ("", ".", ".."):
            raise BundleError(f"{self.path / MANIFEST_FILE} names {name!r}, which is not a file of the bundle")
        if path.is_symlink() or not path.is_file():
            raise BundleError(f"{path} is missing or not a regular file; copy or export the bundle again")
        size = path.stat().st_size
        if size != record.size:
            raise BundleError(f"{path} has {size} bytes instead of {record.size}; copy or export the bundle again")
        return path


def demo_bundle_path() -> Path:
    """The bundle embedded in this package."""
    return Path(__file__).parent.with_name("demo")


def open_bundle(path: str | os.PathLike[str] | None = None) -> Bundle:
    """Read the bundle at `path`, or the embedded demo.

    Raises:
        BundleError: there is no bundle at `path`, or its manifest cannot be read.
    """
    directory = demo_bundle_path() if path is None else Path(path)
    manifest = directory / MANIFEST_FILE
    if not directory.is_dir():
        raise BundleError(f"no bundle at {directory}; make one with igpt-export")
    try:
        if manifest.stat().st_size > _MAX_MANIFEST_BYTES:
            raise BundleError(f"{manifest} is too large to be a manifest; export the bundle again")
        text = manifest.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise BundleError(
            f"{directory} is not a bundle: it has no {MANIFEST_FILE}; make one with igpt-export"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{manifest} cannot be read ({error}); copy or export the bundle again") from error
    return Bundle(directory, manifest_from_json(text, str(manifest)))
