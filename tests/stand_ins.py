"""Stand-ins, for tests alone: the architecture, tokenizer kind and columns of real models and data sets, tiny and random.

    python stand_ins.py STORE      put them into the folder that a Hub in a box serves
"""

import random
import shutil
import sys
from pathlib import Path

import evaluate
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from offline import STORE, metrics
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    set_seed,
)

EMOTIONS = ["sadness", "joy", "love", "anger", "fear", "surprise"]
NER_TAGS = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC"]
CONSONANTS, VOWELS = "bdfgklmnprst", "aeiou"
WORDS = [a + b + c for a in CONSONANTS for b in VOWELS for c in ("", "n", "ro")]


def sentence(rng, words):
    return " ".join(rng.choices(words, k=rng.randint(3, 20)))


def word_piece():
    """A WordPiece tokenizer like BERT's, which cuts each of WORDS into one or two pieces."""
    # written out, not trained: the trainer breaks ties by chance, and the stand-in would be another in every session
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(a + b for a in CONSONANTS for b in VOWELS), "##n", "##ro"]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=128, model_input_names=["input_ids", "attention_mask"], **names
    )


def byte_level():
    """A byte-level BPE tokenizer like GPT-2's and RoBERTa's, which needs `add_prefix_space=True` for words given one by one."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", consonant) for consonant in CONSONANTS] + [(f"Ġ{a}", b) for a in CONSONANTS for b in VOWELS]
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *alphabet, *(a + b for a, b in merges)]
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **names)


def unigram():
    """A Unigram tokenizer like those of SentencePiece (T5, XLM-R), with a mark for the space before a word."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0), ("▁", -4.0), *((a + b, -5.0) for a in CONSONANTS for b in VOWELS)]
    pieces += [(f"▁{a}{b}", -4.0) for a in CONSONANTS for b in VOWELS] + [(letter, -6.0) for letter in "nro"]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=128, eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
    )


def distilbert(folder, dropout):
    set_seed(1)
    tokenizer = word_piece()
    config = DistilBertConfig(
        vocab_size=len(tokenizer), dim=32, n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=128, pad_token_id=0,
        dropout=dropout, attention_dropout=dropout, seq_classif_dropout=2 * dropout,
        initializer_range=0.1,  # wide enough to learn something in a few dozen steps
    )
    DistilBertForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def small_bert(folder, of):
    """A random BERT of 32 numbers a token with the tokenizer of a real checkpoint, whose files are in `of`."""
    set_seed(1)
    config = BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, initializer_range=0.1)
    BertForMaskedLM(config).save_pretrained(folder)
    for file in of.glob("*token*"):
        shutil.copy(file, folder)


def emotion(sizes):
    """Columns, names and splits of dair-ai/emotion. Each label prefers words of its own, so that there is something to learn."""
    rng = random.Random(1)
    features = Features({"text": Value("string"), "label": ClassLabel(names=EMOTIONS)})

    def rows(n):
        labels = [i % len(EMOTIONS) for i in range(n)]
        return [{"text": sentence(rng, WORDS + 9 * WORDS[label :: len(EMOTIONS)]), "label": label} for label in labels]

    return DatasetDict({split: Dataset.from_list(rows(n), features=features) for split, n in sizes.items()})


def conll(sizes):
    """Columns, names and splits of CoNLL-2003. Each type has words of its own, which mostly begin or continue an entity of it."""
    rng = random.Random(1)
    features = Features({
        "id": Value("string"), "tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=NER_TAGS)),
    })

    def row(i):
        tokens, tags = sentence(rng, WORDS).split(), []
        for token in tokens:
            kind = WORDS.index(token) % 12  # eight of the twelve are outside of entities
            before = tags[-1] if tags else 0
            tags.append(0 if kind > 3 or rng.random() < 0.1 else 2 * kind + 2 if before in (2 * kind + 1, 2 * kind + 2) else 2 * kind + 1)
        return {"id": str(i), "tokens": tokens, "ner_tags": tags}

    return DatasetDict({split: Dataset.from_list([row(i) for i in range(n)], features=features) for split, n in sizes.items()})


def imdb(sizes):
    """Columns, names and splits of stanfordnlp/imdb. Few words follow each other in their order, mostly, so that neighbours tell one."""
    rng, words = random.Random(1), WORDS[::15]
    features = Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"])})

    def text(label):
        place, told = rng.randrange(len(words)), []
        for _ in range(rng.randint(6, 20)):
            place = (place + 1) % len(words) if rng.random() < 0.9 else rng.randrange(label, len(words), 2)
            told.append(words[place])
        return " ".join(told)

    return DatasetDict({
        split: Dataset.from_list([{"text": text(i % 2), "label": i % 2} for i in range(n)], features=features) for split, n in sizes.items()
    })


def llama(folder):
    """A checkpoint of the architecture of SmolLM2-135M, with its kind of tokenizer and its special tokens."""
    set_seed(1)
    tokenizer = byte_level()
    tokenizer.pad_token = None
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=512, tie_word_embeddings=True, initializer_range=0.1,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def smoltalk(sizes):
    """Columns and splits of HuggingFaceTB/smol-smoltalk: conversations, whose answers repeat a word of the request."""
    rng = random.Random(1)

    def row():
        asked = rng.sample(WORDS, 3)
        said = [{"role": "user", "content": " ".join(asked)}, {"role": "assistant", "content": " ".join([asked[0]] * rng.randint(1, 4))}]
        return {"messages": said, "source": "stand-in"}

    return DatasetDict({split: Dataset.from_list([row() for _ in range(n)]) for split, n in sizes.items()})


def passages(n):
    """Texts with an id, of two sentences that share their words."""
    rng = random.Random(1)
    rows = []
    for i in range(n):
        words = rng.sample(WORDS, 8)
        rows.append({"id": f"p{i}", "text": f"{' '.join(words)} {words[0]}. {' '.join(rng.choices(words, k=24))}."})
    return DatasetDict(train=Dataset.from_list(rows))


def questions(sizes, texts):
    """Questions in words of the text that answers them, each text answering one.

    Every fourth of the test has a single word of its text and four of the next one, so that no search by words finds all.
    """
    rng, splits, used = random.Random(2), DatasetDict(), 0
    for split, n in sizes.items():
        rows = [
            {"question": " ".join(rng.sample(texts[i]["text"].replace(".", "").split(), 5)), "answers": [texts[i]["id"]], "since": [""]}
            for i in range(used, used + n)
        ]
        if split == "test":
            for row, i in list(zip(rows, range(used, used + n)))[::4]:
                row["question"] = " ".join([row["question"].split()[0], *texts[i + 1]["text"].replace(".", "").split()[:4]])
        splits[split], used = Dataset.from_list(rows), used + n
    return splits


def write_dataset(splits, folder):
    """Write parquet files and the card that names the features, as push_to_hub does."""
    (folder / "data").mkdir(parents=True)
    card = ["---", "configs:", "- config_name: default", "  data_files:"]
    for name, split in splits.items():
        split.to_parquet(folder / "data" / f"{name}-00000-of-00001.parquet")
        card += [f"  - split: {name}", f"    path: data/{name}-*"]
    (folder / "README.md").write_text("\n".join([*card, "---", ""]))


def write_stand_ins(store):
    """Put all stand-ins into the folder that a Hub in a box serves, under the names of what they stand for."""
    for real in ("sentence-transformers/all-MiniLM-L6-v2", "rasyosef/splade-tiny"):
        small_bert(store / "models" / "stand-in" / Path(real).name, STORE / "models" / real)
    for name in ("distilbert-base-uncased", "distilbert-base-cased"):
        distilbert(store / "models" / "distilbert" / name, dropout=0.1)
    # the same without dropout, for comparing numbers of processes: a row's dropout depends on the rows drawn beside it
    distilbert(store / "models" / "stand-in" / "no-dropout", dropout=0.0)
    sizes = {"train": 57, "validation": 22, "test": 23}
    write_dataset(emotion(sizes), store / "datasets" / "dair-ai" / "emotion")
    texts = passages(200)
    write_dataset(texts, store / "datasets" / "stand-in" / "passages")
    write_dataset(questions({"train": 25, "validation": 11, "test": 12}, texts["train"]), store / "datasets" / "stand-in" / "questions")
    llama(store / "models" / "HuggingFaceTB" / "SmolLM2-135M")
    stories = imdb({"train": 101, "validation": 21}).remove_columns("label")
    write_dataset(stories, store / "datasets" / "roneneldan" / "TinyStories")
    write_dataset(smoltalk({"train": 51, "test": 17}), store / "datasets" / "HuggingFaceTB" / "smol-smoltalk")
    write_dataset(imdb({"train": 47, "test": 23, "unsupervised": 5}), store / "datasets" / "stanfordnlp" / "imdb")
    write_dataset(conll(sizes), store / "datasets" / "lhoestq" / "conll2003")
    # so that no cell whose output is compared shows the bar of a first download
    evaluate.utils.logging.disable_progress_bar()
    for name in metrics():
        evaluate.load(name)
    (store / "complete").touch()


if __name__ == "__main__":
    write_stand_ins(Path(sys.argv[1]))
