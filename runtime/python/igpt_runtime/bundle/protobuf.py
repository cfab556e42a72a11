"""Writes fields of protocol buffers."""

BYTES = 2  # wire type of texts, bytes and records


def encoded(field: int, content: bytes | memoryview) -> bytes:
    """A field that is a text, bytes or a record."""
    return _varint(field << 3 | BYTES) + _varint(len(content)) + bytes(content)


def encoded_number(field: int, value: int) -> bytes:
    """A field that is a number, 0 or more."""
    return _varint(field << 3) + _varint(value)


def _varint(value: int) -> bytes:
    """A number in groups of seven bits, the lowest first."""
    groups = bytearray()
    while value >= 0x80:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)
