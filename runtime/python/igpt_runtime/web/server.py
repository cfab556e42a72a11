"""Serves the page on loopback: one thread for all clients, one answer a connection, and a deadline for everything.

A connection costs a descriptor and no thread, and is closed after its answer, so none waits idly. The queue of those
that were not accepted yet is long enough for a thousand clients at once.
"""

import asyncio
import contextlib
import os
import socket
from email.utils import formatdate
from http import HTTPStatus
from types import TracebackType
from typing import Any, BinaryIO

from igpt_runtime.errors import OptionError
from igpt_runtime.signals import Held, held_signals
from igpt_runtime.web.request import MAX_HEAD, Request, is_complete, parse
from igpt_runtime.web.site import Site

LOOPBACK = "127.0.0.1"
_BACKLOG = 1024  # connections that wait to be accepted
_MOST = 1000  # connections that are answered at once
_OTHERS = 24  # descriptors that a process has besides
_DESCRIPTORS = 2 * _MOST + _OTHERS  # a connection has a socket and a file
# Seconds.
REQUEST_WITHIN = 10.0
PART_WITHIN = 30.0  # a part of a file, or what came before it
GOODBYE_WITHIN = 2.0
_RETRY_AFTER = 0.1
_PART = 1 << 18  # bytes
_GOODBYE = 1 << 20  # bytes of a request that are heard after its answer
# Isolation gives the page shared memory, without which WebAssembly has no threads.
_FIELDS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; "
        "img-src 'self' blob: data:; style-src 'self'; "
        "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
    "Connection": "close",
}


class Server:
    """Listens from the beginning, and serves while `run` runs."""

    def __init__(self, site: Site, port: int) -> None:
        """port: 0 for any free one. Raises OptionError if it cannot be had."""
        self._site = site
        try:
            self._socket = _listening(port)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise OptionError(
                f"port {port} cannot be had ({reason}); choose another --port, or 0 for any free one"
            ) from error
        self.port: int = self._socket.getsockname()[1]
        self._answering: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(max(1, min(_MOST, (_allowed_descriptors() - _OTHERS) // 2)))

    def __enter__(self) -> "Server":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def serve(self) -> None:
        """Answer until a signal ends it, as it does elsewhere: Ctrl-C raises KeyboardInterrupt."""
        with held_signals() as held:
            asyncio.run(self._until_signal(held))

    async def _until_signal(self, held: Held) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_tell)
        running = asyncio.create_task(self.run())

        def cancel() -> None:
            loop.call_soon_threadsafe(running.cancel)

        with held.calling(cancel), contextlib.suppress(asyncio.CancelledError):
            await running

    async def run(self) -> None:
        """Answer until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._slots.acquire()  # who comes meanwhile waits in the queue
            try:
                client, _ = await loop.sock_accept(self._socket)
            except OSError:  # no descriptors or memory, or the client has gone
                self._slots.release()
                await asyncio.sleep(_RETRY_AFTER)
                continue
            task = asyncio.create_task(self._serve(client))
            self._answering.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._answering.discard(task)
        self._slots.release()

    async def _serve(self, client: socket.socket) -> None:
        """One request and its answer. A client that goes, stays silent or does not read is left."""
        with client, contextlib.suppress(OSError, TimeoutError):
            client.setblocking(False)
            async with asyncio.timeout(REQUEST_WITHIN):
                head = await _head(client)
            if not head:
                return
            request = parse(head)
            if isinstance(request, Request):
                await self._answer(client, request)
            else:
                await _refuse(client, request, with_body=not head.lstrip(b"\r\n").startswith(b"HEAD "))
            client.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(GOODBYE_WITHIN):
                await _hear_out(client)

    async def _answer(self, client: socket.socket, request: Request) -> None:
        if request.address == "/bundles.json":
            await _send_bytes(client, HTTPStatus.OK, "application/json", self._site.listing, request.with_body)
            return
        try:
            found = self._site.open(request.address)
        except OSError:
            await _refuse(client, HTTPStatus.SERVICE_UNAVAILABLE, with_body=request.with_body)
            return
        if found is None:
            await _refuse(client, HTTPStatus.NOT_FOUND, with_body=request.with_body)
            return
        file, kind = found
        with file:
            size = os.fstat(file.fileno()).st_size
            await _send(client, _fields(HTTPStatus.OK, kind, size))
            if request.with_body:
                await _send_file(client, file, size)


def _tell(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Tell of a fault in the loop, but not of a client that came in the moment in which the server was ended.

    Until Python 3.12, the loop then sets the result of an accept that was cancelled.
    """
    if not isinstance(context.get("exception"), asyncio.InvalidStateError):
        loop.default_exception_handler(context)


def _listening(port: int) -> socket.socket:
    listening = socket.socket()
    try:
        if os.name == "posix":  # elsewhere it would let two programs have one port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((LOOPBACK, port))
        listening.listen(_BACKLOG)
        listening.setblocking(False)
    except BaseException:
        listening.close()
        raise
    return listening


async def _head(client: socket.socket) -> bytes:
    """The first line and the fields of a request, and what came with them; empty if the client has gone."""
    loop = asyncio.get_running_loop()
    head = b""
    while len(head) <= MAX_HEAD:
        part = await loop.sock_recv(client, MAX_HEAD)
        if not part:
            return b""
        head += part
        if is_complete(head, len(head) - len(part)):
            break
    return head


async def _refuse(client: socket.socket, status: HTTPStatus, *, with_body: bool) -> None:
    await _send_bytes(client, status, "text/plain", f"{status.value} {status.phrase}\n".encode(), with_body)


async def _send_bytes(client: socket.socket, status: HTTPStatus, kind: str, body: bytes, with_body: bool) -> None:
    await _send(client, _fields(status, kind, len(body)) + (body if with_body else b""))


def _fields(status: HTTPStatus, kind: str, size: int) -> bytes:
    """An answer up to its body."""
    fields = {"Date": formatdate(usegmt=True), "Content-Type": kind, "Content-Length": size, **_FIELDS}
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{name}: {value}" for name, value in fields.items())]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


async def _send(client: socket.socket, content: bytes) -> None:
    async with asyncio.timeout(PART_WITHIN):
        await asyncio.get_running_loop().sock_sendall(client, content)


async def _send_file(client: socket.socket, file: BinaryIO, size: int) -> None:
    """What is there of `size` bytes: if a file was cut short meanwhile, the end of the connection says so."""
    loop = asyncio.get_running_loop()
    place = 0
    while place < size:
        async with asyncio.timeout(PART_WITHIN):
            sent = await loop.sock_sendfile(client, file, place, min(_PART, size - place))
        if sent == 0:
            return
        place += sent


async def _hear_out(client: socket.socket) -> None:
    """Wait until the client goes: if it still sends, closing would take from it what it has not read yet."""
    loop, heard = asyncio.get_running_loop(), 0
    while heard < _GOODBYE and (part := await loop.sock_recv(client, _PART)):
        heard += len(part)


def _allowed_descriptors() -> int:
    """How many this process may have, after asking for enough."""
    try:
        import resource
    except ImportError:  # Windows, which counts no sockets
        return _DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= _DESCRIPTORS:
        return _DESCRIPTORS
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
