"""What each graph says of its bundle, so that a client needs no JSON: `metadata_props` of the ONNX model.

`runtime/SPEC.md`, section 3, lists the keys.
"""

from collections.abc import Mapping

from igpt_runtime.bundle.manifest import FORMAT_VERSION, SAMPLING_VERSION, Manifest

PREFIX = "igpt."


def graph_metadata(
    manifest: Manifest, graph: str, license: Mapping[str, str | list[str]], weights_sha256: str | None
) -> dict[str, str]:
    """Keys and values for one graph of a bundle.

    graph: its name; license: the licence fields of the checkpoint's model card; weights_sha256: of the weights file, if
    the graph refers to it.
    """
    config, form, sampling = manifest.config, manifest.image_format, manifest.sampling
    values: dict[str, object] = {
        "graph": graph,
        "format_version": FORMAT_VERSION,
        "sampling_version": SAMPLING_VERSION,
        "name": manifest.name,
        "precision": manifest.precision,
        "kv_cache": manifest.kv_cache,
        "profile": manifest.profile,
        "onnxruntime_minimum": manifest.onnxruntime_minimum,
        "height": form.height,
        "width": form.width,
        "sos": config.sos,
        "n_positions": config.n_positions,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "head_dim": config.head_dim,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "source": manifest.source["checkpoint"],
        "source_sha256": manifest.source["sha256"],
        "weights_sha256": weights_sha256,
    }
    values |= {key: _joined(value) for key, value in license.items()}
    if manifest.classifier is not None:
        classifier = manifest.classifier
        values |= {"protocol": classifier.protocol, "function_to_apply": classifier.function_to_apply}
        values |= {"labels": len(classifier.labels)}
        values |= {f"label.{i}": label for i, label in enumerate(classifier.labels)}
    return {PREFIX + key: str(value) for key, value in values.items() if value is not None}


def _joined(value: str | list[str]) -> str:
    return value if isinstance(value, str) else ", ".join(value)
