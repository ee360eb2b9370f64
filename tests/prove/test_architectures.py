"""Every architecture: tiny random checkpoints, each with a tokenizer of its own kind, through both notebooks of a folder."""

import csv
import json
import re
from functools import lru_cache

import notebooks
import pytest
import torch
from parameters import LEARNABLE
from safetensors.torch import load_file
from scripts import export, job
from stand_ins import CONSONANTS, VOWELS
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AlbertTokenizer,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertTokenizer,
    DebertaV2Tokenizer,
    GemmaTokenizer,
    GPT2Tokenizer,
    LlamaTokenizer,
    MPNetTokenizer,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
    RobertaTokenizer,
    XLMRobertaTokenizer,
    pipeline,
    set_seed,
)

ENCODERS = ["bert", "distilbert", "roberta", "xlm-roberta", "electra", "albert", "mpnet", "deberta-v2", "modernbert"]
DECODERS = ["gpt2", "opt", "llama", "llama-2", "qwen3", "smollm3", "gemma"]
# (folder, architecture) -> what both notebooks say when they refuse it
REFUSED = {("causal_language_modeling", name): r"tiny/\S+ is an encoder \(.*\), .*: choose a decoder, " for name in ENCODERS} | {
    ("causal_language_modeling", "opt"): r"the attention of opt does not stop where position_ids start again, .*: choose a checkpoint of",
}
WORKS = {
    folder: [name for name in (DECODERS if folder == "causal_language_modeling" else ENCODERS) if (folder, name) not in REFUSED]
    for folder in notebooks.folders()
}
PAIRS = [(folder, name) for folder, names in WORKS.items() for name in names]
# fewer epochs, with at least eight steps in all
SHORTER = {
    "sequence_classification": {"num_epochs": 2, "learning_rate": 3e-3},
    "token_classification": {"num_epochs": 2, "learning_rate": 3e-3},
    "masked_language_modeling": {"num_epochs": 2},
    "semantic_search": {"num_epochs": 2},
    "causal_language_modeling": {"num_epochs": 1, "domain_epochs": 1, "instruction_epochs": 1},
}


# ---------------------------------------------------------------------------------------------------- checkpoints


LETTERS = "abcdefghijklmnopqrstuvwxyz"
SYLLABLES = [a + b for a in CONSONANTS for b in VOWELS]


def numbered(pieces):
    return {piece: i for i, piece in enumerate(pieces)}


def word_pieces(special):
    """The vocabulary of a WordPiece tokenizer: syllables and letters, at the beginning of a word and within one."""
    return numbered([*special, *LETTERS, *SYLLABLES, *".,?!'", *(f"##{piece}" for piece in [*LETTERS, "ro"])])


def byte_pieces(special=()):
    """Vocabulary and merges of a byte-level BPE tokenizer: the bytes, syllables, and syllables behind a space."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", a) for a in CONSONANTS] + [(f"Ġ{a}", b) for a in CONSONANTS for b in VOWELS]
    merges += [(a, b) for a in CONSONANTS for b in VOWELS]
    return numbered([*special, *alphabet, *(a + b for a, b in merges)]), merges


def scored_pieces(special):
    """The vocabulary of a Unigram tokenizer: syllables with and without the mark of a space before them, letters and marks."""
    pieces = [(piece, -4.0) for piece in ("▁", *SYLLABLES, *(f"▁{piece}" for piece in SYLLABLES))]
    return [*((piece, 0.0) for piece in special), *pieces, *((letter, -8.0) for letter in LETTERS + ".,?!'")]


def fallback_pieces(special):
    """Vocabulary and merges of a BPE tokenizer over ▁, which spells what it does not know in bytes."""
    merges = [(a, b) for a in CONSONANTS for b in VOWELS] + [("▁", piece) for piece in SYLLABLES]
    spelled = [f"<0x{byte:02X}>" for byte in range(256)]
    return numbered([*special, *spelled, "▁", *LETTERS, *".,?!'\n", *(a + b for a, b in merges)]), merges


def llama_3(special, names, bos=None):
    """Byte-level BPE with the split of Llama 3; its tokenizers have no class of their own."""
    vocab, merges = byte_pieces()
    tokenizer = Tokenizer(models.BPE(vocab, merges, ignore_merges=True))
    split = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(split), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=["input_ids", "attention_mask"], **names)


def modernbert():
    """Byte-level BPE, whose special tokens have the names of BERT's."""
    vocab, merges = byte_pieces()
    tokenizer = Tokenizer(models.BPE(vocab, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    # as in the real one, the mask takes the space before it along
    tokenizer.add_special_tokens([AddedToken(f"[{name}]", lstrip=name == "MASK") for name in ("UNK", "CLS", "SEP", "PAD", "MASK")])
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=512, model_input_names=["input_ids", "attention_mask"], unk_token="[UNK]",
        cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", mask_token=AddedToken("[MASK]", lstrip=True),
    )


BERT_TOKENS, ROBERTA_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], ["<s>", "<pad>", "</s>", "<unk>"]
# Each as the real checkpoints have it: the class, the special tokens and their order, whether there is a greatest length.
TOKENIZERS = {
    "bert": lambda: BertTokenizer(word_pieces(BERT_TOKENS), model_max_length=512),
    "distilbert": lambda: BertTokenizer(word_pieces(BERT_TOKENS), model_max_length=512),
    "electra": lambda: BertTokenizer(word_pieces(BERT_TOKENS), model_max_length=512),
    "mpnet": lambda: MPNetTokenizer(word_pieces([*ROBERTA_TOKENS[:3], "[UNK]", "<mask>"]), model_max_length=512),
    "roberta": lambda: RobertaTokenizer(*byte_pieces([*ROBERTA_TOKENS, "<mask>"]), model_max_length=512),
    "xlm-roberta": lambda: XLMRobertaTokenizer([*scored_pieces(ROBERTA_TOKENS), ("<mask>", 0.0)], model_max_length=512),
    "albert": lambda: AlbertTokenizer(scored_pieces(["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]), model_max_length=512),
    "deberta-v2": lambda: DebertaV2Tokenizer(scored_pieces(["[PAD]", "[CLS]", "[SEP]", "[UNK]"]), unk_id=3),
    "modernbert": modernbert,
    "gpt2": lambda: GPT2Tokenizer(*byte_pieces(["<|endoftext|>"]), model_max_length=512),
    "opt": lambda: GPT2Tokenizer(
        *byte_pieces(ROBERTA_TOKENS), bos_token="</s>", eos_token="</s>", unk_token="</s>", pad_token="<pad>", add_bos_token=True
    ),
    "llama": lambda: llama_3(
        ["<|begin_of_text|>", "<|end_of_text|>"], {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}, "<|begin_of_text|>"
    ),
    "qwen3": lambda: Qwen2Tokenizer(
        *byte_pieces(), eos_token="<|im_end|>", pad_token="<|endoftext|>", extra_special_tokens=["<|im_start|>", "<|im_end|>"]
    ),
    "smollm3": lambda: llama_3(
        ["<|begin_of_text|>", "<|end_of_text|>", "<|im_start|>", "<|im_end|>"], {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    ),
    "gemma": lambda: GemmaTokenizer(
        *fallback_pieces(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"]), add_bos_token=True,
        extra_special_tokens=["<start_of_turn>", "<end_of_turn>"],
    ),
    "llama-2": lambda: LlamaTokenizer(*fallback_pieces(["<unk>", "<s>", "</s>"]), add_bos_token=True),
}

SIZES = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 512,
    "initializer_range": 0.1,  # wide enough to learn something in a few steps
}
FROM_TWO = {**SIZES, "max_position_embeddings": 514, "type_vocab_size": 1}  # positions are counted from the pad token's id + 1
DECODER = {**SIZES, "max_position_embeddings": 512}
CONFIGS = {
    "bert": SIZES, "xlm-roberta": FROM_TWO, "roberta": FROM_TWO, "mpnet": {**SIZES, "max_position_embeddings": 514},
    "distilbert": {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 512, "initializer_range": 0.1},
    "electra": {**SIZES, "embedding_size": 16}, "albert": {**SIZES, "embedding_size": 16},
    # as DeBERTa-v3: no absolute positions, no types
    "deberta-v2": {
        **SIZES, "relative_attention": True, "position_buckets": 16, "pos_att_type": ["p2c", "c2p"], "share_att_key": True,
        "norm_rel_ebd": "layer_norm", "position_biased_input": False, "type_vocab_size": 0,
    },
    "modernbert": {**SIZES, "local_attention": 8, "global_attn_every_n_layers": 2},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512, "initializer_range": 0.1},
    "opt": {"hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 512,
            "word_embed_proj_dim": 32, "init_std": 0.1},
    "llama": {**DECODER, "num_key_value_heads": 2, "tie_word_embeddings": True},
    "llama-2": {**DECODER, "tie_word_embeddings": False},
    "qwen3": {**DECODER, "num_key_value_heads": 2, "head_dim": 16, "tie_word_embeddings": True},
    # the second layer has no rotary positions
    "smollm3": {**DECODER, "num_key_value_heads": 2, "no_rope_layer_interval": 2, "tie_word_embeddings": True},
    "gemma": {**DECODER, "num_key_value_heads": 1, "head_dim": 16},
}


def model_type(name):
    """Checkpoints have the names of their architectures, and of Llama's there are two, with different tokenizers."""
    return "llama" if name == "llama-2" else name


def kind(tokenizer):
    """WordPiece, Unigram, byte-level BPE, or BPE over ▁ with byte fallback."""
    model = tokenizer.backend_tokenizer.model
    if not isinstance(model, models.BPE):
        return type(model).__name__
    return "BPE over ▁ with byte fallback" if model.byte_fallback else "byte-level BPE"


def write_checkpoint(name, folder):
    set_seed(1)
    tokenizer = TOKENIZERS[name]()
    kinds = ("pad", "bos", "eos", "cls", "sep") if name == "modernbert" else ("pad", "bos", "eos")
    ids = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in kinds}
    if name == "modernbert":
        ids |= {"bos_token_id": ids["cls_token_id"], "eos_token_id": ids["sep_token_id"]}
    # as the real one, with more rows in its embeddings than its tokenizer has tokens
    config = AutoConfig.for_model(model_type(name), vocab_size=len(tokenizer) + (9 if name == "qwen3" else 0), **CONFIGS[name] | ids)
    auto = AutoModelForMaskedLM if name in ENCODERS else AutoModelForCausalLM
    auto.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


# ---------------------------------------------------------------------------------------------------- running

@pytest.fixture(scope="session")
def checkpoints(hub):
    """All tiny checkpoints, in the Hub in a box."""
    for name in TOKENIZERS:
        write_checkpoint(name, hub.store / "models" / "tiny" / name)
    return hub.store / "models" / "tiny"


@pytest.fixture(scope="session")
def run_both(checkpoints, scripts, tmp_path_factory):
    """run_both(folder, architecture): a folder in which both notebooks ran as scripts, at the same time, and their exit statuses."""

    @lru_cache
    def run(folder, architecture):
        target = tmp_path_factory.mktemp(f"{folder}-{architecture}") / "run"
        parameters = LEARNABLE[folder] | SHORTER[folder] | {"checkpoint": f"tiny/{architecture}", "gradient_accumulation_steps": 2}
        if "sparse_checkpoint" in parameters:
            parameters["sparse_checkpoint"] = parameters["checkpoint"]
        jobs = []
        for name in notebooks.PAIR:
            script = target / export(folder, name, target, parameters)
            if folder == "semantic_search":
                with open(script, "a", encoding="utf-8") as file:
                    file.write(f'\npd.DataFrame(search("ba be bi", k=3)).to_csv("{name}.csv", index=False)\n')
            jobs.append(job(target, script.name, log=f"{name}.log"))
        return target, scripts.run(*jobs)

    return run


def log(target, name):
    return (target / f"{name}.log").read_text(encoding="utf-8")


def models_of(target):
    return [target / "outputs" / name / "run-001" / "model" for name in notebooks.PAIR]


# ---------------------------------------------------------------------------------------------------- tests


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_comes_back_from_its_checkpoint_as_it_was(checkpoints, name):
    """Some classes build their tokenizer anew from its vocabulary, and the matrix would then try another kind than it says."""
    made, loaded = TOKENIZERS[name](), AutoTokenizer.from_pretrained(checkpoints / name)
    assert type(loaded) is type(made) and kind(loaded) == kind(made)
    assert loaded.special_tokens_map == made.special_tokens_map and loaded.model_max_length == made.model_max_length
    assert loaded.backend_tokenizer.to_str() == made.backend_tokenizer.to_str()
    assert AutoConfig.from_pretrained(checkpoints / name).model_type == model_type(name)


@pytest.mark.parametrize("folder, architecture", PAIRS)
def test_both_notebooks_train_every_architecture_alike_to_the_last_bit(checkpoints, run_both, folder, architecture):
    target, statuses = run_both(folder, architecture)
    assert statuses == [0, 0], "\n".join(log(target, name)[-3000:] for name in notebooks.PAIR)
    trainer, loop = (json.loads((target / f"{name}.json").read_text()) for name in notebooks.PAIR)
    assert len(trainer["losses"]) >= 8
    assert notebooks.largest_difference(trainer["losses"], loop["losses"]) == 0.0
    assert trainer["metrics"] == loop["metrics"]
    one, two = (load_file(model / "model.safetensors") for model in models_of(target))
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    # A pair that does not train proves little: all matrices that have their name in the checkpoint, or within a larger one, have moved.
    before = load_file(checkpoints / architecture / "model.safetensors")
    shared = [(old, new) for old in before for new in one if f".{old}".endswith(f".{new}") and before[old].ndim == 2]
    assert len(shared) > 5 and not any(torch.equal(before[old], one[new]) for old, new in shared)


@pytest.mark.parametrize("folder, architecture", PAIRS)
def test_every_architecture_is_saved_and_used_through_a_pipeline(run_both, folder, architecture):
    target, _ = run_both(folder, architecture)
    for name, model in zip(notebooks.PAIR, models_of(target)):
        assert json.loads((model / "config.json").read_text())["model_type"] == model_type(architecture)
        assert kind(AutoTokenizer.from_pretrained(model)) == kind(TOKENIZERS[architecture]())
        USES[folder](str(model))
        if folder == "semantic_search":
            with open(target / f"{name}.csv", encoding="utf-8", newline="") as file:
                found = list(csv.DictReader(file))
            assert len({row["name"] for row in found}) == 3 and all(-1.001 < float(row["score"]) < 1.001 for row in found)


def classify(model):
    (labels,) = pipeline("text-classification", model=model, top_k=None)(["ba be bi"])
    assert len(labels) == 6 and sum(label["score"] for label in labels) == pytest.approx(1, abs=1e-4)


def find_names(model):
    text = "ba ben biro."
    found = pipeline("token-classification", model=model, ignore_labels=[])(text)
    assert found and all(entity["entity"][:2] in ("O", "B-", "I-") for entity in found)
    assert {text[entity["start"] : entity["end"]].strip() for entity in found} <= {"ba", "be", "n", "bi", "ro", "r", "o", "."}


def fill_mask(model):
    fill = pipeline("fill-mask", model=model)
    assert [len(guess["token_str"]) > 0 for guess in fill(f"ba be {fill.tokenizer.mask_token} bo")] == [True] * 5


def generate(model):
    tell = pipeline("text-generation", model=model)
    said = tell([{"role": "user", "content": "ba be"}], max_new_tokens=4, do_sample=False)[0]["generated_text"]
    assert [message["role"] for message in said] == ["user", "assistant"]
    assert len(tell("ba be", max_new_tokens=4, do_sample=False, return_full_text=True)[0]["generated_text"]) >= len("ba be")


def embed(model):
    (vectors,) = pipeline("feature-extraction", model=model)("ba be bi")
    assert len(vectors) >= 3 and {len(vector) for vector in vectors} == {32}


USES = {
    "sequence_classification": classify, "token_classification": find_names, "masked_language_modeling": fill_mask,
    "causal_language_modeling": generate, "semantic_search": embed,
}


@pytest.mark.parametrize("folder, architecture", REFUSED)
def test_what_cannot_work_is_refused_with_a_cure(run_both, folder, architecture):
    target, statuses = run_both(folder, architecture)
    assert statuses == [1, 1]
    for name, model in zip(notebooks.PAIR, models_of(target)):
        assert re.match("ValueError: " + REFUSED[folder, architecture], log(target, name).splitlines()[-1])
        assert not model.exists()


def test_the_page_says_which_architectures_were_tried_and_with_what_outcome():
    """A cell is "yes", "–" for what was not tried, or says why not; columns have the names of the folders."""
    page = (notebooks.ROOT / ".github" / "machines.md").read_text(encoding="utf-8")
    section = re.search(r"^## Architectures\n(.*?)(?=^##|\Z)", page, flags=re.M | re.S)[1]
    header, _, *rows = ([cell.strip(" `") for cell in line.strip("| ").split("|")] for line in section.splitlines() if line.startswith("|"))
    assert header[:2] == ["architecture", "tokenizer"] and sorted(header[2:]) == notebooks.folders()
    assert {row[0]: row[1] for row in rows} == {name: kind(make()) for name, make in TOKENIZERS.items()}
    cells = {(folder, row[0]): cell for row in rows for folder, cell in zip(header[2:], row[2:], strict=True)}
    assert sorted(pair for pair, cell in cells.items() if cell == "yes") == sorted(PAIRS)
    assert sorted(pair for pair, cell in cells.items() if cell not in ("yes", "–")) == sorted(REFUSED)
