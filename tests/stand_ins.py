"""Stand-ins, for tests alone: the architecture, tokenizer kind and columns of real models and data sets, tiny and random."""

import random

from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import DistilBertConfig, DistilBertForMaskedLM, PreTrainedTokenizerFast, set_seed

EMOTIONS = ["sadness", "joy", "love", "anger", "fear", "surprise"]
CONSONANTS, VOWELS = "bdfgklmnprst", "aeiou"
WORDS = [a + b + c for a in CONSONANTS for b in VOWELS for c in ("", "n", "ro")]


# What the proofs run each folder on: sizes that leave a short last batch and, at two batches per step, a short last window
PARAMETERS = {
    "sequence_classification": {
        "checkpoint": "distilbert/distilbert-base-uncased", "dataset_id": "dair-ai/emotion",
        "num_epochs": 5, "batch_size": 4, "learning_rate": 1e-2,
    },
}
NO_DROPOUT = {"sequence_classification": {"checkpoint": "stand-in/no-dropout", "num_epochs": 3}}
# the validation score that chooses the best checkpoint
BEST_BY = {"sequence_classification": "f1"}


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


def emotion(sizes):
    """Columns, names and splits of dair-ai/emotion. Each label prefers words of its own, so that there is something to learn."""
    rng = random.Random(1)
    features = Features({"text": Value("string"), "label": ClassLabel(names=EMOTIONS)})

    def rows(n):
        labels = [i % len(EMOTIONS) for i in range(n)]
        return [{"text": sentence(rng, WORDS + 9 * WORDS[label :: len(EMOTIONS)]), "label": label} for label in labels]

    return DatasetDict({split: Dataset.from_list(rows(n), features=features) for split, n in sizes.items()})


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
    distilbert(store / "models" / "distilbert" / "distilbert-base-uncased", dropout=0.1)
    # the same without dropout, for comparing numbers of processes: a row's dropout depends on the rows drawn beside it
    distilbert(store / "models" / "stand-in" / "no-dropout", dropout=0.0)
    write_dataset(emotion({"train": 57, "validation": 22, "test": 23}), store / "datasets" / "dair-ai" / "emotion")
