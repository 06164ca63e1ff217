"""A stand-in of Hugging Face: the part of its HTTP interface that is used to get and to put files."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

TOKEN = "hf_of_the_tests"


class StandIn:
    """Repositories in memory: name -> commits, each of them file name -> content, the newest last."""

    def __init__(self) -> None:
        self.repositories: dict[str, list[dict[str, bytes]]] = {}
        self.private: set[str] = set()
        self.requests: list[str] = []
        self.uploads: dict[str, bytes] = {}
        self.url = ""

    def add(self, name: str, **files: bytes) -> str:
        """Add a commit with files, called by their names with ``_`` for the dot; returns its id."""
        commits = self.repositories.setdefault(name, [])
        commits.append({file.replace("_", "."): content for file, content in files.items()})
        return commit_id(name, len(commits) - 1)

    def find(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        commits = self.repositories[name]
        ids = [commit_id(name, n) for n in range(len(commits))]
        if revision == "main" and commits:
            return ids[-1], commits[-1]
        return (revision, commits[ids.index(revision)]) if revision in ids else None


def commit_id(name: str, number: int) -> str:
    return hashlib.sha1(f"{name} {number}".encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: StandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, content: bytes | object = b"", **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_request(self) -> None:  # noqa: C901
        path = unquote(self.path.partition("?")[0])
        self.hub.requests.append(f"{self.command} {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        may_write = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if path.startswith("/upload/"):
            self.hub.uploads[path.rpartition("/")[2]] = body
            return self.answer(200)
        if path == "/api/validate-yaml":  # the card's front matter
            return self.answer(200, {"errors": [], "warnings": []})
        if path == "/api/repos/create":
            return self.create(json.loads(body), may_write)
        match = re.fullmatch(r"(?:/api/models)?/([\w.-]+/[\w.-]+?)(?:\.git)?/([a-z]+)/(.+)", path)
        listed = re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)", path)
        name = match[1] if match else listed[1] if listed else ""
        if name not in self.hub.repositories or (name in self.hub.private and not may_write):
            return self.answer(404, X_Error_Code="RepoNotFound", X_Error_Message="no such repository")
        if listed:
            return self.tell(name, "main")
        assert match is not None
        _, what, rest = match.groups()
        if what == "resolve":
            return self.resolve(name, *rest.split("/", 1))
        if what in ("revision", "tree"):
            return self.tell(name, rest, tree=what == "tree")
        if not may_write:
            return self.answer(403, {"error": "this token may not write here"})
        if what == "preupload":
            files = json.loads(body)["files"]
            ends = {True: "lfs", False: "regular"}
            modes = [
                {"path": f["path"], "uploadMode": ends[f["path"].endswith(".safetensors")]} for f in files
            ]
            return self.answer(200, {"files": [{**mode, "shouldIgnore": False} for mode in modes]})
        if what == "info":  # of LFS
            objects = json.loads(body)["objects"]
            told = [
                {**o, "actions": {"upload": {"href": f"{self.hub.url}/upload/{o['oid']}"}}} for o in objects
            ]
            return self.answer(200, {"transfer": "basic", "objects": told})
        return self.commit(name, body)

    do_GET = do_HEAD = do_POST = do_PUT = handle_request

    def create(self, wanted: dict[str, object], may_write: bool) -> None:
        if not may_write:
            return self.answer(401, {"error": "Invalid username or password."})
        organisation = wanted.get("organization")
        name = f"{organisation}/{wanted['name']}" if organisation else str(wanted["name"])
        url = {"url": f"https://huggingface.co/{name}", "name": name, "id": name}
        if name in self.hub.repositories:
            return self.answer(409, url)
        self.hub.repositories[name] = [{".gitattributes": b""}]
        if wanted.get("private") or wanted.get("visibility") == "private":
            self.hub.private.add(name)
        return self.answer(200, url)

    def tell(self, name: str, revision: str, *, tree: bool = False) -> None:
        found = self.hub.find(name, revision.split("/")[0])
        if found is None:
            return self.answer(404, X_Error_Code="RevisionNotFound")
        commit, files = found
        if tree:
            parts = [{"type": "file", "path": n, "size": len(c), "oid": "0"} for n, c in files.items()]
            return self.answer(200, parts)
        siblings = [{"rfilename": file} for file in files]
        return self.answer(200, {"id": name, "sha": commit, "siblings": siblings, "private": False})

    def resolve(self, name: str, revision: str, file: str) -> None:
        found = self.hub.find(name, revision)
        if found is None:
            return self.answer(404, X_Error_Code="RevisionNotFound")
        commit, files = found
        if file not in files:
            return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        tag = hashlib.sha256(files[file]).hexdigest()
        return self.answer(200, files[file], ETag=f'"{tag}"', X_Repo_Commit=commit)

    def commit(self, name: str, body: bytes) -> None:
        files = dict(self.hub.repositories[name][-1])
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.uploads[value["oid"]]
        self.hub.repositories[name].append(files)
        commit = commit_id(name, len(self.hub.repositories[name]) - 1)
        url = f"https://huggingface.co/{name}/commit/{commit}"  # older clients know no other address
        self.answer(200, {"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})


@contextmanager
def serving() -> Iterator[StandIn]:
    """Serve a stand-in on this machine while the block runs."""
    hub = StandIn()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
