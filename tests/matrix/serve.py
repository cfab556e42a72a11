"""Runs graphs for engines.py in another release of ONNX Runtime: as serve.mjs, a request a line in, an answer out."""

import base64
import json
import os
import sys
from functools import cache
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime


@cache
def opened(path: str) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def answer(request: dict[str, Any]) -> dict[str, Any]:
    session = opened(f"{request['bundle']}/{request['graph']}.onnx")
    feeds = {
        name: np.frombuffer(base64.b64decode(value["data"]), value["type"]).reshape(value["dims"])
        for name, value in request["feeds"].items()
    }
    outputs = zip(session.get_outputs(), session.run(None, feeds), strict=True)
    return {
        output.name: {
            "type": value.dtype.name, "dims": list(value.shape), "data": base64.b64encode(value.tobytes()).decode(),
        }
        for output, value in outputs
    }  # fmt: skip


print(json.dumps({"version": onnxruntime.__version__}), flush=True)
for line in sys.stdin:
    try:
        reply: dict[str, Any] = {"outputs": answer(json.loads(line))}
    except Exception as error:  # whatever it throws is what there is to report
        reply = {"error": str(error)}
    print(json.dumps(reply), flush=True)
