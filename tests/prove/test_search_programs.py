"""The programs in the README of semantic_search/ embed a collection on two processes, and fill a search engine."""

import re
import shutil
import subprocess
import sys

import numpy as np
import torch
from notebooks import ROOT, common_of
from transformers import AutoModel, AutoTokenizer

FOLDER = ROOT / "semantic_search"
common = common_of("semantic_search")


def test_the_readmes_programs_embed_on_two_processes_and_fill_an_engine(recorded_run, tmp_path):
    target = recorded_run("semantic_search")
    model = target / "outputs" / "accelerate_loop" / "run-001" / "model"
    programs = re.findall(r"```python\n# (e\w+\.py)(.*?)```", (FOLDER / "README.md").read_text(), flags=re.S)
    assert [name for name, _ in programs] == ["embed.py", "engine.py"]
    for name, text in programs:
        (tmp_path / name).write_text("#" + text.replace('load_collection("stdlib", {})', 'load_collection("stand-in/passages", {})'))
    for module in FOLDER.glob("*.py"):
        shutil.copy(module, tmp_path)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "embed.py", str(model)]
    done = subprocess.run(launch, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    parts = [np.load(path) for path in sorted(tmp_path.glob("vectors-*.npy"))]
    texts = common.load_collection("stand-in/passages", {})["text"][:]
    assert [len(part) for part in parts] == [100, 100]
    tokenizer, encoder = AutoTokenizer.from_pretrained(model), AutoModel.from_pretrained(model).eval()
    inputs = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        whole = common.pool(encoder(**inputs).last_hidden_state, inputs["attention_mask"]).numpy()
    assert np.abs(np.concatenate(parts) - whole).max() < 1e-5

    done = subprocess.run([sys.executable, "engine.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "('p0', 1.0)" in done.stdout
