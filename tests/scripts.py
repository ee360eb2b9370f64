"""Notebooks as scripts, in children forked from a process that has imported everything once.

Starting Python and importing torch, transformers and the rest takes longer than most notebooks need on stand-ins. Every script
gets a process of its own all the same: nothing of one run is left for the next, and one that is killed harms no other.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import notebooks

# With one thread for each child there is no pool of threads that a fork would lose.
SERVER = """
import importlib, json, os, runpy, sys, traceback
for name in ("bm25s", "datasets", "evaluate", "faiss", "IPython.display", "matplotlib.pyplot", "pandas", "scipy.sparse", "seqeval.metrics",
             "seqeval.scheme", "sklearn.dummy", "sklearn.feature_extraction.text", "sklearn.linear_model", "sklearn.metrics",
             "sklearn.model_selection", "sklearn.pipeline", "torch", "tqdm.auto", "accelerate", "transformers.pipelines",
             "transformers.trainer", "transformers.trainer_callback", "transformers.data.data_collator"):
    importlib.import_module(name)

def child(folder, arguments, log, environment):
    os.chdir(folder)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(environment)
    sys.path[0], sys.argv = folder, arguments
    status = 1
    try:
        runpy.run_path(arguments[0], run_name="__main__")
        status = 0
    except BaseException:
        sys.stdout.flush()  # both go to one file, of which the error is to be the end
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

print("ready", flush=True)
for line in sys.stdin:
    children = [os.fork() or child(*job) for job in json.loads(line)]
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]), flush=True)
"""


class Scripts:
    """A context: `run` takes jobs, which run at the same time, and returns their exit statuses (negative: the signal's number)."""

    def __enter__(self):
        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert self._server.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *_):
        self._server.stdin.close()
        self._server.wait()

    def run(self, *jobs):
        print(json.dumps(jobs), file=self._server.stdin, flush=True)
        return json.loads(self._server.stdout.readline())


def job(target, *arguments, log="log", environment=None):
    """What `Scripts.run` takes: `arguments` as after `python`, run in the folder `target`, its output in the file `log` there."""
    return [str(target), list(arguments), log, environment or {}]


def export(folder, name, target, parameters):
    """Write a notebook of a task folder as a script into `target`, which becomes a copy of the folder; return the script's name."""
    if not target.exists():
        notebooks.copy_folder(folder, target)
    path = notebooks.script(notebooks.ROOT / folder / f"{name}.ipynb", target, parameters, f"{name}.json")
    assert path.suffix == ".py"
    return path.name


def outcomes(target, name):
    """What each process of a finished script left in its last cell; there is one, or one for each rank."""
    return [json.loads(file.read_text()) for file in sorted(Path(target).glob(f"{name}*.json"))]
