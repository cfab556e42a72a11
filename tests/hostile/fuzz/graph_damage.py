"""Damage to ONNX graphs that leaves a file that can be parsed: what a stranger could write on purpose."""

import random
from collections.abc import Callable
from typing import Any

import onnx
from onnx import AttributeProto, TensorProto, helper

_SIZES = (0, 1, -1, 2, 3, 7, 63, 64, 65, 1000, 2**20, 2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1, -(2**63))
_FLOATS = (0.0, -1.0, 1e-45, 1e38, float("nan"), float("inf"), float("-inf"))
_LOCATIONS = (
    "../canary.bin", "/etc/passwd", "/dev/zero", "/proc/self/mem", "/proc/self/environ", "manifest.json",
    "prefill.onnx", "nothing", "", ".", "..", "./weights.safetensors", "weights.safetensors/",
    "sub/../weights.safetensors", "sub/../../canary.bin", "\x1b[2J", "weights.safetensors\x00", "a\nb",
    "/proc/self/cwd/../canary.bin", "*/_ORT_MEM_ADDR_/*",
)  # fmt: skip
_OPERATORS = (
    "Identity", "Add", "MatMul", "Gather", "Reshape", "Expand", "Tile", "Loop", "If", "Scan", "NonZero", "Range",
    "ConstantOfShape", "GatherND", "ScatterND", "Conv", "TopK", "Resize", "Einsum", "SequenceAt", "StringConcat",
    "Nothing", "PyOp", "",
)  # fmt: skip
_DOMAINS = ("", "ai.onnx", "com.microsoft", "com.microsoft.nchwc", "ai.onnx.ml", "x", "\x1b[2J")


def _external(model: onnx.ModelProto) -> list[TensorProto]:
    return [tensor for tensor in model.graph.initializer if tensor.external_data]


def _entry(tensor: TensorProto, key: str, value: str) -> None:
    for entry in tensor.external_data:
        if entry.key == key:
            entry.value = value
            return
    tensor.external_data.add(key=key, value=value)


def external_location(model: onnx.ModelProto, rng: random.Random) -> None:
    if tensors := _external(model):
        location = rng.choice(_LOCATIONS)
        for tensor in tensors if rng.random() < 0.5 else [rng.choice(tensors)]:
            _entry(tensor, "location", location)
            if location != "weights.safetensors" and rng.random() < 0.7:
                _entry(tensor, "offset", "0")


def external_place(model: onnx.ModelProto, rng: random.Random) -> None:
    if tensors := _external(model):
        value = str(rng.choice((*_SIZES, *_SIZES, "x", "", "1.5", "0x10", "9" * 50, "-0")))
        _entry(rng.choice(tensors), rng.choice(("offset", "length", "checksum", "new")), value)


def tensor_dims(model: onnx.ModelProto, rng: random.Random) -> None:
    if model.graph.initializer:
        tensor = rng.choice(model.graph.initializer)
        if tensor.dims and rng.random() < 0.7:
            tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(_SIZES)
        elif rng.random() < 0.5:
            tensor.dims.append(rng.choice(_SIZES))
        else:
            del tensor.dims[:]


def tensor_type(model: onnx.ModelProto, rng: random.Random) -> None:
    if model.graph.initializer:
        rng.choice(model.graph.initializer).data_type = rng.choice((*range(24), 99, 2**31 - 1))


def tensor_content(model: onnx.ModelProto, rng: random.Random) -> None:
    tensors = [tensor for tensor in model.graph.initializer if tensor.raw_data]
    if tensors:
        tensor = rng.choice(tensors)
        value = rng.choice(_SIZES)
        width = max(1, min(8, len(tensor.raw_data)))
        number = (value % (1 << 8 * width)).to_bytes(width, "little")
        tensor.raw_data = rng.choice((b"", tensor.raw_data[:-1], number, rng.randbytes(len(tensor.raw_data))))


def _attributes(model: onnx.ModelProto) -> list[AttributeProto]:
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    return [attribute for node in nodes for attribute in node.attribute]


def attribute(model: onnx.ModelProto, rng: random.Random) -> None:
    if not (found := _attributes(model)):
        return
    chosen = rng.choice(found)
    if chosen.type == AttributeProto.INT:
        chosen.i = rng.choice(_SIZES)
    elif chosen.type == AttributeProto.FLOAT:
        chosen.f = rng.choice(_FLOATS)
    elif chosen.type == AttributeProto.INTS and chosen.ints:
        chosen.ints[rng.randrange(len(chosen.ints))] = rng.choice(_SIZES)
    elif chosen.type == AttributeProto.STRING:
        chosen.s = rng.choice((b"", b"x" * 1000, b"\xff\xfe", b"\x1b[2J"))
    else:
        chosen.type = rng.randrange(15)


def attribute_name(model: onnx.ModelProto, rng: random.Random) -> None:
    if found := _attributes(model):
        rng.choice(found).name = rng.choice(("axis", "num_heads", "to", "", "x"))


def remove_node(model: onnx.ModelProto, rng: random.Random) -> None:
    if model.graph.node:
        del model.graph.node[rng.randrange(len(model.graph.node))]


def swap_nodes(model: onnx.ModelProto, rng: random.Random) -> None:
    if len(model.graph.node) > 1:
        one, other = rng.sample(range(len(model.graph.node)), 2)
        kept = onnx.NodeProto()
        kept.CopyFrom(model.graph.node[one])
        model.graph.node[one].CopyFrom(model.graph.node[other])
        model.graph.node[other].CopyFrom(kept)


def node_input(model: onnx.ModelProto, rng: random.Random) -> None:
    nodes = [node for node in model.graph.node if node.input]
    names = [name for node in model.graph.node for name in (*node.input, *node.output)] + ["", "nothing"]
    if nodes:
        node = rng.choice(nodes)
        node.input[rng.randrange(len(node.input))] = rng.choice(names)


def node_output(model: onnx.ModelProto, rng: random.Random) -> None:
    nodes = [node for node in model.graph.node if node.output]
    if nodes:
        node = rng.choice(nodes)
        node.output[rng.randrange(len(node.output))] = rng.choice(("", "x", nodes[0].output[0], "a\x1b[2Jb\nc"))


def node_operator(model: onnx.ModelProto, rng: random.Random) -> None:
    if model.graph.node:
        node = rng.choice(model.graph.node)
        if rng.random() < 0.7:
            node.op_type = rng.choice(_OPERATORS)
        else:
            node.domain = rng.choice(_DOMAINS)


def inputs_and_outputs(model: onnx.ModelProto, rng: random.Random) -> None:
    values = rng.choice((model.graph.input, model.graph.output))
    if not values:
        return
    value = rng.choice(values)
    kind = rng.choice(("type", "dims", "name", "remove", "add", "rank"))
    shape = value.type.tensor_type.shape
    if kind == "type":
        value.type.tensor_type.elem_type = rng.randrange(24)
    elif kind == "dims" and shape.dim:
        shape.dim[rng.randrange(len(shape.dim))].dim_value = rng.choice(_SIZES)
    elif kind == "name":
        value.name = rng.choice(("x", "", "logits", "input_ids"))
    elif kind == "remove":
        values.remove(value)
    elif kind == "add":
        values.append(helper.make_tensor_value_info("added", TensorProto.FLOAT, [1]))
    elif kind == "rank":
        shape.dim.add().dim_value = 1


def versions(model: onnx.ModelProto, rng: random.Random) -> None:
    if rng.random() < 0.5:
        model.ir_version = rng.choice((0, 1, 3, 7, 99, 2**40))
    elif model.opset_import:
        chosen = rng.choice(model.opset_import)
        chosen.version = rng.choice((0, 1, 7, 99, 2**40))
        if rng.random() < 0.3:
            chosen.domain = rng.choice(_DOMAINS)


def huge_output(model: onnx.ModelProto, rng: random.Random) -> None:
    """A node that asks for more memory than there is, before anything else."""
    shape = helper.make_tensor("huge", TensorProto.INT64, [1], [rng.choice((2**30, 2**36, 2**45, 2**62))])
    model.graph.initializer.append(shape)
    model.graph.node.insert(0, helper.make_node("ConstantOfShape", ["huge"], ["huge_made"]))
    if model.graph.output and rng.random() < 0.5:
        wanted = model.graph.output[0].name
        for node in model.graph.node:
            if wanted in node.output:
                model.graph.node.append(helper.make_node("Add", [wanted + "_", "huge_made"], [wanted]))
                node.output[list(node.output).index(wanted)] = wanted + "_"
                return


def idle_loop(model: onnx.ModelProto, rng: random.Random) -> None:
    """A loop that nothing needs."""
    number = helper.make_tensor_value_info("i", TensorProto.INT64, [])
    again, go_on = (helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("again", "go_on"))
    nodes = [helper.make_node("Identity", ["again"], ["go_on"])]
    body = helper.make_graph(nodes, "body", [number, again], [go_on])
    model.graph.initializer.append(helper.make_tensor("rounds", TensorProto.INT64, [], [rng.choice((3, 1000))]))
    model.graph.initializer.append(helper.make_tensor("yes", TensorProto.BOOL, [], [True]))
    model.graph.node.append(helper.make_node("Loop", ["rounds", "yes"], [], body=body))


def functions(model: onnx.ModelProto, rng: random.Random) -> None:
    if not model.functions:
        return
    chosen = rng.choice(model.functions)
    kind = rng.choice(("remove", "recursive", "inputs", "nodes"))
    if kind == "remove":
        model.functions.remove(chosen)
    elif kind == "recursive":
        chosen.node.add(op_type=chosen.name, domain=chosen.domain, input=list(chosen.input), output=["again"])
    elif kind == "inputs" and chosen.input:
        del chosen.input[-1]
    elif chosen.node:
        del chosen.node[rng.randrange(len(chosen.node))]


def metadata(model: onnx.ModelProto, rng: random.Random) -> None:
    text = rng.choice(("x" * 100_000, "\x1b[2J", ""))
    model.producer_name = model.doc_string = text
    model.metadata_props.add(key=text, value=text)


Change = Callable[[Any, random.Random], None]
CHANGES: tuple[Change, ...] = (
    external_location, external_location, external_place, external_place, tensor_dims, tensor_type, tensor_content,
    attribute, attribute, attribute_name, remove_node, swap_nodes, node_input, node_output, node_operator,
    inputs_and_outputs, inputs_and_outputs, versions, huge_output, idle_loop, functions, metadata,
)  # fmt: skip


def damage_graph(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """A changed graph, and the name of what was changed."""
    model = onnx.ModelProto.FromString(content)
    for _ in range(rng.choice((1, 1, 1, 2))):
        change = rng.choice(CHANGES)
        try:
            change(model, rng)
        except (ValueError, TypeError):  # a text or number that protobuf has not
            continue
    return model.SerializeToString(), change.__name__.replace("_", " ")
