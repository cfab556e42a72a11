"""The server of the page: many clients, slow ones, odd requests, and files that change."""

import asyncio
import contextlib
import errno
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from web_client import Client

from igpt_runtime.web import server
from igpt_runtime.web.server import LOOPBACK

GOOD = b"GET /bundles.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
PROTECTION = {
    b"Cross-Origin-Opener-Policy": b"same-origin",
    b"Cross-Origin-Embedder-Policy": b"require-corp",
    b"Cross-Origin-Resource-Policy": b"same-origin",
    b"X-Content-Type-Options": b"nosniff",
    b"Cache-Control": b"no-cache",
}
DIRECTIVES = (
    b"default-src 'self'",
    b"frame-ancestors 'none'",
    b"base-uri 'none'",
    b"form-action 'none'",
    b"object-src 'none'",
)


def status_of(answer: bytes, *, with_body: bool = True) -> int:
    """Of an answer that is whole, and protected as all are."""
    head, _, body = answer.partition(b"\r\n\r\n")
    line, *fields = head.split(b"\r\n")
    found = dict(field.split(b": ", 1) for field in fields)
    assert found.items() >= PROTECTION.items() and found[b"Connection"] == b"close"
    assert all(directive in found[b"Content-Security-Policy"].split(b"; ") for directive in DIRECTIVES)
    assert not with_body or len(body) == int(found[b"Content-Length"])
    match = re.fullmatch(rb"HTTP/1\.1 (\d{3}) [A-Z].*", line)
    assert match is not None
    return int(match[1])


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET / HTTP/1.1", 200), (b"GET /bundles.json HTTP/1.0", 200), (b"GET /nothing HTTP/1.1", 404),
        (b"GET //[ HTTP/1.1", 404), (b"GET http://[ HTTP/1.1", 400), (b"GET http://[x]/ HTTP/1.1", 400),
        (b"GET http://localhost/ HTTP/1.1", 400), (b"GET * HTTP/1.1", 400), (b"GET page HTTP/1.1", 400),
        (b"GET /page/%ff%fe HTTP/1.1", 404), (b"GET /%00 HTTP/1.1", 404), (b"GET /% HTTP/1.1", 404),
        (b"GET /%ed%a0%80 HTTP/1.1", 404), (b"GET /\xed\xa0\x80 HTTP/1.1", 404), (b"GET /\xff HTTP/1.1", 404),
        (b"GET /" + 300 * b"a" + b" HTTP/1.1", 404), (b"GET /" + 70_000 * b"a" + b" HTTP/1.1", 414),
        (b"GET /bundles/\xc2\xb2/manifest.json HTTP/1.1", 404), (b"GET /bundles/" + 5000 * b"9" + b"/x HTTP/1.1", 404),
        (b"POST / HTTP/1.1", 501), (b"DELETE / HTTP/1.1", 501), (b"get / HTTP/1.1", 501), (b"TRACE / HTTP/1.1", 501),
        (b"OPTIONS * HTTP/1.1", 501), (b"CONNECT localhost:80 HTTP/1.1", 501), (b"PRI * HTTP/2.0", 505),
        (b"GET / HTTP/2.0", 505), (b"GET / HTTP/0.9", 505), (b"GET / HTTP/1.1.1", 400), (b"GET / HTTP/11", 400),
        (b"GET / http/1.1", 400), (b"GET /", 400), (b"GET", 400), (b"GET  / HTTP/1.1", 400), (b"GET / / HTTP/1.1", 400),
        (b"G\x00T / HTTP/1.1", 400), (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET /\x00 HTTP/1.1", 400), (b"GET / HTTP/1.\xb2", 400), (b"(GET) / HTTP/1.1", 400),
    ],
)  # fmt: skip
def test_request_lines(get: Client, request_line: bytes, status: int) -> None:
    assert status_of(get.raw(request_line + b"\r\nHost: 127.0.0.1\r\n\r\n")) == status


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([b"Host: localhost"], 200), ([b"HOST:\t127.0.0.1:8000 "], 200), ([b"host: LocalHost:1"], 200),
        ([], 400), ([b"Host:"], 403), ([b"Host: localhost", b"Host: localhost"], 400),
        ([b"Host: evil.example"], 403), ([b"Host: evil.example:8000"], 403), ([b"Host: localhost.evil.example"], 403),
        ([b"Host: [::1]:80"], 403), ([b"Host: ["], 403), ([b"Host: localhost:x"], 403), ([b"Host: localhost:1:1"], 403),
        ([b"Host: evil.example@localhost"], 403), ([b"Host: \xb9\xb2\xb7.0.0.1"], 403), ([b"Host: 127.1"], 403),
        ([b"Host: localhost", b"Expect: 100-continue"], 200), ([b"Host: localhost", b"Connection: keep-alive"], 200),
        ([b"Host: localhost", b"Range: bytes=1-2"], 200), ([b"Host: localhost", b"X: " + 60_000 * b"a"], 200),
        ([b"Host: localhost", b"X: " + 70_000 * b"a"], 431), ([b"Host: localhost", *20_000 * [b"a: b"]], 431),
        ([b"Host: localhost", b"no colon"], 400), ([b"Host: localhost", b"space : x"], 400),
        ([b"Host: localhost", b": x"], 400),
        ([b" Host: localhost"], 400), ([b"Host: localhost", b" folded"], 400), ([b"Host: localhost", b"X: \0"], 400),
        ([b"Host: localhost", b"X: a\rb"], 400),
    ],
)  # fmt: skip
def test_fields(get: Client, fields: list[bytes], status: int) -> None:
    request = b"".join(line + b"\r\n" for line in (b"GET /bundles.json HTTP/1.1", *fields, b""))
    assert status_of(get.raw(request)) == status


@pytest.mark.parametrize(
    "after",
    [
        b"a body that nobody announced", GOOD + GOOD, 3_000_000 * b"x",
    ],
)  # fmt: skip
def test_what_follows_a_request(get: Client, after: bytes) -> None:
    """One request is answered, wholly, whatever is sent behind it."""
    assert status_of(get.raw(GOOD + after)) == 200
    with_length = GOOD.replace(b"\r\n\r\n", b"\r\nContent-Length: 9999999\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert status_of(get.raw(with_length + after)) == 200


def test_lines_that_end_without_a_carriage_return(get: Client) -> None:
    assert status_of(get.raw(GOOD.replace(b"\r", b""))) == 200
    assert status_of(get.raw(b"\r\n" + GOOD)) == 200


def test_head(get: Client) -> None:
    for address, status in (("/", 200), ("/bundles.json", 200), ("/nothing", 404)):
        answer = get.raw(f"HEAD {address} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert answer.endswith(b"\r\n\r\n") and status_of(answer, with_body=False) == status


def test_refused_in_one_piece_before_it_is_sent_to_the_end(get: Client) -> None:
    """A line that is no request is answered at once: HTTP/0.9 sends nothing more."""
    with get.connect() as connection:
        connection.sendall(b"GET /\r\n")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 400 Bad Request\r\n")


def raise_limit() -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < 5000:
        if hard != resource.RLIM_INFINITY and hard < 5000:
            pytest.skip("this process may not have enough descriptors")
        resource.setrlimit(resource.RLIMIT_NOFILE, (5000, hard))


def test_a_thousand_clients_at_once(get: Client) -> None:
    """All are connected before the first one asks for anything."""
    raise_limit()
    _, expected = get("/js/core/model.mjs")
    request = b"GET /js/core/model.mjs HTTP/1.1\r\nHost: localhost\r\n\r\n"

    async def ask_all() -> list[bytes]:
        connected = await asyncio.gather(*(asyncio.open_connection(LOOPBACK, get.port) for _ in range(1000)))
        for _, writer in connected:
            writer.write(request)
        answers = await asyncio.gather(*(reader.read() for reader, _ in connected))
        for _, writer in connected:
            writer.close()
        return answers

    answers = asyncio.run(ask_all())
    assert len(answers) == 1000 and all(status_of(answer) == 200 for answer in answers)
    assert {answer.partition(b"\r\n\r\n")[2] for answer in answers} == {expected}


def test_the_queue_is_long(serve: Callable[..., Client], tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand are connected before one is accepted, where the system allows it."""
    raise_limit()
    somaxconn = Path("/proc/sys/net/core/somaxconn")
    if not somaxconn.exists() or int(somaxconn.read_text()) < 1024:
        pytest.skip("the system allows no such queue")
    monkeypatch.setattr(server, "_MOST", 1)
    monkeypatch.setattr(server, "REQUEST_WITHIN", 60.0)
    client = serve(tiny_bundle)
    with contextlib.ExitStack() as stack:
        held = stack.enter_context(client.connect())  # the only one that is answered at once
        clients = [stack.enter_context(client.connect()) for _ in range(1000)]
        for connection in clients:
            connection.sendall(GOOD)
        held.close()
        for connection in clients:
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 OK\r\n")
            connection.close()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not wait long."""
    for name in ("REQUEST_WITHIN", "PART_WITHIN", "GOODBYE_WITHIN"):
        monkeypatch.setattr(server, name, 0.5)


def is_dropped(connection: socket.socket) -> bool:
    with contextlib.suppress(ConnectionError):
        return connection.recv(1) == b""
    return True


@pytest.mark.usefixtures("hasty")
def test_clients_that_stay_silent(serve: Callable[..., Client], tiny_bundle: Path) -> None:
    client = serve(tiny_bundle)
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(client.connect()) for _ in range(50)]
        silent[0].sendall(b"GET / HTTP/1.1\r\n")
        assert client("/bundles.json")[0].status == 200  # meanwhile
        assert all(is_dropped(connection) for connection in silent)


@pytest.mark.usefixtures("hasty")
def test_a_request_that_never_ends(serve: Callable[..., Client], tiny_bundle: Path) -> None:
    """One byte after the other keeps nobody waiting: there is one deadline for all of it."""
    client = serve(tiny_bundle)
    with client.connect() as connection, pytest.raises(ConnectionError):
        connection.sendall(b"GET / HTTP/1.1\r\n")
        while True:
            connection.sendall(b"x")
            time.sleep(0.02)


@pytest.mark.usefixtures("hasty")
def test_a_client_that_does_not_read(serve: Callable[..., Client], bundle_copy: Path, replace_file: Any) -> None:
    replace_file(bundle_copy, "weights.safetensors", bytes(50_000_000))  # more than sockets hold
    client = serve(bundle_copy)
    with client.connect() as connection:
        connection.sendall(b"GET /bundles/0/weights.safetensors HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client("/bundles.json")[0].status == 200
        time.sleep(1.5)
        received = 0
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(1 << 20):
                received += len(part)
        assert received < 50_000_000


@pytest.mark.usefixtures("hasty")
def test_a_client_that_stays_after_its_answer(get: Client) -> None:
    with get.connect() as connection:
        connection.sendall(GOOD)
        while connection.recv(1 << 16):
            pass
        time.sleep(1)
        with pytest.raises(ConnectionError):
            for _ in range(5):
                connection.sendall(b"still here")
                time.sleep(0.05)


def test_clients_that_break_off(get: Client) -> None:
    for sent in (b"", b"GET", GOOD, b"GET /bundles/1/weights.safetensors HTTP/1.1\r\nHost: localhost\r\n\r\n"):
        with get.connect() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
            connection.sendall(sent)
    assert get("/bundles.json")[0].status == 200


def test_a_file_that_is_cut_short_while_it_is_sent(
    serve: Callable[..., Client], bundle_copy: Path, replace_file: Any
) -> None:
    """The answer said how long it is: that the connection ends before tells the client."""
    replace_file(bundle_copy, "weights.safetensors", bytes(50_000_000))
    client = serve(bundle_copy)
    with client.connect() as connection:
        connection.sendall(b"GET /bundles/0/weights.safetensors HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = connection.recv(1000)
        os.truncate(bundle_copy / "weights.safetensors", 10)
        assert b"Content-Length: 50000000\r\n" in answer
        received = len(answer)
        while part := connection.recv(1 << 20):
            received += len(part)
        assert received < 50_000_000
    assert client("/bundles/0/weights.safetensors")[0].status == 404


COMMAND = """
import sys
from igpt_runtime import cli
from igpt_runtime.web import server
exec(sys.argv.pop(1))
sys.argv = ["igpt-run", "web", "--no-open", "--port", "0", "--onnxruntime-web", *sys.argv[1:]]
cli.main()
"""


@contextlib.contextmanager
def process(onnxruntime_web: Path, setting: str = "", **options: Any) -> Iterator[tuple[subprocess.Popen[str], Client]]:
    """`igpt-run web`, which must say nothing on standard error, and a client of it."""
    command = [sys.executable, "-c", COMMAND, setting, str(onnxruntime_web)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options) as running:
        assert running.stdout is not None and running.stderr is not None
        try:
            yield running, Client(int(running.stdout.readline().rstrip("/\n").rsplit(":", 1)[1]))
        finally:
            running.terminate()
            said = running.stderr.read()
        assert said == ""


METHODS = [b"HEAD", b"POST", b"get", b"\xffGET", b"", b"G E T", b"OPTIONS", b"*", b"GET\t"]
PLACES = [
    b"//[", b"http://[", b"http://[::1", b"/%00", b"/%ff", b"/%", b"/%ed%a0%80", b"/bundles/\xb2/", b"*", b"",
    b"/ort/..;/x", b"/bundles/0/weights.safetensors", b"/bundles/0/%2e%2e/x", b"/page/" + 300 * b"a", b"/\xed\xb3\xbf",
    b"/?/#/page", b"/bundles/" + 5000 * b"1" + b"/manifest.json", b"/js/core/model.mjs#x?y", b"/page/" + 70_000 * b"a",
]  # fmt: skip
VERSIONS = [b"HTTP/1.0", b"HTTP/0.9", b"HTTP/9.9", b"HTTP/1", b"HTTP/-1.1", b"HTTP/", b"", b"HTTP/1.\xb2"]
FIELDS = [
    b"Host: [", b"Host: localhost", b"Host: \xff", b"Host", b": ", b"Expect: 100-continue", b"Content-Length: 5",
    b"Content-Length: -1", b"Content-Length: \xb2", b"Transfer-Encoding: chunked", b"Connection: keep-alive",
    b"Connection: upgrade", b"Range: bytes=9-", b" folded", b"X: \xff\x7f\x01", b"Cookie: " + 70_000 * b"a",
]  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signals_while_clients_are_answered(onnxruntime_web: Path, number: int) -> None:
    """They end the command quietly, whatever it is doing."""
    with process(onnxruntime_web) as (running, client), contextlib.ExitStack() as stack:
        for request in (b"", b"GET", GOOD, GOOD.replace(b"/bundles.json", b"/bundles/0/weights.safetensors")):
            for _ in range(20):
                stack.enter_context(client.connect()).sendall(request)
        running.send_signal(number)
        assert running.wait(10) == (0 if number == signal.SIGINT else 128 + number)


SIGNAL_ITSELF = """
import asyncio, os
def {method}(loop, *arguments, former=asyncio.BaseEventLoop.{method}):
    os.kill(os.getpid(), {number:d})
    former(loop, *arguments)
asyncio.BaseEventLoop.{method} = {method}
"""


@pytest.mark.parametrize("method", ["__init__", "close"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signals_while_it_begins_or_ends(onnxruntime_web: Path, number: int, method: str) -> None:
    """An event loop is half made, or half closed, then."""
    with process(onnxruntime_web, SIGNAL_ITSELF.format(method=method, number=number)) as (running, _):
        if method == "close":
            running.send_signal(number)
        assert running.wait(10) == (0 if number == signal.SIGINT else 128 + number)


def odd_request(chance: random.Random) -> bytes:
    """A good request with odd parts, of which some bytes are lost, others put in; or no request at all."""
    if chance.random() < 0.1:
        return chance.randbytes(chance.randrange(1, 300)) + chance.choice([b"", b"\r\n\r\n"])

    def part(good: bytes, odd: list[bytes]) -> bytes:
        return chance.choice(odd) if chance.random() < 0.3 else good

    line = b" ".join([part(b"GET", METHODS), part(b"/", PLACES), part(b"HTTP/1.1", VERSIONS)])
    fields = [part(b"Host: 127.0.0.1:1", FIELDS), *chance.choices(FIELDS, k=chance.choice([0, 0, 1, 4]))]
    end = part(b"\r\n", [b"\n", b"\r", b"\n\r", b"\0"])
    request = bytearray(end.join([line, *fields, b"", part(b"", [b"body", GOOD])]))
    for _ in range(chance.choice([0, 0, 1, 3])):
        where = chance.randrange(len(request))
        request[where : where + chance.randrange(3)] = chance.randbytes(chance.randrange(3))
    return bytes(request)


def test_a_thousand_odd_requests(onnxruntime_web: Path) -> None:
    """Each is answered with a whole answer or with none, nothing is printed, and the server goes on."""
    chance = random.Random(20)
    statuses = []
    with process(onnxruntime_web) as (_, client):
        for _ in range(1000):
            request = odd_request(chance)
            answer = client.raw(request)
            if answer:
                is_head = request.lstrip(b"\r\n").startswith(b"HEAD ")
                statuses.append(status_of(answer, with_body=not is_head))
        assert status_of(client.raw(GOOD)) == 200
    assert {200, 400, 403, 404, 414, 431, 501, 505} <= set(statuses)


@pytest.mark.parametrize("setting", ["", "server._allowed_descriptors = lambda: 5000"], ids=["known", "unforeseen"])
def test_few_descriptors(onnxruntime_web: Path, setting: str) -> None:
    """Silent clients, more than there are descriptors: the others wait for the deadline of these, and no longer."""
    resource = pytest.importorskip("resource")
    limit = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))  # noqa: E731
    setting += "\nserver.REQUEST_WITHIN = 0.2"
    request = GOOD.replace(b"/bundles.json", b"/js/web.mjs")
    with process(onnxruntime_web, setting, preexec_fn=limit) as (_, client), contextlib.ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(client.connect())
        while (status := status_of(client.raw(request))) == 503:  # there was one for the socket and none for the file
            pass
        assert status == 200


def test_no_descriptors_at_all(get: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot be opened for that is not said to be missing."""

    def fail(site: object, address: str) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(server.Site, "open", fail)
    assert status_of(get.raw(GOOD.replace(b"/bundles.json", b"/"))) == 503
