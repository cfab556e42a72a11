"""Opens graphs with ONNX Runtime's CUDA provider and prints as JSON, by path, where it placed which nodes.

`python placement.py CAPTURE GRAPH...`; CAPTURE is 1 to ask for a CUDA graph too, which is refused unless every node
that computes is on the device and nothing is copied between it and the host.
"""

import json
import sys

import onnxruntime


def place(path: str, capture: str) -> dict[str, list[tuple[str, str]]]:
    """Operator and name of the nodes, by execution provider."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 1  # tells which nodes go to the CPU though there is a kernel, and why
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    providers = [("CUDAExecutionProvider", {"enable_cuda_graph": capture}), "CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(path, options, providers=providers)
    session.disable_fallback()
    assert session.get_providers()[0] == "CUDAExecutionProvider"
    placed: dict[str, list[tuple[str, str]]] = {}
    for part in session.get_provider_graph_assignment_info():
        placed.setdefault(part.ep_name, []).extend((node.op_type, node.name) for node in part.get_nodes())
    return placed


if __name__ == "__main__":
    print(json.dumps({path: place(path, sys.argv[1]) for path in sys.argv[2:]}))
