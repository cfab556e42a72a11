"""Stages of other precisions, and of single kernels."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper
from onnx.external_data_helper import set_external_data
from stage import Stage, placement, session_of, steps_at, timed, use, wait_for

from igpt_runtime import GenerationOptions, generate_all
from igpt_runtime.engine.device import with_options
from igpt_runtime.engine.graph import Graph


def stage_low(stage: Stage) -> None:
    """int8, int4 and fp32 bundles on the GPU: do they run, is it right, how slow are they."""
    for label in ("digits-int8", "digits-int4", "digits-fp32"):
        path = Path(stage.options["kit"]) / "bundles" / label
        if stage.options["device"] == "cuda":
            for graph in ("prefill", "decode"):
                with stage.attempt(f"{label}: placement of {graph}"):
                    found = placement(path / f"{graph}.onnx", capture=False)
                    stage[f"{label}: {graph}'s nodes"] = {
                        "CPU": found.get("CPU", {}),
                        "CUDA": sum(found.get("CUDA", {}).values()),
                    }
        with stage.attempt(label):
            gpu, cpu = (session_of(stage, f"bundles/{label}", device) for device in (None, "cpu"))
            primer = np.arange(128) % 200
            options = GenerationOptions(n=8, seed=1)
            generate_all(gpu, primer, options)
            seconds, found = timed(lambda: generate_all(gpu, primer, options))  # noqa: B023
            on_cpu, exact = timed(lambda: generate_all(cpu, primer, options))  # noqa: B023
            stage[label] = {
                "seconds": seconds,
                "on the CPU": on_cpu,
                "tokens the same": float((found == exact)[:, 128:].mean()),
            }
    with stage.attempt("small-fp32"):
        wait_for(stage, "small-fp32")
        session = session_of(stage, "graphs/small-fp32")
        stage["small-fp32: steps"] = {rows: steps_at(session, rows, 16)["step_ms"] for rows in (1, 8)}


def stage_nbits(stage: Stage, size: str) -> None:
    """Steps with weights of 8 and 4 bits and activations in float16 (MatMulNBits), for their time only."""
    wait_for(stage, f"{size}-fp16")
    use(stage.options["config"])
    providers = ["CUDAExecutionProvider"] * (stage.options["device"] == "cuda") + ["CPUExecutionProvider"]
    for bits in (8, 4):
        path = nbits_graph(Path(stage.options["kit"]) / f"graphs/{size}-fp16", bits)
        for name, value in (("its own kernel", "0"), ("fpA_intB", "1")):
            with stage.attempt(f"{bits} bits, {name}"):
                session = session_of(stage, f"graphs/{size}-fp16")
                options = ort.SessionOptions()
                options.add_session_config_entry("ep.cuda.fpa_intb_gemm", value)
                os.environ["ORT_FPA_INTB_GEMM"] = value
                opened = ort.InferenceSession(
                    path, options, providers=with_options(providers, session.manifest, decodes=True)
                )
                session._graphs["decode"] = Graph(opened, path, None)
                found = {rows: steps_at(session, rows, 32)["step_ms"] for rows in stage.options["torch_rows"]}
                stage[f"{bits} bits, {name}: steps"] = found
                del session, opened


def nbits_graph(bundle: Path, bits: int) -> Path:
    """A decode graph whose blocks multiply with random weights of some bits; the products' biases are their own."""
    block = 128
    model = onnx.load(bundle / "decode.onnx", load_external_data=False)
    graph = model.graph
    known = {tensor.name: tensor for tensor in graph.initializer}
    users: Counter[str] = Counter(name for node in graph.node for name in node.input)
    adds = {node.input[0]: node for node in graph.node if node.op_type == "Add" and node.input[1] in known}
    generator = np.random.default_rng(0)
    gone, nodes = set(), []
    with (bundle / f"weights{bits}.bin").open("wb") as file:

        def keep(name: str, array: Any, dtype: int) -> str:
            file.write(bytes(-file.tell() % 4096))
            tensor = onnx.TensorProto(name=name, data_type=dtype, dims=array.shape, raw_data=b"x")
            set_external_data(tensor, file.name.rpartition("/")[2], offset=file.tell(), length=array.nbytes)
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            file.write(array.tobytes())
            graph.initializer.append(tensor)
            return name

        for node in graph.node:
            if node.name in gone:
                continue
            weight = known.get(node.input[1]) if node.op_type == "MatMul" else None
            if weight is None or not node.input[1].startswith("h."):
                nodes.append(node)
                continue
            n_in, n_out = weight.dims
            shape = n_out, n_in // block, block * bits // 8
            levels = keep(f"{weight.name}.levels", generator.integers(0, 256, shape, np.uint8), onnx.TensorProto.UINT8)
            scale = keep(f"{weight.name}.scale", np.full(shape[:2], 1e-4, np.float16), onnx.TensorProto.FLOAT16)
            inputs, output, add = [node.input[0], levels, scale], node.output[0], adds.get(node.output[0])
            if add is not None and users[node.output[0]] == 1:
                inputs += ["", "", add.input[1]]
                output = add.output[0]
                gone.add(add.name)
            nodes.append(
                helper.make_node(
                    "MatMulNBits",
                    inputs,
                    [output],
                    node.name,
                    domain="com.microsoft",
                    K=n_in,
                    N=n_out,
                    bits=bits,
                    block_size=block,
                )
            )
    kept = [node for node in nodes if node.name not in gone]
    used = {name for node in kept for name in node.input}
    tensors = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(tensors)
    path = bundle / f"decode{bits}.onnx"
    onnx.save(model, path)
    return path


def stage_norms(stage: Stage) -> None:
    """How exact the kernels of the norm are, in float16, for rows of small, usual and large numbers."""
    half, microsoft = TensorProto.FLOAT16, "com.microsoft"
    norms = {
        "SkipSimplifiedLayerNormalization": [
            (
                "SkipSimplifiedLayerNormalization",
                ["x", "skip", "weight"],
                ["y", "", "", "sum"],
                microsoft,
                {"epsilon": 1e-5},
            )
        ],
        "Add and SimplifiedLayerNormalization": [
            ("Add", ["x", "skip"], ["sum"], "", {}),
            (
                "SimplifiedLayerNormalization",
                ["sum", "weight"],
                ["y"],
                "",
                {"epsilon": 1e-5, "stash_type": 1, "axis": -1},
            ),
        ],
        "Add and RMSNormalization": [
            ("Add", ["x", "skip"], ["sum"], "", {}),
            ("RMSNormalization", ["sum", "weight"], ["y"], "", {"epsilon": 1e-5, "stash_type": 1, "axis": -1}),
        ],
    }
    providers = ["CUDAExecutionProvider"] * (stage.options["device"] == "cuda") + ["CPUExecutionProvider"]
    for (name, nodes), width in ((norm, width) for norm in norms.items() for width in (512, 1024, 1536)):
        values = [helper.make_tensor_value_info(value, half, ["rows", 1, width]) for value in ("x", "skip", "y", "sum")]
        weight = helper.make_tensor_value_info("weight", half, [width])
        graph = helper.make_graph(
            [helper.make_node(op, a, b, domain=d, **attributes) for op, a, b, d, attributes in nodes],
            "norm",
            [*values[:2], weight],
            values[2:],
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 23), helper.make_opsetid(microsoft, 1)], ir_version=10
        )
        for strict in "01":
            with stage.attempt(f"{name} of {width}, strict {strict}"):
                options = [{"enable_skip_layer_norm_strict_mode": strict} if "CUDA" in one else {} for one in providers]
                session = ort.InferenceSession(
                    model.SerializeToString(),
                    providers=providers,
                    provider_options=options,
                    disabled_optimizers=["SkipLayerNormFusion"],
                )
                found = {}
                for scale in (0.02, 1.0, 300.0):
                    generator = np.random.default_rng(0)
                    x, skip = (generator.normal(0, scale, (64, 1, width)).astype(np.float16) for _ in range(2))
                    y, total = session.run(["y", "sum"], {"x": x, "skip": skip, "weight": np.ones(width, np.float16)})
                    exact = total.astype(np.float64)
                    exact /= np.sqrt((exact**2).mean(-1, keepdims=True) + 1e-5)
                    found[scale] = float(np.linalg.norm(y - exact) / np.linalg.norm(exact))
                stage[f"{name} of {width}, strict {strict}: relative error by scale"] = found
