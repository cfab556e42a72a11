"""A bundle: its manifest, its files, its graphs, and whether it draws."""

import hashlib
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from igpt_runtime.doctor.child import Outcome, run
from igpt_runtime.doctor.finding import BROKEN, OK, UNKNOWN, Finding, checked, fault, one_line
from igpt_runtime.progress import Progress

if TYPE_CHECKING:
    from igpt_runtime.bundle.bundle import Bundle
    from igpt_runtime.bundle.manifest import Manifest

_TOPIC, _MEMORY = "bundle", "memory"
_LARGE = 64 << 20  # bytes: reading more is worth showing
_BLOCK = 8 << 20
_MANY = 64  # pictures
_DEVICES = {"CPUExecutionProvider": "the CPU", "CUDAExecutionProvider": "CUDA"}


def bundle(
    model: str | None, device: str, threads: int | None, progress: Progress, *, hindrance: str | None,
    sha256: str | None = None,
) -> Iterator[Finding]:  # fmt: skip
    """Everything about a bundle, and the memory that there is for it.

    model, sha256: as `open_session` takes them; hindrance: why no graph can be opened on the device;
    None if nothing is known that speaks against it.
    """
    from igpt_runtime.bundle.bundle import open_bundle
    from igpt_runtime.errors import IgptError

    try:
        opened = open_bundle(model, sha256=sha256)
    except IgptError as error:
        yield fault(_TOPIC, "manifest", BROKEN, str(error))
        yield from checked(_MEMORY, "available", partial(memory, None))
        return
    manifest, form = opened.manifest, opened.manifest.image_format
    what = f"{manifest.name}, {manifest.precision}, {form.width}x{form.height}"
    yield Finding(_TOPIC, "manifest", OK, f"{what}, at {opened.path}")
    room = checked(_MEMORY, "available", partial(memory, manifest))
    whole = checked(_TOPIC, "files", partial(files, opened, progress))
    yield from whole
    if any(finding.status == BROKEN for finding in room):
        hindrance = "memory does not suffice"
    if any(finding.status != OK for finding in whole):
        hindrance = "files are damaged"
    if hindrance is None:
        yield from at_work(opened, device, threads, progress)
    else:
        yield Finding(_TOPIC, "graphs", UNKNOWN, f"not opened, since {hindrance}", "cure that first, then look again")
    yield from room


def memory(manifest: "Manifest | None") -> Iterator[Finding]:
    """What is free, and how many pictures it is enough for."""
    from igpt_runtime.engine.memory import available_memory, rows_at_once
    from igpt_runtime.errors import MemoryShortageError

    available = available_memory()
    if available is None:
        remedy = "draw fewer pictures at once if it runs out"
        yield Finding(_MEMORY, "available", UNKNOWN, "this system does not tell", remedy)
        return
    free = f"{available / 1e9:,.1f} GB"
    if manifest is None:
        yield Finding(_MEMORY, "available", OK, free)
        return
    try:
        rows = rows_at_once(manifest, _MANY, 0, loaded=False)
    except MemoryShortageError as error:
        yield fault(_MEMORY, "available", BROKEN, str(error))
        return
    pictures = "one picture" if rows == 1 else f"{rows} pictures"
    yield Finding(_MEMORY, "available", OK, f"{free}, enough to draw {pictures} of {manifest.name} at once")


def files(opened: "Bundle", progress: Progress) -> Iterator[Finding]:
    """Whether every file is the one that the manifest describes; a finding a damaged file, or one for all."""
    from igpt_runtime.errors import BundleError

    manifest = opened.manifest
    whole = True
    for name, record in manifest.files.items():
        try:
            path = opened.find(name)
            if record.size >= _LARGE:
                progress.stage(name)
            digest, done = hashlib.sha256(), 0
            with path.open("rb") as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
                    done += len(block)
                    progress.count(done, record.size, "bytes")
            if digest.hexdigest() != record.sha256:
                fact = f"{path} does not match its sha256 in the manifest"
                yield Finding(_TOPIC, name, BROKEN, fact, "copy or export the bundle again")
                whole = False
        except BundleError as error:
            yield fault(_TOPIC, name, BROKEN, str(error))
            whole = False
        except OSError as error:
            fact = f"{error.filename} cannot be read ({error.strerror})"
            yield Finding(_TOPIC, name, BROKEN, fact, "make it readable, or copy the bundle again")
            whole = False
    if whole:
        size = sum(record.size for record in manifest.files.values())
        found = f"{len(manifest.files)} files, {size / 1e6:,.1f} MB, as the manifest describes them"
        yield Finding(_TOPIC, "files", OK, found)


def at_work(opened: "Bundle", device: str, threads: int | None, progress: Progress) -> Iterator[Finding]:
    """Whether its graphs open, and whether it draws."""
    if sum(record.size for record in opened.manifest.files.values()) >= _LARGE:
        progress.stage("opening the graphs")
    outcome = run("bundle", path=str(opened.path), device=device, threads=threads)
    said = outcome.said
    if outcome.died is not None:
        found = one_line(f"{outcome.error} while {said.get('at', 'starting')}")
        found += "; memory may have run out" if "SIGKILL" in outcome.died else ""
        yield Finding(_TOPIC, "graphs", BROKEN, found, "free memory, or take a smaller bundle; else export it again")
        return
    for file, message in said.get("errors", {}).items():
        yield fault(_TOPIC, file, BROKEN, message)
    if "errors" in said and not said["errors"]:
        yield Finding(_TOPIC, "graphs", OK, f"all {len(opened.manifest.graphs)} open")
    if outcome.error is not None:
        yield fault(_TOPIC, said.get("at", "graphs"), BROKEN, outcome.error)
    elif "provider" in said:
        yield _drawn(opened.manifest, outcome)


def _drawn(manifest: "Manifest", outcome: Outcome) -> Finding:
    said = outcome.said
    where = _DEVICES.get(said["provider"], said["provider"])
    if "finite" in said:
        if not said["finite"]:
            return Finding(_TOPIC, "prefill", BROKEN, f"gives features that are no numbers on {where}", _EXPORT)
        return Finding(_TOPIC, "prefill", OK, f"runs on {where}; this bundle classifies and does not draw")
    tokens = said["tokens"]
    if not all(0 <= token < manifest.config.n_clusters for token in tokens):
        return Finding(_TOPIC, "drawing", BROKEN, f"drew {tokens} on {where}, which are no colours", _EXPORT)
    return Finding(
        _TOPIC, "drawing", OK, f"drew {len(tokens)} tokens on {where} in {said['seconds']:.2f} s, opening included"
    )


_EXPORT = "export the bundle again"
