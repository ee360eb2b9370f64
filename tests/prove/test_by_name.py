"""The bigger runs of the READMEs, as they stand there, on stand-ins with the files and columns of the real data sets.

These have a Hub in a box of their own: what they stand in for has other sizes than the stand-ins of the proofs.
"""

import json
import math
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import notebooks
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict, Features, Value
from hub import Hub
from huggingface_hub import ModelCard
from stand_ins import NER_TAGS, WORDS, byte_level, conll, emotion, imdb, passages, sentence, smoltalk, word_piece
from tokenizers import processors
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, set_seed

FOLDERS = notebooks.folders()
POS_TAGS = (
    "\" '' # $ ( ) , . : `` CC CD DT EX FW IN JJ JJR JJS LS MD NN NNP NNPS NNS NN|SYM PDT POS PRP PRP$ RB RBR RBS RP SYM TO UH VB VBD "
    "VBG VBN VBP VBZ WDT WP WP$ WRB"
).split()
CHUNK_TAGS = ["O", *(f"{p}-{kind}" for kind in "ADJP ADVP CONJP INTJ LST NP PP PRT SBAR UCP VP".split() for p in "BI")]
LAYERS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "initializer_range": 0.1}
# for each folder what the README's run trains: the architecture, and the test metrics that it must give
TRAINED = {
    "sequence_classification": ("distilbert", "f1"), "token_classification": ("distilbert", "f1"),
    "masked_language_modeling": ("distilbert", "perplexity"), "causal_language_modeling": ("llama", "perplexity"),
    "semantic_search": ("mpnet", "ndcg@10"),
}


# ---------------------------------------------------------------------------------------------------- models


def write_models(store):
    set_seed(1)
    bert = word_piece()
    bert.model_max_length = 512
    small = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "initializer_range": 0.1}
    config = AutoConfig.for_model("distilbert", vocab_size=len(bert), max_position_embeddings=512, pad_token_id=0, **small)
    for name in ("distilbert-base-uncased", "distilbert-base-cased"):
        save(AutoModelForMaskedLM.from_config(config), bert, store / "distilbert" / name)
    save(AutoModelForMaskedLM.from_config(config), bert, store / "rasyosef" / "splade-tiny")

    mpnet = word_piece()  # the vocabulary and special tokens of its kind: those of BERT's, and <s>, </s> and <mask> for its own
    mpnet.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"})
    ends = [(token, mpnet.convert_tokens_to_ids(token)) for token in ("</s>", "<s>")]
    mpnet.backend_tokenizer.post_processor = processors.BertProcessing(*ends)
    mpnet.model_max_length = 512
    config = AutoConfig.for_model("mpnet", vocab_size=len(mpnet), max_position_embeddings=514, pad_token_id=mpnet.pad_token_id, **LAYERS)
    save(AutoModel.from_config(config), mpnet, store / "sentence-transformers" / "all-mpnet-base-v2")

    smollm = byte_level()  # one token is both ends, nothing is padding, and nothing is added by itself
    smollm.add_special_tokens({"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"})
    smollm.pad_token = None
    smollm.add_special_tokens({"extra_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    smollm.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    smollm.model_max_length = 8192
    ends = {"bos_token_id": smollm.bos_token_id, "eos_token_id": smollm.eos_token_id}
    config = AutoConfig.for_model(
        "llama", vocab_size=len(smollm), max_position_embeddings=8192, num_key_value_heads=2, tie_word_embeddings=True, **ends, **LAYERS
    )
    save(AutoModelForCausalLM.from_config(config), smollm, store / "HuggingFaceTB" / "SmolLM2-135M")


def save(model, tokenizer, folder):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


# ---------------------------------------------------------------------------------------------------- data sets


def write_parquet(configs, folder):
    """{name of a configuration: {split: rows}} as parquet below a folder of its own each, the first one the default."""
    card = ["---", "configs:"]
    for i, (config, splits) in enumerate(configs.items()):
        place = "data" if config == "default" else config
        card += [f"- config_name: {config}", *(["  default: true"] if i == 0 else []), "  data_files:"]
        (folder / place).mkdir(parents=True)
        for split, rows in splits.items():
            rows.to_parquet(folder / place / f"{split}-00000-of-00001.parquet")
            card += [f"  - split: {split}", f"    path: {place}/{split}-*"]
    (folder / "README.md").write_text("\n".join([*card, "---", ""]))


def write_conll(folder):
    """As lhoestq/conll2003 is: parquet that says nothing of names, no card, and the features in the file of older versions."""
    label = {"pos_tags": POS_TAGS, "chunk_tags": CHUNK_TAGS, "ner_tags": NER_TAGS}
    text = {"dtype": "string", "id": None, "_type": "Value"}
    features = {"id": text, "tokens": {"feature": text, "length": -1, "id": None, "_type": "Sequence"}}
    for column, names in label.items():
        feature = {"num_classes": len(names), "names": names, "names_file": None, "id": None, "_type": "ClassLabel"}
        features[column] = {"feature": feature, "length": -1, "id": None, "_type": "Sequence"}
    (folder / "data").mkdir(parents=True)
    splits = {}
    for split, rows in conll({"train": 120, "validation": 30, "test": 31}).items():
        rows = rows.map(lambda row: {"pos_tags": [21] * len(row["tokens"]), "chunk_tags": [11] * len(row["tokens"])})
        rows = rows.select_columns(["id", "tokens", "pos_tags", "chunk_tags", "ner_tags"])
        table = rows.data.table.replace_schema_metadata(None)
        pq.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")
        splits[split] = {"name": split, "num_bytes": table.nbytes, "num_examples": len(rows), "dataset_name": "conll2003"}
    info = {"description": "", "citation": "", "homepage": "", "license": "", "features": features, "splits": splits}
    (folder / "dataset_infos.json").write_text(json.dumps({"lhoestq--conll2003": info}))


def write_scifact(folder):
    """As mteb/scifact is: JSON lines in three configurations, judgements with the ids of a question and of a text."""
    rng = random.Random(3)
    texts = passages(120)["train"]
    # some titles are too short to be asked for, so that not all texts are made into pairs and some are left for negatives
    rows = [{"_id": str(i), "title": " ".join(rng.sample(WORDS, 9 if i < 95 else 2)), "text": row["text"]} for i, row in enumerate(texts)]
    questions = [{"_id": f"{i}", "text": sentence(rng, row["text"].replace(".", "").split())} for i, row in enumerate(rows[:80])]
    judged = [{"query-id": row["_id"], "corpus-id": row["_id"], "score": 1.0} for row in questions]
    judged[41]["corpus-id"] = "75"  # a text that answers a question of train and one of test
    (folder / "qrels").mkdir(parents=True)
    files = {"corpus": rows, "queries": questions, "qrels/train": judged[:60], "qrels/test": judged[60:]}
    for name, lines in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    card = ["---", "configs:"]
    for config, splits in {"default": ["qrels/train", "qrels/test"], "corpus": ["corpus"], "queries": ["queries"]}.items():
        card += [f"- config_name: {config}", "  data_files:"]
        for name in splits:
            card += [f"  - split: {name.removeprefix('qrels/')}", f"    path: {name}.jsonl"]
    (folder / "README.md").write_text("\n".join([*card, "---", ""]))


def write_datasets(store):
    sizes = {"train": 120, "validation": 30, "test": 31}
    write_parquet({"split": emotion(sizes), "unsplit": emotion({"train": 60})}, store / "dair-ai" / "emotion")
    write_conll(store / "lhoestq" / "conll2003")
    reviews = imdb({"train": 900, "test": 200, "unsupervised": 9})
    reviews["unsupervised"] = reviews["unsupervised"].map(lambda row: {"label": -1})  # which none of them has
    write_parquet({"plain_text": reviews}, store / "stanfordnlp" / "imdb")
    stories = imdb({"train": 300, "validation": 60}).remove_columns("label").map(lambda row: {"text": " ".join([row["text"]] * 10)})
    write_parquet({"default": stories}, store / "roneneldan" / "TinyStories")
    (store / "roneneldan" / "TinyStories" / "TinyStories-train.txt").write_text("other forms of the same lie beside it\n")
    said = smoltalk({"train": 120, "test": 40})
    order = [{"content": Value("string"), "role": Value("string")}]
    features = Features({"messages": order, "source": Value("string")})
    ordered = {split: Dataset.from_list(
        [{"messages": [{"content": m["content"], "role": m["role"]} for m in row["messages"]], "source": row["source"]} for row in rows],
        features=features) for split, rows in said.items()}
    write_parquet({"default": DatasetDict(ordered)}, store / "HuggingFaceTB" / "smol-smoltalk")
    write_scifact(store / "mteb" / "scifact")


@pytest.fixture(scope="module")
def box():
    with Hub() as hub:
        write_models(hub.store / "models")
        write_datasets(hub.store / "datasets")
        yield hub


# ---------------------------------------------------------------------------------------------------- tests


def fences(text, start):
    """The blocks of code in a text that begin with `start`."""
    return [block for block in re.findall(r"^```\w*\n(.*?)^```$", text, flags=re.S | re.M) if block.startswith(start)]


def bigger(folder):
    """The first papermill line of a folder's README."""
    line, *_ = fences((notebooks.ROOT / folder / "README.md").read_text(), "papermill trainer_api.ipynb")
    return line


def run(command, box, folder):
    variables = {"MPLBACKEND": "Agg", "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=folder, env=box.environment | variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.mark.parametrize("folder", FOLDERS)
def test_readme_and_notebooks_show_one_line(folder):
    for name in notebooks.PAIR:
        cells = nbformat.read(notebooks.ROOT / folder / f"{name}.ipynb", as_version=4).cells
        (section,) = [cell.source for cell in cells if re.search(r"^## Scaling up", cell.source, flags=re.M)]
        assert bigger(folder) in fences(section, "papermill trainer_api.ipynb")
    readme = (notebooks.ROOT / "README.md").read_text()
    assert f"cd sequence_classification\n{bigger('sequence_classification')}" in fences(readme, "cd sequence_classification")


@pytest.mark.parametrize("name", notebooks.PAIR)
@pytest.mark.parametrize("folder", FOLDERS)
def test_the_bigger_run_of_the_readme_runs_is_shared_and_loads_by_name(box, folder, name, tmp_path):
    target, repository = tmp_path / folder, f"reader/{folder}-{name}"
    notebooks.copy_folder(folder, target)
    nbformat.write(nbformat.read(notebooks.ROOT / folder / f"{name}.ipynb", as_version=4), target / f"{name}.ipynb")
    for script in fences((notebooks.ROOT / folder / "README.md").read_text(), "# scifact.py"):
        run([sys.executable, "-c", script], box, target)
    line = bigger(folder).replace("trainer_api.ipynb", f"{name}.ipynb").strip()
    fewer = "-p max_rows 200" if folder == "causal_language_modeling" else ""  # of its own second world, which is not tiny
    run(["bash", "-c", f"{line} {fewer} -p push_to_hub {repository}"], box, target)

    architecture, metric = TRAINED[folder]
    model = target / "outputs" / name / "run-001" / "model"
    assert json.loads((model / "config.json").read_text())["model_type"] == architecture
    asked = dict(re.findall(r"-p (\w+) (\S+)", line))

    shared = box.store / "models" / repository
    weights = (model / "model.safetensors").read_bytes()
    assert (shared / "model.safetensors").read_bytes() == weights and not (shared / "training_args.bin").exists()
    card = ModelCard.load(str(shared / "README.md"), ignore_metadata_errors=False)
    assert card.data.base_model == asked["checkpoint"]
    assert str(tmp_path) not in card.content, "no path of this machine"
    (result,) = [result for result in card.data.eval_results if result.metric_type == metric]
    if "/" in asked["dataset_id"] and not (target / asked["dataset_id"]).exists():
        assert result.dataset_name == asked["dataset_id"]
    assert math.isfinite(result.metric_value) and result.dataset_split == "test"
    load = "from transformers import AutoModel, AutoTokenizer; AutoTokenizer.from_pretrained(name); AutoModel.from_pretrained(name)"
    run([sys.executable, "-c", f"name = {repository!r}; {load}"], box, tmp_path)
