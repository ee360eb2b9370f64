"""What the notebooks cost as the data grow, and how fast they are beside what people would otherwise run.

    make growth [TASK=folder]                   folder/growth.svg: seconds and peak memory with 1, 2, 4 and 8 times as much data
    make peers SCRIPTS=folder [TASK=folder]     rows per second of each loop over those of a script of Transformers, and texts per second of
                                                the search's `embed` over `SentenceTransformer.encode`; SCRIPTS is examples/pytorch of a
                                                checkout of Transformers

Every measurement is a process of its own, with all threads and nothing beside it. Times are those of this machine: compare them with
each other, and not with other machines'.
"""

import gzip
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import notebooks

FACTORS = (1, 2, 4, 8)
# where the training ends: the heading of what comes after it. Searching has no training here: its collection is embedded and searched.
END = {
    "sequence_classification": "## Trainer and loop", "token_classification": "## Trainer and loop",
    "masked_language_modeling": "## Trainer and loop", "causal_language_modeling": "### Sampling",
    "semantic_search": "### Pairs to learn from",
}
UNITS = {
    "sequence_classification": "training texts, one epoch", "token_classification": "training sentences, one epoch",
    "masked_language_modeling": "texts, one epoch", "causal_language_modeling": "stories, stage 1, one epoch",
    "semantic_search": "entries of the collection, embedded and searched",
}
MEASURE = """
import json, resource, runpy, time
start = time.perf_counter()
runpy.run_path("run.py", run_name="__main__")
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print("MEASURED", json.dumps({"seconds": time.perf_counter() - start, "GB": peak / 1e6}))
"""
FIRST, LAST = 3, 40  # optimizer steps between which rows per second are measured
TIMED = """
import runpy, sys, time
from torch.optim.optimizer import register_optimizer_step_post_hook

first, last = map(int, sys.argv[1:3])
steps, times = {}, {}

def after(optimizer, *_):
    if sys.argv[0] == "run.py" and not (optimizer.defaults.get("fused") or type(optimizer).__name__ == "MuonAdamW"):
        return  # that of the plain loop, which comes before the real one
    number = steps[id(optimizer)] = steps.get(id(optimizer), 0) + 1
    times[id(optimizer), number] = time.perf_counter()
    if number == last:
        print("MEASURED", times[id(optimizer), number] - times[id(optimizer), first], flush=True)
        sys.exit()

register_optimizer_step_post_hook(after)
sys.argv = sys.argv[3:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
ENCODE = """
import time

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
texts = texts[:2000]
model = SentenceTransformer(checkpoint, device="cpu")
model.max_seq_length = max_length
for round in range(2):  # the first one warms up
    start = time.perf_counter()
    theirs = model.encode(texts, batch_size=64, normalize_embeddings=True, show_progress_bar=False)
    middle = time.perf_counter()
    ours = embed(pretrained_encoder, texts, document_prompt)
    end = time.perf_counter()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        short = embed(pretrained_encoder, texts, document_prompt)
    last = time.perf_counter()
short /= np.linalg.norm(short, axis=1, keepdims=True)
cosines = (ours * theirs).sum(axis=1).min(), (ours * short).sum(axis=1).min()
print("MEASURED", (middle - start) / (end - middle), (middle - start) / (last - end), *cosines)
"""


def loop_script(folder, target, parameters, more="", end=None):
    """Write the loop notebook as `run.py` into a copy of its folder: up to the heading `end`, by default that after its training."""
    shutil.rmtree(target, ignore_errors=True)
    notebooks.copy_folder(folder, target)
    document = notebooks.prepared(notebooks.ROOT / folder / "accelerate_loop.ipynb", parameters, "unused.json")
    stop = next(i for i, cell in enumerate(document.cells) if (end or END[folder]) in cell.source)
    cells = [notebooks.python(cell.source) for cell in document.cells[:stop] if cell.cell_type == "code"]
    (target / "run.py").write_text("\n\n".join([*cells, more]), encoding="utf-8")
    return target


def measured(target, *command):
    """Run Python in `target`; return what it printed after the word MEASURED, one line for each time."""
    done = subprocess.run([sys.executable, *command], cwd=target, env=os.environ | {"MPLBACKEND": "Agg"}, text=True, capture_output=True)
    found = [line.removeprefix("MEASURED ") for line in done.stdout.splitlines() if line.startswith("MEASURED")]
    if not found:
        sys.exit(f"{target}: {done.stdout[-1000:]}\n{done.stderr[-3000:]}")
    return "\n".join(found)


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def grown(folder, factor, data):
    """Write the data; return how much there is, and the parameters with which a notebook trains on it.

    At 8 times, the data sets of the classifications are there twice, and the others whole.
    """
    if folder in ("sequence_classification", "token_classification"):
        shutil.copytree(notebooks.ROOT / folder / "data", data)
        rows = rows_of(data / "train.jsonl")
        rows = (rows * 2)[:len(rows) * factor // 4]
        write_rows(data / "train.jsonl", rows)
        return len(rows), {"dataset_id": str(data), "num_epochs": 1}
    if folder == "masked_language_modeling":
        for split, dataset in notebooks.common_of(folder).load_splits("stdlib", None, {}).items():
            rows = [{"text": text} for text in dataset["text"]]
            # every so many, as the texts of one module are alike in length
            write_rows(data / f"{split}.jsonl", rows[::max(FACTORS) // factor] if split == "train" else rows[:300])
        return len(rows_of(data / "train.jsonl")), {"dataset_id": str(data), "num_epochs": 1, "num_draws": 0}
    if folder == "causal_language_modeling":
        with gzip.open(notebooks.ROOT / folder / "data" / "woods" / "train.jsonl.gz", "rt", encoding="utf-8") as lines:
            num_rows = sum(1 for _ in lines) * factor // max(FACTORS)
        return num_rows, {"max_rows": num_rows}
    common = notebooks.common_of(folder)
    entries = common.load_collection("stdlib", {}, None).to_list()
    entries = entries[::max(FACTORS) // factor]
    write_rows(data / "texts" / "train.jsonl", entries)
    ids = {entry["id"] for entry in entries}
    for split in ("train", "validation", "test"):
        questions = rows_of(notebooks.ROOT / folder / "data" / f"{split}.jsonl")
        write_rows(data / "questions" / f"{split}.jsonl", [row for row in questions if ids.issuperset(row["answers"])])
    return len(entries), {"dataset_id": str(data / "texts"), "questions_id": str(data / "questions")}


def draw(folder, sizes, found):
    """Write the plot of one folder."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for ax, name, label in zip(axes, ("seconds", "GB"), ("seconds", "peak memory, GB")):
        values = [one[name] for one in found]
        ax.plot(sizes, values, "o-")
        ax.set(xlabel=UNITS[folder], ylabel=label, ylim=(0, 1.15 * max(values)), xlim=(0, None), xticks=sizes)
        ax.set_xticklabels([f"{size:,}" for size in sizes], rotation=30)
    fig.savefig(notebooks.ROOT / folder / "growth.svg", metadata={"Date": None})


def grow(folder):
    """Measure and draw one folder."""
    sizes, found = [], []
    for factor in FACTORS:
        target = notebooks.RUNS / "growth" / folder / str(factor)
        shutil.rmtree(target.with_name(f"data-{factor}"), ignore_errors=True)
        size, parameters = grown(folder, factor, target.with_name(f"data-{factor}"))
        loop_script(folder, target, parameters)
        found.append(json.loads(measured(target, "-c", MEASURE)))
        sizes.append(size)
        shutil.rmtree(target.with_name(f"data-{factor}"), ignore_errors=True)
        print(f"{folder}: {size:,} {UNITS[folder]}: {found[-1]['seconds']:.0f} s, {found[-1]['GB']:.2f} GB", flush=True)
    draw(folder, sizes, found)


def their_commands(scripts, work):
    """{folder: (target, command)}: the scripts of transformers, on the rows, the model and the batch size of the notebooks."""
    root, commands = notebooks.ROOT, {}

    def add(folder, script, *options):
        steps = ("--max_train_steps", str(LAST + 1), "--output_dir", str(work / "theirs" / folder))
        commands[folder] = (work, ("-c", TIMED, str(FIRST), str(LAST), str(next(Path(scripts).rglob(script))), *options, *steps))

    def rows(folder, columns):
        for split in ("train", "validation"):
            kept = [{new: row[old] for new, old in columns.items()} for row in rows_of(root / folder / "data" / f"{split}.jsonl")]
            write_rows(work / folder / f"{split}.json", kept)
        return "--train_file", str(work / folder / "train.json"), "--validation_file", str(work / folder / "validation.json")

    add("sequence_classification", "run_glue_no_trainer.py",
        *rows("sequence_classification", {"sentence": "text", "label": "label"}),
        "--model_name_or_path", "sentence-transformers/all-MiniLM-L6-v2", "--max_length", "128", "--per_device_train_batch_size", "16")
    add("token_classification", "run_ner_no_trainer.py",
        *rows("token_classification", {"tokens": "tokens", "ner_tags": "ner_tags"}),
        "--model_name_or_path", "sentence-transformers/all-MiniLM-L6-v2", "--max_length", "128", "--per_device_train_batch_size", "16")
    texts = notebooks.common_of("masked_language_modeling").load_splits("stdlib", None, {})
    for split in ("train", "validation"):
        write_rows(work / "masked_language_modeling" / f"{split}.json", [{"text": text} for text in texts[split]["text"]])
    add("masked_language_modeling", "run_mlm_no_trainer.py",
        "--train_file", str(work / "masked_language_modeling" / "train.json"),
        "--validation_file", str(work / "masked_language_modeling" / "validation.json"),
        "--model_name_or_path", "rasyosef/splade-tiny", "--max_seq_length", "64", "--per_device_train_batch_size", "32")
    for split in ("train", "validation"):
        with gzip.open(root / "causal_language_modeling" / "data" / "woods" / f"{split}.jsonl.gz", "rt", encoding="utf-8") as lines:
            write_rows(work / "causal_language_modeling" / f"{split}.json", [{"text": json.loads(line)["text"]} for line in lines])
    add("causal_language_modeling", "run_clm_no_trainer.py",
        "--train_file", str(work / "causal_language_modeling" / "train.json"),
        "--validation_file", str(work / "causal_language_modeling" / "validation.json"),
        "--model_name_or_path", str(work / "scratch"), "--block_size", "256", "--per_device_train_batch_size", "8")
    return commands


def peers(scripts, chosen=None, rounds=3):
    """Measure ours and theirs in turn, and print the medians of the ratios."""
    work = notebooks.RUNS / "peers"
    shutil.rmtree(work, ignore_errors=True)
    commands = their_commands(scripts, work)
    for folder, (target, command) in commands.items():
        if chosen not in (None, folder):
            continue
        if folder == "causal_language_modeling":  # theirs starts from the same new model
            save = f"for each in (new_model(), tokenizer):\n    each.save_pretrained({str(work / 'scratch')!r})\nprint('MEASURED')"
            measured(loop_script(folder, work / "ours" / folder, {}, save, end="## Training"), "run.py")
        ours = loop_script(folder, work / "ours" / folder, {"num_draws": 0} if folder == "masked_language_modeling" else {})
        ratios = []
        for _ in range(rounds):
            our_time = float(measured(ours, "-c", TIMED, str(FIRST), str(LAST), "run.py"))
            their_time = float(measured(target, *command))
            ratios.append(their_time / our_time)
        print(f"{folder}: {statistics.median(ratios):.2f} times the rows per second of the script "
              f"({', '.join(f'{ratio:.2f}' for ratio in ratios)})", flush=True)
    if chosen not in (None, "semantic_search"):
        return
    target = loop_script("semantic_search", work / "ours" / "semantic_search", {}, ENCODE)
    found = [[float(value) for value in measured(target, "run.py").split()] for _ in range(rounds)]
    ratio, short_ratio, cosine, short_cosine = (statistics.median(values) for values in zip(*found))
    print(f"semantic_search: embed has {ratio:.2f} times the texts per second of SentenceTransformer.encode (lowest cosine {cosine:.6f}), "
          f"under autocast to bfloat16 {short_ratio:.2f} times ({short_cosine:.6f})")


if __name__ == "__main__":
    what, *arguments = sys.argv[1:] or ["grow"]
    if what == "peers":
        peers(*arguments)
    else:
        for folder in arguments or notebooks.folders():
            grow(folder)
