"""A Hub in a box for the tests: the part of the Hugging Face Hub that the notebooks need, on 127.0.0.1.

`from_pretrained`, `load_dataset`, `evaluate.load` and `push_to_hub` work unchanged against it. HF_HOME is a new temporary folder, so
nothing is read from or written to your own cache, and what is pushed is gone in the end. Only the standard library is needed here:
the box must start before the libraries are imported. Readers need none of this; see offline.py.
"""

import base64
import hashlib
import json
import os
import re
import secrets
import shutil
import socketserver
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from offline import STORE, digest, metrics, own_environment


def files(repo):
    return sorted(p.relative_to(repo).as_posix() for p in repo.rglob("*") if p.is_file())


def commit(repo):
    """A commit hash that changes when any file of the repository does."""
    return hashlib.sha1("".join(name + digest(repo / name) for name in files(repo)).encode()).hexdigest()


def entry(repo, name):
    path = repo / name
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}
    lfs = {"lfs": {"oid": digest(path), "size": path.stat().st_size, "pointerSize": 134}} if name.endswith(".safetensors") else {}
    return {"type": "file", "path": name, "oid": digest(path)[:40], "size": path.stat().st_size} | lfs


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: "Hub"

    def log_message(self, *_):
        pass

    def find(self, kind, name):
        """The folder of a repository: pushed or made for this run first, then the checkpoints on disk."""
        places = [store / kind / name for store in (self.hub.store, self.hub.weights)]
        return next((p for p in places if p.is_dir()), None)

    def reply(self, status, body=b"", headers=(), content_type="application/json"):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.head(status, len(body), headers, content_type)
        if self.command != "HEAD":
            self.wfile.write(body)

    def head(self, status, length, headers=(), content_type="application/octet-stream"):
        self.send_response(status)
        for key, value in [("Content-Type", content_type), ("Content-Length", str(length)), *headers]:
            self.send_header(key, value)
        self.end_headers()

    def missing(self, code="RepoNotFound", repo=None):
        headers = [("X-Error-Code", code), ("X-Error-Message", code)]
        headers += [("X-Repo-Commit", commit(repo))] if repo else []
        self.reply(404, {"error": code}, headers)

    def body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        url = urlsplit(self.path)
        path = unquote(url.path)
        if path == "/api/whoami-v2":
            token = {"type": "access_token", "accessToken": {"role": "write", "displayName": "box"}}
            return self.reply(200, {"type": "user", "name": "reader", "fullname": "reader", "orgs": [], "auth": token})
        if m := re.fullmatch(r"/(?:(datasets|spaces)/)?([^/]+/[^/]+)/(?:resolve|raw)/([^/]+)/(.+)", path):
            repo = self.find(m[1] or "models", m[2])
            return self.send_file(repo, m[3], m[4]) if repo else self.missing()
        if m := re.fullmatch(r"/api/(models|datasets|spaces)/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+)(?:/(.*))?)?", path):
            repo = self.find(m[1], m[2])
            if not repo:
                return self.missing()
            if m[4] not in (None, "main", commit(repo)):
                return self.missing("RevisionNotFound", repo)
            if m[3] == "tree":
                deep = parse_qs(url.query).get("recursive", ["false"])[0].lower() in ("true", "1")
                return self.send_tree(repo, (m[5] or "").strip("/"), deep)
            return self.reply(200, self.info(m[1], m[2], repo))
        self.missing()

    def send_file(self, repo, revision, name):
        path = repo / name
        # Metric modules are asked for by the version of `evaluate`; a Space here has only main.
        if revision not in ("main", commit(repo)):
            return self.missing("RevisionNotFound", repo)
        if not path.is_file() or not path.resolve().is_relative_to(repo.resolve()):
            return self.missing("EntryNotFound", repo)
        size = path.stat().st_size
        headers = [("X-Repo-Commit", commit(repo)), ("ETag", f'"{digest(path)}"'), ("Accept-Ranges", "bytes")]
        first, last, status = 0, size - 1, 200
        if m := re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", "")):
            first = int(m[1]) if m[1] else size - int(m[2])
            last = min(int(m[2]), size - 1) if m[1] and m[2] else size - 1
            status = 206
            headers.append(("Content-Range", f"bytes {first}-{last}/{size}"))
        self.head(status, last - first + 1, headers)
        if self.command != "HEAD":
            with open(path, "rb") as file:
                file.seek(first)
                left = last - first + 1
                while chunk := file.read(min(left, 1 << 20)):
                    self.wfile.write(chunk)
                    left -= len(chunk)

    def send_tree(self, repo, base, deep):
        names = [name for name in files(repo) if not base or name.startswith(base + "/")]
        if base and not names:
            return self.missing("EntryNotFound", repo)
        if not deep:
            depth = base.count("/") + 2 if base else 1
            names = sorted({"/".join(name.split("/")[:depth]) for name in names})
        self.reply(200, [entry(repo, name) for name in names])

    def info(self, kind, name, repo):
        dates = {"lastModified": "2024-01-01T00:00:00.000Z", "createdAt": "2024-01-01T00:00:00.000Z"}
        flags = {"private": False, "gated": False, "disabled": False, "downloads": 0, "likes": 0, "tags": []}
        names = {"_id": "0" * 24, "id": name, "sha": commit(repo)} | ({"modelId": name} if kind == "models" else {})
        return names | flags | dates | {"siblings": [{"rfilename": file} for file in files(repo)]}

    def do_POST(self):
        path = unquote(urlsplit(self.path).path)
        raw = self.body()
        # whoever does not have the token of this box, such as a web page in a browser on this machine, changes nothing in it
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self.reply(401, {"error": "the token of this box is needed"})
        if path == "/api/repos/create":
            asked = json.loads(raw)
            kind, name = asked.get("type", "model") + "s", f"{asked.get('organization') or 'reader'}/{asked['name']}"
            (self.hub.store / kind / name).mkdir(parents=True, exist_ok=True)
            prefix = "" if kind == "models" else kind + "/"
            return self.reply(200, {"url": f"{self.hub.endpoint}/{prefix}{name}", "id": name, "name": name})
        if path == "/api/validate-yaml":
            return self.reply(200, {"errors": [], "warnings": []})
        if path.endswith(".git/info/lfs/objects/batch"):
            address = f"{self.hub.endpoint}/lfs/{self.hub.token}"
            upload = [o | {"actions": {"upload": {"href": f"{address}/{o['oid']}"}}} for o in json.loads(raw)["objects"]]
            return self.reply(200, {"transfer": "basic", "objects": upload}, content_type="application/vnd.git-lfs+json")
        m = re.fullmatch(r"/api/(models|datasets|spaces)/([^/]+/[^/]+)/(paths-info|preupload|commit)/[^/]+", path)
        repo = m and self.find(m[1], m[2])
        if not repo:
            return self.missing()
        if m[3] == "paths-info":
            asked = json.loads(raw) if raw[:1] == b"{" else parse_qs(raw.decode())
            return self.reply(200, [entry(repo, p) for p in asked.get("paths", []) if (repo / p).exists()])
        if m[3] == "preupload":
            # Dataset.push_to_hub deletes its parquet files before it commits them, so those must travel as LFS objects
            modes = [(f["path"], "lfs" if f["path"].endswith(".parquet") else "regular") for f in json.loads(raw)["files"]]
            return self.reply(200, {"files": [{"path": p, "uploadMode": mode, "shouldIgnore": False} for p, mode in modes]})
        lines = [json.loads(line) for line in filter(None, raw.split(b"\n"))]
        paths = [line["value"]["path"] for line in lines if line["key"] != "header"]
        if not all((repo / path).resolve().is_relative_to(repo.resolve()) and (repo / path).resolve() != repo.resolve() for path in paths):
            return self.reply(400, {"error": "a path leads out of the repository"})
        for line in lines:
            self.apply(repo, **line)
        done = {"success": True, "commitOid": commit(repo), "hookOutput": "", "pullRequestUrl": None}
        self.reply(200, done | {"commitUrl": f"{self.hub.endpoint}/{m[2]}/commit/{commit(repo)}"})

    def apply(self, repo, key, value):
        """One line of a commit: a file, a file sent before as an LFS object, or a deletion."""
        if key == "header":
            return
        path = repo / value["path"]
        if key == "file":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(base64.b64decode(value["content"]))
        elif key == "lfsFile":
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.hub.store / "lfs" / value["oid"], path)
        elif key == "deletedFile":
            path.unlink()
        elif key == "deletedFolder":
            shutil.rmtree(path)

    def do_PUT(self):
        body, m = self.body(), re.fullmatch(rf"/lfs/{self.hub.token}/([0-9a-f]+)", self.path)
        if not m:
            return self.reply(401, {"error": "the token of this box is needed"})
        path = self.hub.store / "lfs" / m[1]
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(body)
        self.reply(200, {})


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self):
        # HTTPServer asks the resolver for this machine's name here, which takes seconds on some; nothing needs it.
        socketserver.TCPServer.server_bind(self)


class Hub:
    """The box as a context manager.

    Attributes: `endpoint`, its address; `store`, a temporary folder with the repositories of this run, as
    {models,datasets,spaces}/owner/name/files; `environment`, the variables that make a process use the box.
    """

    def __init__(self, weights=STORE):
        self.weights = Path(weights)

    def __enter__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="hub-", ignore_cleanup_errors=True)
        self.store, home = Path(self._folder.name) / "store", Path(self._folder.name) / "home"
        self.store.mkdir()
        self.token = f"hf_{secrets.token_hex(16)}"
        for name, source in metrics().items():
            module = self.store / "spaces" / "evaluate-metric" / name / f"{name}.py"
            module.parent.mkdir(parents=True)
            module.write_text(source, encoding="utf-8")
        self._server = Server(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"hub": self}))
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        box = {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(home), "HF_TOKEN": self.token}
        quiet = {"HF_HUB_DISABLE_XET": "1", "HF_UPDATE_DOWNLOAD_COUNTS": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}
        no_proxy = ",".join(filter(None, [os.environ.get("no_proxy") or os.environ.get("NO_PROXY"), "127.0.0.1"]))
        self.environment = own_environment() | box | quiet | {"NO_PROXY": no_proxy, "no_proxy": no_proxy}
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._folder.cleanup()
