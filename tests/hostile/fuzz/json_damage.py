"""Damage to JSON: its values, its structure and its text."""

import copy
import json
import random
from collections.abc import Callable
from typing import Any

_TEXTS = (
    "", "x", "\x00", "\x1b]0;owned\x07\x1b[2J", "\u009b31m", "\ud800", "a\nb\r\nError: c", "\u202egnp.exe", "é" * 300,
    "x" * 100_000, "../../canary", "..", ".", "/etc/passwd", "a/b", "a\\b", "C:\\a", "weights.safetensors",
    "manifest.json", "fp16", "int8", "NaN", "1e999", "1", "true", "float32", "int64", "float16", "string", "%s%n{}",
    "{0.__class__}", "CON", "\u2028", "\ufeff",
)  # fmt: skip
_NUMBERS = (
    0, 1, -1, 2, 3, 7, 8, 255, 256, 2**31 - 1, 2**31, -(2**31), 2**32, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63),
    10**30, 10**400, 0.0, -0.0, 0.5, 1.5, 1e-45, 1e-308, 1e38, 1e39, 1e308, -1e308, float("nan"), float("inf"),
    float("-inf"),
)  # fmt: skip
_OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [[]], [None], {"": None}, {"a": {"b": [1]}}, [0] * 5000)
_LARGEST_FLOAT = 10**300
Place = tuple[Any, Any]  # a container, and where in it


def _places(value: Any) -> list[Place]:
    found: list[Place] = []
    pending = [value]
    while pending:
        holder = pending.pop()
        if isinstance(holder, (dict, list)):
            keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            found += [(holder, key) for key in keys]
            pending += [holder[key] for key in keys]
    return found


def _pick(record: Any, rng: random.Random) -> Place:
    """A place, each level of nesting as likely as the others: colours are many and alike."""
    holder = record
    while True:
        key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        inner = holder[key]
        if not isinstance(inner, (dict, list)) or not inner or rng.random() < 0.25:
            return holder, key
        holder = inner


def _strange(rng: random.Random) -> Any:
    kind = rng.randrange(20)
    if kind == 0:
        return _deep()
    return rng.choice(_TEXTS) if kind < 7 else rng.choice(_NUMBERS) if kind < 15 else copy.deepcopy(rng.choice(_OTHERS))


def _deep() -> Any:
    value: Any = "x"
    for _ in range(900):
        value = [value]
    return value


def replace_value(record: Any, rng: random.Random) -> None:
    holder, key = _pick(record, rng)
    holder[key] = _strange(rng)


def change_number(record: Any, rng: random.Random) -> None:
    for _ in range(50):
        holder, key = _pick(record, rng)
        value = holder[key]
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            half = value / 2 if abs(value) < _LARGEST_FLOAT else 0.5
            holder[key] = rng.choice((value + 1, value - 1, -value, value * 2, value * 1000, half, str(value)))
            return


def remove_value(record: Any, rng: random.Random) -> None:
    holder, key = _pick(record, rng)
    del holder[key]


def add_key(record: Any, rng: random.Random) -> None:
    dictionaries = [record, *(holder[key] for holder, key in _places(record) if isinstance(holder[key], dict))]
    rng.choice(dictionaries)[rng.choice(_TEXTS)] = _strange(rng)


def rename_key(record: Any, rng: random.Random) -> None:
    values = (record, *(holder[key] for holder, key in _places(record)))
    dictionaries = [value for value in values if isinstance(value, dict) and value]
    chosen = rng.choice(dictionaries)
    key = rng.choice(list(chosen))
    chosen[rng.choice((rng.choice(_TEXTS), key.upper(), key + " ", key[:-1]))] = chosen.pop(key)


def swap_values(record: Any, rng: random.Random) -> None:
    (one, first), (other, second) = _pick(record, rng), _pick(record, rng)
    one[first], other[second] = json.loads(json.dumps(other[second])), json.loads(json.dumps(one[first]))


def grow_list(record: Any, rng: random.Random) -> None:
    lists = [holder[key] for holder, key in _places(record) if isinstance(holder[key], list) and holder[key]]
    if lists:
        chosen = rng.choice(lists)
        chosen.insert(rng.randrange(len(chosen) + 1), rng.choice((_strange(rng), copy.copy(chosen[0]))))


def wrap(record: Any, rng: random.Random) -> None:
    holder, key = _pick(record, rng)
    value = holder[key]
    holder[key] = rng.choice(([value], {"value": value}, [value, None]))


Change = Callable[[Any, random.Random], None]
CHANGES: tuple[Change, ...] = (
    replace_value, replace_value, replace_value, change_number, change_number, remove_value, add_key, rename_key,
    swap_values, grow_list, wrap,
)  # fmt: skip


def _as_text(record: Any, rng: random.Random) -> tuple[bytes, str]:
    """JSON whose text is not as it should be."""
    text = json.dumps(record)
    kinds = ("duplicated key", "byte order mark", "UTF-16", "raw control", "comment", "trailing", "another type")
    kind = rng.choice(kinds)
    if kind == "duplicated key":
        key = rng.choice(list(record))
        text = f"{{{json.dumps(key)}: {json.dumps(_strange(rng))}, {text[1:]}" if rng.random() < 0.5 else (
            f"{text[:-1]}, {json.dumps(key)}: {json.dumps(_strange(rng))}}}"
        )  # fmt: skip
    elif kind == "byte order mark":
        text = "\ufeff" + text
    elif kind == "UTF-16":
        return text.encode("utf-16"), kind
    elif kind == "raw control":
        text = text.replace('": "', '": "\x1b[2J\x00', rng.randrange(1, 4))
    elif kind == "comment":
        text = f"/* {text} */ {text}"
    elif kind == "trailing":
        text += rng.choice((text, ",", "\x00", "}" * 10))
    else:
        deep = ("[" * 100_000, '{"a":' * 100_000, "1" * 100_000)
        text = rng.choice(("null", "[]", "3", '"x"', *deep, "NaN", " " * 1000))
    return text.encode("utf-8", "surrogatepass"), kind


def damage_json(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """A damaged JSON object, and the name of what was done to it."""
    record = json.loads(content)
    if rng.random() < 0.15:
        return _as_text(record, rng)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        change = rng.choice(CHANGES)
        if record:
            change(record, rng)
    name = change.__name__.replace("_", " ")
    try:
        return json.dumps(record).encode(), name
    except RecursionError:  # what is nested deeply was nested again
        return b"[" * 100_000, name
