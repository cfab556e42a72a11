"""Describes a bundle: what it is, what it may do, what its precision costs."""

import json
from collections.abc import Mapping
from typing import Any

from igpt_runtime.bundle.graph_io import PREFILL
from igpt_runtime.bundle.manifest import Manifest, manifest_to_json
from igpt_runtime.engine.session import Session


def describe(session: Session, *, start: bool) -> tuple[dict[str, object], dict[str, Any]]:
    """Lines for a reader, by what they are of, and the whole manifest with the provider as a record.

    start: open a graph, as only that tells whether a provider is there.
    """
    if start:
        session.graph(PREFILL)
    manifest = session.manifest
    record = {**json.loads(manifest_to_json(manifest)), "provider": session.provider}
    config, form = manifest.config, manifest.image_format
    size = sum(file.size for file in manifest.files.values())
    rows: dict[str, object] = {
        "name": manifest.name,
        "path": session.bundle.path,
        "precision": f"{manifest.precision}, cache {manifest.kv_cache}",
        **_losses(manifest),
        "model": f"{config.n_layer} layers x {config.n_embd} wide, {config.n_head} heads, {config.activation_function}",
        "pictures": f"{form.width}x{form.height}, {config.n_clusters} colours",
        "classifier": "none"
        if manifest.classifier is None
        else f"{len(manifest.classifier.labels)} labels on layer {', '.join(map(str, manifest.classifier.layers))} "
        f"({manifest.classifier.protocol})",
        "graphs": f"{', '.join(manifest.graphs)} ({manifest.profile})",
        "size": f"{size / 1e6:,.1f} MB",
        "checkpoint": manifest.source["checkpoint"],
        "verified": _verified(manifest),
        "provider": session.provider,
    }
    return rows, record


def _verified(manifest: Manifest) -> str:
    """How far each graph was off when it was compared with torch, by the figure that the tolerance limits."""
    report, exact = manifest.verification, manifest.certificate is None
    figure = "max_abs_diff" if exact else "relative_error"
    found = [f"{graph} {report[key]:.2g}" for graph in manifest.graphs if (key := f"{graph}_{figure}") in report]
    if exact:
        return f"largest differences from torch: {', '.join(found)}"
    return (
        f"errors against torch, relative root mean square: {', '.join(found)}; the lines above say what the precision "
        "costs"
    )


def _losses(manifest: Manifest) -> dict[str, str]:
    """What the certificate says of pictures held out, a line for each thing a bundle does."""
    certificate = manifest.certificate
    if certificate is None:
        return {}
    lines = {}
    for graph, name in (("prefill", "prefilling"), ("decode", "drawing")):
        if certificate[graph] is not None:
            loss = certificate[graph]["held_out"]
            lines[name] = (
                f"{loss['increase']:+.4f} nats per token, KL {loss['kl_divergence']:.2g}, "
                f"top-1 agreement {loss['top1_agreement']:.1%} ({_judged(certificate, loss)})"
            )
    shift = certificate["features"]["held_out"]
    lines["features"] = f"relative error {shift['features_error']:.2g} ({_judged(certificate, shift)})"
    if shift["kl_divergence"] is not None:
        lines["classes"] = f"KL {shift['kl_divergence']:.2g}, agreement {shift['top1_agreement']:.1%}"
    return lines


def _judged(certificate: Mapping[str, Any], part: Mapping[str, Any]) -> str:
    """The pictures that a figure is of."""
    return f"on {part['pictures']} that did not set the scales, of {certificate['pictures']}"
