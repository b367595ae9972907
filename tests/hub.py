"""A stand-in for the Hugging Face hub on loopback, with faults that can be switched on.

It answers what `huggingface_hub` and `datasets` ask of the address in ``HF_ENDPOINT``: the commit of a
revision, the listing of a repository, facts about single paths, and files, whole or in ranges, with the
headers of the real hub.
"""

import hashlib
import json
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (
    ".safetensors",
    ".parquet",
)  # kept by Git LFS on the hub: known by SHA-256, other files by git's SHA-1


@dataclass
class Fault:
    """What goes wrong with requests whose path holds `path`; `times` counts down, and None stands for
    always."""

    kind: str
    """cut (half the body, then silence), 503, damage (a changed byte), short (half the size that was
    announced) or missing (404)."""
    path: str
    times: int | None = None

    def strikes(self, method: str, path: str) -> bool:
        of_body = self.kind in ("cut", "damage", "short")
        if (
            self.path not in path
            or self.times == 0
            or (of_body and (method != "GET" or "/resolve/" not in path))
        ):
            return False
        self.times = None if self.times is None else self.times - 1
        return True


@dataclass
class Hub:
    """Repositories by name, such as ``models/owner/name`` and ``datasets/owner/name``, each a mapping of file
    names to bytes."""

    repositories: dict[str, dict[str, bytes]]
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Method, path and range of every request."""
    port: int = 0
    generation: int = 0

    def start(self) -> None:
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self.port = self.server.server_port
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def stop(self) -> None:
        """Close the port: for clients there is no network any more."""
        self.server.shutdown()
        self.server.server_close()

    def reset(self) -> None:
        """No faults, an empty log, and new commits, so that nothing a client remembers fits any more."""
        self.faults.clear()
        self.requests.clear()
        self.generation += 1

    def commit(self, repository: str) -> str:
        return hashlib.sha1(f"{repository} {self.generation}".encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        url = urlsplit(self.path)
        path = unquote(url.path)
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        self.fault = next(
            (fault.kind for fault in self.hub.faults if fault.strikes(self.command, path)), None
        )
        if self.fault == "503":
            return self.answer(503, b"out of order")
        kind, _, rest = path.removeprefix("/api/").removeprefix("/").partition("/")
        if kind not in ("models", "datasets"):  # the address of a model's file starts with its owner
            kind, rest = "models", f"{kind}/{rest}"
        repository = next(
            (one for one in self.hub.repositories if f"{kind}/{rest}/".startswith(f"{one}/")), None
        )
        if repository is None:
            return self.refuse("RepoNotFound")
        rest = f"{kind}/{rest}".removeprefix(repository).split("/")[1:]
        verb, revision, *file = rest or ["revision", "main"]
        if revision not in ("main", "v1", self.hub.commit(repository)):
            return self.refuse("RevisionNotFound")
        files, file = self.hub.repositories[repository], "/".join(file)
        if verb == "revision":
            siblings = [{"rfilename": name} for name in files]
            return self.answer_json(
                {"id": repository.partition("/")[2], "sha": self.hub.commit(repository), "siblings": siblings}
            )
        if verb == "tree":
            recursive = parse_qs(url.query).get("recursive", ["false"])[0].lower() == "true"
            found = self.entries(files, file)
            if file and not found:
                return self.refuse("EntryNotFound")
            return self.answer_json(
                [one for one in found if recursive or "/" not in one["path"][len(file) :].strip("/")]
            )
        if verb == "paths-info":
            asked = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())["paths"]
            return self.answer_json([one for one in self.entries(files, "") if one["path"] in asked])
        if file not in files or self.fault == "missing":
            return self.refuse("EntryNotFound", repository)
        self.send_file(repository, file, files[file])

    do_HEAD = do_POST = do_GET

    def entries(self, files: dict[str, bytes], folder: str) -> list[dict]:
        """Files and folders below `folder`, as the hub lists them."""
        inside = {
            name: content for name, content in files.items() if not folder or name.startswith(f"{folder}/")
        }
        parents = sorted(
            {"/".join(name.split("/")[:depth]) for name in inside for depth in range(1, name.count("/") + 1)}
        )
        rows = [
            {"type": "directory", "path": path, "oid": "0" * 40, "size": 0}
            for path in parents
            if path != folder
        ]
        for name, content in inside.items():
            large = (
                {"lfs": {"oid": etag(name, content), "size": len(content), "pointerSize": 130}}
                if name.endswith(LARGE)
                else {}
            )
            rows.append(
                {"type": "file", "path": name, "oid": etag("", content), "size": len(content)} | large
            )
        return rows

    def send_file(self, repository: str, name: str, content: bytes):
        headers = {
            "X-Repo-Commit": self.hub.commit(repository),
            "ETag": f'"{etag(name, content)}"',
            "Accept-Ranges": "bytes",
        }
        if name.endswith(LARGE):
            headers |= {"X-Linked-ETag": headers["ETag"], "X-Linked-Size": str(len(content))}
        if self.fault == "damage":
            content = content[:-100] + bytes([content[-100] ^ 255]) + content[-99:]
        if self.fault == "short":
            content = content[: len(content) // 2]
        status = 200
        if asked := self.headers.get("Range"):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            total, start = len(content), int(first)
            if start >= total:
                return self.answer(416, b"", {"Content-Range": f"bytes */{total}"})
            status, content = 206, content[start : int(last) + 1 if last else None]
            headers["Content-Range"] = f"bytes {start}-{start + len(content) - 1}/{total}"
        self.answer(status, content, headers)

    def refuse(self, code: str, repository: str | None = None):
        headers = {"X-Repo-Commit": self.hub.commit(repository)} if repository else {}
        self.answer(404, b"", headers | {"X-Error-Code": code, "X-Error-Message": code})

    def answer_json(self, content):
        self.answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def answer(self, status: int, content: bytes, headers: dict[str, str] | None = None):
        self.send_response(status)
        # one request a connection, so that nothing goes through an old one after `Hub.stop`
        for name, value in {
            "Content-Length": str(len(content)),
            "Connection": "close",
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if self.fault == "cut" else content)
        if self.fault == "cut":
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_):
        pass


def etag(name: str, content: bytes) -> str:
    return (
        hashlib.sha256(content).hexdigest()
        if name.endswith(LARGE)
        else hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    )
