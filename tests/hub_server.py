"""The part of the Hugging Face Hub's HTTP interface that downloads need, served from directories on loopback."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_read"  # opens the private repository and the gated one
_FILE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
_API = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/(?P<what>revision|tree)/(?P<revision>[^/?]+)")


class Hub:
    """What there is, and what was asked for."""

    def __init__(self, repositories: Mapping[str, Path], cut_short: str | None) -> None:
        self.repositories, self.cut_short = repositories, cut_short
        self.asked: list[str] = []  # "METHOD /path"
        self.address = ""

    def taken(self) -> list[str]:
        """Names of the files that were downloaded, in order."""
        return [line.rsplit("/", 1)[1] for line in self.asked if line.startswith("GET ") and "/resolve/" in line]


@contextmanager
def hub_server(repositories: Mapping[str, Path], *, cut_short: str | None = None) -> Iterator[Hub]:
    """A Hub of repositories by their names. Of `acme/gated` and `acme/private` it wants the token.

    cut_short: name of a file whose download breaks off in the middle.
    """
    hub = Hub(repositories, cut_short)

    class Handler(_Handler):
        served = hub

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        hub.address = f"http://127.0.0.1:{server.server_port}"
        try:
            yield hub
        finally:
            server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    served: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.served.asked.append(f"{self.command} {path}")
        if match := _FILE.fullmatch(path):
            directory = self._repository(match["repo"], match["revision"])
            if directory is not None:
                self._file(directory, match["file"])
        elif match := _API.match(path):
            directory = self._repository(match["repo"], match["revision"])
            if directory is not None:
                self._listing(match["repo"], directory, match["what"])
        else:
            self._refuse(404, "EntryNotFound")

    def _repository(self, name: str, revision: str) -> Path | None:
        allowed = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if name == "acme/gated" and not allowed:
            return self._refuse(403, "GatedRepo")
        if name not in self.served.repositories or (name == "acme/private" and not allowed):
            return self._refuse(404, "RepoNotFound")
        if revision not in ("main", "v1", COMMIT):
            return self._refuse(404, "RevisionNotFound")
        return self.served.repositories[name]

    def _file(self, directory: Path, name: str) -> None:
        if not (directory / name).is_file():
            self._refuse(404, "EntryNotFound")
            return
        data = (directory / name).read_bytes()
        first = int(re.sub(r"\D", "", self.headers.get("Range", "").split("-")[0]) or 0)
        self.send_response(206 if first else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("Content-Length", str(len(data) - first))
        self.end_headers()
        if self.command == "GET" and name == self.served.cut_short:
            self.wfile.write(data[first : first + len(data) // 2])
            self.wfile.flush()
            self.close_connection = True
        elif self.command == "GET":
            self.wfile.write(data[first:])

    def _listing(self, name: str, directory: Path, what: str) -> None:
        files = sorted(path for path in directory.iterdir() if path.is_file())
        tree = [{"type": "file", "oid": "0" * 40, "size": f.stat().st_size, "path": f.name} for f in files]
        siblings = [{"rfilename": file.name} for file in files]
        info = {"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}
        body = json.dumps(tree if what == "tree" else info).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass
