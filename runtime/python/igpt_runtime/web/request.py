"""A request of HTTP, read strictly: who wants what, or the status that refuses it."""

import re
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import unquote

MAX_HEAD = 1 << 16  # bytes of a request line and its fields; a browser sends this machine's cookies along
_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~\x80-\xff]+) HTTP/([0-9])\.([0-9])")
_FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\0\r\n]*?)[ \t]*")
# Another site's name may have been made to lead here; a page under it must read nothing.
_HOST = re.compile(r"(127\.0\.0\.1|localhost)(:[0-9]{1,5})?", re.IGNORECASE)
_END = re.compile(rb"\n\r?\n")


class Request(NamedTuple):
    """A request that can be answered."""

    address: str
    with_body: bool  # whether the answer has one: not to HEAD


def is_complete(head: bytes, fresh: int) -> bool:
    """Whether so much of a request is there that it can be answered: all its fields, or a line that is none.

    fresh: where what was not looked at before begins.
    """
    if _END.search(head, max(0, fresh - 2)):
        return True
    if b"\n" not in head[fresh:]:
        return False
    line, _, _ = head.lstrip(b"\r\n").partition(b"\n")
    return bool(line) and not _LINE.fullmatch(line.rstrip(b"\r").decode("latin-1"))


def parse(head: bytes) -> Request | HTTPStatus:
    """What a client asks for, or why it is not done. head: up to the empty line, and what came after it."""
    content = _END.split(head.lstrip(b"\r\n"), maxsplit=1)[0]
    if len(content) > MAX_HEAD:
        is_line = b"\n" not in content[:MAX_HEAD]
        return HTTPStatus.REQUEST_URI_TOO_LONG if is_line else HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    text = content.removesuffix(b"\r").decode("latin-1")
    first, *rest = re.split(r"\r?\n", text)
    line = _LINE.fullmatch(first)
    if line is None:
        return HTTPStatus.BAD_REQUEST
    method, target, major, _ = line.groups()
    if major != "1":
        return HTTPStatus.HTTP_VERSION_NOT_SUPPORTED
    if method not in ("GET", "HEAD"):
        return HTTPStatus.NOT_IMPLEMENTED
    fields = [_FIELD.fullmatch(field) for field in rest]
    hosts = [field[2] for field in fields if field is not None and field[1].lower() == "host"]
    if None in fields or len(hosts) != 1 or not target.startswith("/"):
        return HTTPStatus.BAD_REQUEST
    if not _HOST.fullmatch(hosts[0]):
        return HTTPStatus.FORBIDDEN
    return Request(unquote(re.split("[?#]", target, maxsplit=1)[0]), method == "GET")
