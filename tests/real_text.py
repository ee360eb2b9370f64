"""Pretrain causal_language_modeling on text that nobody generated: the documentation of Python's standard library.

    make realtext       stage 1 of the loop notebook; bits per byte on the test split, beside two compressors

The texts are those of masked_language_modeling, in their splits. The compressors are judged on the same bytes: what the test texts add
to the compressed training texts, so that they, too, know the training texts. All are lossless descriptions of the test texts, if we
leave out the model and the tokenizer themselves, and a smaller number is better.
"""

import bz2
import lzma
import shutil

import growth
import notebooks

FOLDER = "causal_language_modeling"
MORE = """
rows = []  # whole documents in pieces that the model can read, so that every token is a target once
for document in test_documents["first world"]:
    ids = [*document, tokenizer.eos_token_id]
    pieces = [ids[start:start + context] for start in range(0, len(ids) - 1, context - 1)]
    rows += [{"input_ids": piece, "labels": piece} for piece in pieces]
num_tokens = sum(len(row["input_ids"]) - 1 for row in rows)
num_bytes = sum(len(text.encode()) + 1 for text in woods["test"]["text"])  # one for the end of a text, which is a token, too
for name, model in {"before training": new_model().to(device), "after training": pretrained}.items():
    nats = math.log(perplexity(model, rows))
    bits = nats / math.log(2) * num_tokens / num_bytes
    print(f"MEASURED {name}: {bits:.2f} bits per byte, perplexity {math.exp(nats):,.1f}")
print(f"MEASURED {num_tokens:,} tokens in {num_bytes:,} bytes of the test split")
"""


def main():
    work = notebooks.RUNS / "real_text"
    shutil.rmtree(work, ignore_errors=True)
    texts = notebooks.common_of("masked_language_modeling").load_splits("stdlib", None, {})
    for split in texts:
        growth.write_rows(work / "data" / f"{split}.jsonl", [{"text": text} for text in texts[split]["text"]])
    train, test = ("\0".join(texts[split]["text"]).encode() for split in ("train", "test"))
    print(f"{len(texts['train']):,} texts with {len(train):,} bytes for training, {len(texts['test']):,} with {len(test):,} for the test")
    compressors = {
        "bzip2": lambda data: bz2.compress(data, 9),
        "xz": lambda data: lzma.compress(data, preset=9 | lzma.PRESET_EXTREME),
    }
    for name, compress in compressors.items():
        added = len(compress(train + b"\0" + test)) - len(compress(train))
        print(f"{name}: {8 * added / len(test):.2f} bits per byte, {8 * len(compress(test)) / len(test):.2f} without the training texts")
    parameters = {"dataset_id": str(work / "data"), "num_epochs": 5}
    print(growth.measured(growth.loop_script(FOLDER, work / "loop", parameters, MORE), "run.py"))


if __name__ == "__main__":
    main()
