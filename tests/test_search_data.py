"""semantic_search/ with other people's encoders, collections and questions: what comes out is right, or the error says why it can't be."""

import csv
import json
import os
import shutil
import socket
import sys

import bm25s
import faiss
import huggingface_hub
import notebooks
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
import torch.nn.functional as F
from conftest import once
from datasets import Dataset
from huggingface_hub.errors import HFValidationError
from notebooks import PAIR
from oracles import cell_that_makes, definitions
from scripts import export, job, outcomes
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from stand_ins import CONSONANTS, VOWELS
from tokenizers import processors
from transformers import AutoModel, AutoTokenizer, Qwen2Tokenizer, Qwen3Config, Qwen3Model, set_seed

FOLDER = "semantic_search"
common = notebooks.common_of(FOLDER)
reading = sys.modules["reading"]
TEXTS = ["put names in order", "a longer one " * 40, "x", "how do I glue strings together?"]


# ---------------------------------------------------------------------------------------------------- encoders


def prepared(folder, query_prompt=None, document_prompt=None):
    """Tokenizer, encoder, pooling and prompts, as the notebooks load them."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    tokenizer.padding_side = "right"
    pooling, query_prompt, document_prompt, made_for = common.read_settings(str(folder), tokenizer, query_prompt, document_prompt)
    encoder = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer.model_max_length = made_for
    return tokenizer, encoder, pooling, {"query": query_prompt, "document": document_prompt}


def vectors(tokenizer, encoder, pooling, prompt, texts=TEXTS):
    inputs = tokenizer([prompt + text for text in texts], padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        return common.pool(encoder(**inputs).last_hidden_state, inputs["attention_mask"], pooling).numpy()


def write(folder, **files):
    for name, content in files.items():
        path = folder / f"{name.replace('__', '/')}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))


def modules(*kinds):
    paths = {"Transformer": "", "Pooling": "1_Pooling"}
    return [
        {"idx": i, "name": str(i), "path": paths.get(kind, f"{i}_{kind}"), "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]


def old(**modes):
    """1_Pooling/config.json as most checkpoints on the Hub have it."""
    every = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    return {"word_embedding_dimension": 32} | {f"pooling_mode_{name}": modes.get(name, False) for name in every}


@pytest.fixture
def bert(hub, tmp_path):
    """A copy of a tiny BERT with the tokenizer of a real one, and nothing that says how it pools."""
    return shutil.copytree(hub.store / "models" / "stand-in" / "all-MiniLM-L6-v2", tmp_path / "bert")


def written_now(bert, mode):
    """An encoder as the newest sentence-transformers saves it, which keeps the length in the tokenizer."""
    parts = [Transformer(str(bert), max_seq_length=40), Pooling(32, mode), Normalize()]
    SentenceTransformer(modules=parts, prompts={"query": "ask: ", "document": "tell: "}, device="cpu").save(str(bert.parent / "now"))
    return bert.parent / "now"


def written_before(bert, mode):
    """An encoder as on the Hub, with a key for each way of pooling and a prompt for questions alone."""
    names = {"mean": "mean_tokens", "cls": "cls_token", "lasttoken": "lasttoken"}
    prompts = {"prompts": {"query": "Represent this: "}, "default_prompt_name": None}
    write(bert, modules=modules("Transformer", "Pooling"), **{"1_Pooling__config": old(**{names[mode]: True})},
          sentence_bert_config={"max_seq_length": 12, "do_lower_case": True}, config_sentence_transformers=prompts)
    return bert


def qwen(folder):
    """An encoder like Qwen3-Embedding: a decoder whose tokenizer ends every text with a token and pads on the left."""
    set_seed(1)
    pieces = ["<|endoftext|>", "Ġ", *CONSONANTS, *VOWELS, ":", *(a + b for a in CONSONANTS for b in VOWELS)]
    tokenizer = Qwen2Tokenizer({piece: i for i, piece in enumerate(pieces)}, [(a, b) for a in CONSONANTS for b in VOWELS],
                               eos_token="<|endoftext|>", pad_token="<|endoftext|>", padding_side="left", model_max_length=100)
    end = processors.TemplateProcessing(single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", 0)])
    tokenizer.backend_tokenizer.post_processor = end
    tokenizer.save_pretrained(folder)
    Qwen3Model(Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=16, max_position_embeddings=512, initializer_range=0.1,
    )).save_pretrained(folder)
    write(folder, modules=modules("Transformer", "Pooling", "Normalize"), **{"1_Pooling__config": old(lasttoken=True)},
          config_sentence_transformers={"prompts": {"query": "be:", "document": ""}, "default_prompt_name": None})
    return folder


@pytest.mark.parametrize("saved_by", [written_now, written_before])
@pytest.mark.parametrize("mode", ["mean", "cls", "lasttoken"])
def test_vectors_are_those_of_sentence_transformers_however_a_checkpoint_pools(bert, saved_by, mode):
    folder = saved_by(bert, mode)
    theirs = SentenceTransformer(str(folder), device="cpu")
    tokenizer, encoder, pooling, prompts = prepared(folder)
    assert pooling == mode and prompts["query"]
    for side, prompt in prompts.items():
        expected = theirs.encode(TEXTS, prompt_name=side, normalize_embeddings=True)
        assert np.abs(vectors(tokenizer, encoder, pooling, prompt) - expected).max() < 1e-6, side


@pytest.mark.parametrize("mode", ["mean", "cls", "lasttoken"])
def test_sentence_transformers_reads_the_saved_folder_as_it_was_meant(bert, mode, tmp_path):
    tokenizer, encoder, pooling, prompts = prepared(written_before(bert, mode), document_prompt="passage: ")
    for part in (tokenizer, encoder):
        part.save_pretrained(tmp_path / "saved")
    common.save_settings(tmp_path / "saved", 32, pooling, prompts["query"], prompts["document"], 12)
    theirs = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert prompts == theirs.prompts == {"query": "Represent this: ", "document": "passage: "}
    for side, prompt in prompts.items():
        ours = vectors(tokenizer, encoder, pooling, prompt)
        assert np.abs(theirs.encode(TEXTS, prompt_name=side) - ours).max() < 1e-6, side
    again = prepared(tmp_path / "saved")
    assert again[2:] == (pooling, prompts) and again[0].model_max_length == 12


def test_a_decoder_gives_the_vector_of_the_token_that_ends_a_text(tmp_path):
    texts = ["ba be bi", "ba " * 300, "bo"]
    folder = qwen(tmp_path / "qwen")
    theirs = SentenceTransformer(str(folder), device="cpu")
    tokenizer, encoder, pooling, prompts = prepared(folder)
    assert pooling == "lasttoken" and prompts == {"query": "be:", "document": ""}
    assert tokenizer("ba")["input_ids"][-1] == tokenizer.eos_token_id and theirs.tokenizer.padding_side == "left"
    for side, prompt in prompts.items():
        expected = theirs.encode(texts, prompt_name=side, normalize_embeddings=True)
        assert np.abs(vectors(tokenizer, encoder, pooling, prompt, texts) - expected).max() < 1e-6, side


def test_pooling_looks_at_the_mask_and_not_at_the_side_of_the_padding():
    hidden = torch.tensor([[[1.0, 0.0], [0.6, 0.8], [9.0, 9.0]], [[9.0, 9.0], [0.0, 1.0], [0.8, 0.6]]])
    mask = torch.tensor([[1, 1, 0], [0, 1, 1]])
    assert torch.allclose(common.pool(hidden, mask, "cls"), torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    assert torch.allclose(common.pool(hidden, mask, "lasttoken"), torch.tensor([[0.6, 0.8], [0.8, 0.6]]))
    assert torch.allclose(common.pool(2 * hidden, mask, "mean", normalize=False), torch.tensor([[1.6, 0.8], [0.8, 1.6]]))


@pytest.mark.parametrize("files, named", [
    ({"modules": modules("Transformer", "Pooling", "Dense")}, "Dense"),
    ({"modules": modules("Transformer")}, "without Pooling"),
    ({"modules": [*modules("Pooling"), {"idx": 1, "name": "1", "path": "", "type": "custom_st.Transformer"}]}, "custom_st.Transformer"),
    ({"modules": modules("Transformer", "Pooling"), "1_Pooling__config": old(max_tokens=True)}, "the pooling max"),
    ({"modules": modules("Transformer", "Pooling"), "1_Pooling__config": old(cls_token=True, mean_tokens=True)}, "pooling cls and mean"),
    ({"modules": modules("Transformer", "Pooling"), "1_Pooling__config": {"pooling_mode": "weightedmean"}}, "the pooling weightedmean"),
    ({"modules": modules("Transformer", "Pooling"), "1_Pooling__config": {"pooling_mode": ["mean", "max"]}}, "pooling mean and max"),
    ({"modules": modules("Transformer", "Pooling"), "1_Pooling__config": {**old(mean_tokens=True), "include_prompt": False},
      "config_sentence_transformers": {"prompts": {"query": "ask: "}}}, "include_prompt"),
])
def test_what_a_checkpoint_asks_for_and_we_cannot_do_is_named(bert, files, named):
    write(bert, **files)
    with pytest.raises(ValueError, match=f"asks for .*{named}.*, which these notebooks can't do: choose"):
        prepared(bert)


def test_a_layer_on_top_that_sentence_transformers_saved_is_refused(bert):
    parts = [Transformer(str(bert)), Pooling(32, "mean"), Dense(32, 16)]
    SentenceTransformer(modules=parts, device="cpu").save(str(bert.parent / "dense"))
    with pytest.raises(ValueError, match=r"asks for sentence_transformers\S+\.Dense, which"):
        prepared(bert.parent / "dense")


@pytest.mark.parametrize("saved, given, expected", [
    ({"prompts": {"query": "q: ", "passage": "p: ", "clustering": "c: "}}, {}, ("q: ", "p: ")),
    ({"prompts": {"general": "g: "}, "default_prompt_name": "general"}, {}, ("g: ", "g: ")),
    ({"prompts": {"query": "q: "}, "default_prompt_name": "query"}, {}, ("q: ", "")),
    ({"prompts": {"query": "q: ", "document": "d: "}}, {"query_prompt": "", "document_prompt": "e: "}, ("", "e: ")),
    ({}, {"query_prompt": "query: ", "document_prompt": "passage: "}, ("query: ", "passage: ")),
    ({}, {}, ("", "")),
])
def test_prompts_come_from_the_checkpoint_or_from_the_parameters(bert, saved, given, expected):
    write(bert, modules=modules("Transformer", "Pooling"), config_sentence_transformers=saved)
    assert tuple(prepared(bert, **given)[3].values()) == expected


def test_a_name_on_the_hub_is_read_like_a_folder_and_what_it_does_not_say_is_said(hub, capsys):
    """By its API, as from_pretrained reads it."""
    name = "sentence-transformers/all-MiniLM-L6-v2"
    assert common.read_settings(name, AutoTokenizer.from_pretrained(name)) == ("mean", "", "", 256)
    assert "modules.json" not in capsys.readouterr().out
    name = "stand-in/all-MiniLM-L6-v2"
    assert common.read_settings(name, AutoTokenizer.from_pretrained(name))[0] == "mean"
    assert f"{name} doesn't say how it pools (there is no modules.json): we take the mean" in capsys.readouterr().out


def test_files_that_are_not_in_the_cache_are_no_error_when_offline(hub, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    tokenizer = AutoTokenizer.from_pretrained(hub.store / "models" / "stand-in" / "all-MiniLM-L6-v2")
    assert common.read_settings("someone/encoder", tokenizer, "query: ")[:3] == ("mean", "query: ", "")
    assert "we take the mean" in capsys.readouterr().out


# ---------------------------------------------------------------------------------------------------- texts and questions

WANTED = [["d01"], ["d01", "d02"], ["d03"]]
ASKED = ["who?", "what?", "why?"]


def csv_file(path, names, *columns):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([names, *zip(*columns)])


@pytest.mark.parametrize("cells", [
    ["d01", "d01;d02", "d03"], ["d01", "d01 d02", "d03"], ["d01", "d01 | d02", "d03"], ['["d01"]', '["d01", "d02"]', '["d03"]'],
    ["['d01']", "['d01', 'd02']", "['d03']"], ["['d01']", "['d01' 'd02']", "['d03']"], ["[d01]", "[d01,d02]", "d03"],
])
def test_cells_of_csv_hold_one_answer_or_several(tmp_path, cells):
    csv_file(tmp_path / "q.csv", ["question", "answers"], ASKED * 10, cells * 10)
    splits = common.load_questions(str(tmp_path / "q.csv"), ["d01", "d02", "d03"], {})
    found = [row for rows in splits.values() for row in rows]
    assert {row["question"]: row["answers"] for row in found} == dict(zip(ASKED, WANTED)) and len(found) == 30


def test_an_id_with_blanks_or_marks_in_it_stays_whole(tmp_path):
    csv_file(tmp_path / "q.csv", ["question", "answers"], ASKED * 10, ["how to pay; or not", '["how to pay; or not", "b c"]', "b c"] * 10)
    splits = common.load_questions(str(tmp_path / "q.csv"), ["how to pay; or not", "b c"], {})
    found = {row["question"]: row["answers"] for rows in splits.values() for row in rows}
    assert found == dict(zip(ASKED, [["how to pay; or not"], ["how to pay; or not", "b c"], ["b c"]]))


@pytest.mark.parametrize("ids, answers", [
    (["0001", "0002"], ["0002", "0001"]), ([1, 2], [2, 1]), ([1, 2], [[2], [1]]), ([1, 2], ["2", "1"]), (["1", "2"], [2.0, 1.0]),
    ([1.0, 2.0], [2, 1]), (["d1", "d2"], [["d2", "d2", None], ["d1"]]),
])
def test_numbers_words_and_leading_zeros_are_the_same_ids_on_both_sides(tmp_path, ids, answers):
    for form in ("parquet", "csv") if not isinstance(answers[0], list) else ("parquet",):
        for name, rows in {"t": {"id": ids, "text": ["One.", "Two."]}, "q": {"question": ["a", "b"] * 9, "answers": answers * 9}}.items():
            table = pd.DataFrame(rows)
            if form == "csv":
                table.to_csv(tmp_path / f"{name}.csv", index=False)
            else:
                pa.parquet.write_table(pa.Table.from_pandas(table), tmp_path / f"{name}.parquet")
        if form == "csv" and (type(ids[0]) is float) != (type(answers[0]) is float):
            continue  # a CSV says 1.0 as it says 0001
        texts = common.load_collection(str(tmp_path / f"t.{form}"), {})
        splits = common.load_questions(str(tmp_path / f"q.{form}"), texts["id"][:], {})
        assert {row["question"]: row["answers"] for rows in splits.values() for row in rows} == {
            "a": [texts["id"][1]], "b": [texts["id"][0]]}


def test_parquet_as_polars_writes_it_is_read(tmp_path):
    text = pa.large_string()
    table = pa.table({"question": pa.array(ASKED * 9, text), "answers": pa.array(WANTED * 9, pa.large_list(text))})
    pa.parquet.write_table(table, tmp_path / "q.parquet")
    splits = common.load_questions(str(tmp_path / "q.parquet"), ["d01", "d02", "d03"], {})
    assert {tuple(row["answers"]) for rows in splits.values() for row in rows} == set(map(tuple, WANTED))


def test_one_file_of_questions_gives_three_splits_and_new_wordings_of_known_answers_are_announced(tmp_path, capsys):
    csv_file(tmp_path / "q.csv", ["query", "answers"], [f"wording {i}" for i in range(40)], [f"d{i % 4}" for i in range(40)])
    splits = common.load_questions(str(tmp_path / "q.csv"), [f"d{i}" for i in range(4)], {"question": "query"})
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 26, "validation": 8, "test": 6}
    said = capsys.readouterr().out
    assert "6 of the 6 test questions have an answer that training questions have too: for these, the test measures whether new" in said
    assert "in 'train' too, which makes" not in said, "no question comes twice"


@pytest.mark.parametrize("ids, answers", [
    (["1", "7", "20"], ["0007", "07", 7, 7.0, "7.0", " 7"]), (["0001", "0007", "0020"], ["7", "007", 7.0, ["7"]]), ([" a 7"], ["a 7"]),
    (["a, b", "7", "c d"], [["7", "c d"], "7; c d", "c d|7", "007,c d", "['7', 'c d']"]), (["7", "07"], ["07"]),
], ids=["numbers", "zeros before", "blanks around", "blanks inside", "as it stands"])
def test_an_id_is_found_as_it_stands_or_as_the_same_number(ids, answers):
    known = {reading.plain(name): name for name in ids} | {name: name for name in ids}
    wanted = {"7", "c d"} if "c d" in ids else {next(name for name in reversed(ids) if "7" in name)}
    assert [set(reading.as_ids(cell, known)) for cell in answers] == [wanted] * len(answers)


def test_ids_that_a_table_has_with_zeros_or_decimals_are_the_same(tmp_path):
    csv_file(tmp_path / "q.csv", ["question", "answers"], [f"wording {i}" for i in range(40)], [f"{i % 4}.0" for i in range(40)])
    splits = common.load_questions(str(tmp_path / "q.csv"), ["000", "001", "002", "003"], {})
    assert {name for rows in splits.values() for names in rows["answers"] for name in names} == {"000", "001", "002", "003"}


@pytest.mark.parametrize("since", [[2024], ["2024-01-01"], ["spring"]])
def test_a_column_since_that_has_no_versions_of_python_is_left_alone(tmp_path, since):
    rows = [{"question": f"wording {i}", "answers": ["a"], "since": since} for i in range(40)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert common.load_questions(str(tmp_path / "q.jsonl"), ["a"], {})["test"][0]["answers"] == ["a"]


def test_an_answer_that_is_not_there_is_told_with_the_question_and_with_ids_that_are(tmp_path):
    csv_file(tmp_path / "q.csv", ["question", "answers"], [f"wording {i}" for i in range(40)], ["D1"] * 40)
    with pytest.raises(ValueError, match="'wording .*those of the collection are like .'d1', 'd2'.: correct them"):
        common.load_questions(str(tmp_path / "q.csv"), ["d1", "d2"], {})


@pytest.mark.parametrize("nested", [["One.", "Two."], {"body": "One."}])
def test_texts_and_questions_that_are_lists_or_dicts_are_refused(tmp_path, nested):
    (tmp_path / "c.jsonl").write_text(json.dumps({"id": "a", "text": nested}) + "\n")
    with pytest.raises(ValueError, match="c.jsonl has the text .*One.*which is not a text"):
        common.load_collection(str(tmp_path / "c.jsonl"), {})
    (tmp_path / "q.jsonl").write_text((json.dumps({"question": nested, "answers": "a"}) + "\n") * 40)
    with pytest.raises(ValueError, match="row 0 of split 'train' has the question .*One.*write the question as one text"):
        common.load_questions(str(tmp_path / "q.jsonl"), ["a"], {})


@pytest.mark.parametrize("row, columns, missing", [
    ({"body": "One.", "id": "a"}, {}, "text"), ({"text": "One."}, {}, "id"), ({"id": "a", "text": "One."}, {"text": "passage"}, "passage"),
])
def test_a_collection_without_ids_or_texts_is_refused(tmp_path, row, columns, missing):
    (tmp_path / "c.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(ValueError, match=f"c.jsonl has no column .'{missing}'., only .*: each text needs an id, .* map them"):
        common.load_collection(str(tmp_path / "c.jsonl"), columns)


def test_answers_of_their_own_and_a_column_since_that_is_a_date_are_left_alone(tmp_path, capsys):
    for k, split in enumerate(("train", "validation", "test")):
        rows = [{"question": f"{split} {i}", "answers": f"{k}-{i}", "since": "2024-01-01"} for i in range(4)]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    splits = common.load_questions(str(tmp_path), [f"{k}-{i}" for k in range(3) for i in range(4)], {})
    assert splits["test"]["answers"][:] == [[f"2-{i}"] for i in range(4)] and capsys.readouterr().out.count("new wordings") == 0


def test_a_subset_of_a_data_set_is_taken_by_its_name_and_texts_of_all_splits_are_searched(tmp_path):
    corpus = "- config_name: corpus\n  data_files:\n  - split: a\n    path: a.jsonl\n  - split: b\n    path: b.jsonl\n"
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{corpus}- config_name: queries\n  data_files: q.jsonl\n---\n")
    for name, row in {"a": {"_id": 1, "text": "One."}, "b": {"_id": 2, "text": "Two."}, "q": {"question": "who", "answers": [2]}}.items():
        (tmp_path / f"{name}.jsonl").write_text((json.dumps(row) + "\n") * (20 if name == "q" else 1))
    texts = common.load_collection(str(tmp_path), {"id": "_id"}, "corpus")
    assert texts.to_list() == [{"id": "1", "summary": "One.", "text": "One."}, {"id": "2", "summary": "Two.", "text": "Two."}]
    assert common.load_questions(str(tmp_path), texts["id"][:], {}, "queries")["test"][0] == {"question": "who", "answers": ["2"]}


# ---------------------------------------------------------------------------------------------------- scripts without spaces

CHINESE = [
    "水壶要用醋擦干净再冲洗两次。然后把它放在太阳下晒干，第二天再收进柜子里面，请不要用热水。",
    "帐篷应该放在干燥的箱子里。每个月打开检查一次有没有虫子，如果有的话就要马上处理，不能等到夏天。",
    "收音机坏了就先打开外壳看看。找到松了的线以后把它压回去，再把外壳装好，用螺丝刀拧紧就可以了。",
]


def test_the_first_sentence_of_a_script_without_spaces_ends_at_its_own_mark_and_can_be_a_question(tmp_path):
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(CHINESE)))
    texts = common.load_collection(str(tmp_path / "t.jsonl"), {})
    assert texts["summary"][:] == [text[: text.index("。") + 1] for text in CHINESE]
    pairs = common.sentence_pairs(texts, 9, 0, set())
    assert {(pair["question"], pair["document"]) for pair in pairs} == {
        (text[: text.index("。") + 1], text[text.index("。") + 1:]) for text in CHINESE}


@pytest.mark.parametrize("text, words", [
    ("把水壶 a b2 tent", ["把", "水", "壶", "b2", "tent"]), ("กางเต็นท์", list("กางเต็นท์")),
    ("Don't re-sort 3 lists", ["Don", "re", "sort", "lists"]), ("Наука ist groß", ["Наука", "ist", "groß"]),
])
def test_words_are_characters_where_nothing_stands_between_words(text, words):
    (found,) = bm25s.tokenize([text], lower=False, stopwords=None, token_pattern=common.WORD, return_ids=False, show_progress=False)
    assert found == words


def test_keyword_search_finds_texts_without_spaces():
    """With the cells of the notebook; the usual pattern takes whole clauses for words, and finds nothing."""
    here = cell_that_makes(
        FOLDER, PAIR[0], "bm25", bm25s=bm25s, np=np, pd=pd, common=common, ids=[0, 1, 2], texts=CHINESE,
        test_questions=["收音机怎么修", "怎么洗水壶"], test_labels=[[2], [0]],
    )
    assert here["baseline_scores"]["BM25"]["recall@1"] == 1.0


def test_texts_with_the_same_rest_make_no_pairs():
    """Else each would be a wrong answer to the other's first sentence."""
    rest = " Please write to our support, with your number, and we will be glad to help you within a day or two."
    first = {"sail": "About the sail there is.", "tent": "About the tent there is.", "boat": "About the boat we know."}
    more = {"boat": " Or come by."}
    rows = [{"id": name, "summary": start, "text": start + rest + more.get(name, "")} for name, start in first.items()]
    assert [pair["id"] for pair in common.sentence_pairs(Dataset.from_list(rows), 9, 0, set())] == ["boat"]


# ---------------------------------------------------------------------------------------------------- what is right is not wrong


@pytest.fixture(scope="module", params=PAIR)
def losses_of(request):
    return definitions(FOLDER, request.param, "compute_cosines", "compute_loss", "validate", torch=torch, F=F, temperature=0.1)


def outputs(seed=0, n=6, per_question=2, width=8):
    generator = torch.Generator().manual_seed(seed)
    queries, documents = torch.randn(n, width, generator=generator), torch.randn(n, per_question, width, generator=generator)
    texts = torch.arange(n * per_question).view(n, per_question)
    right = torch.cat([texts[:, :1], torch.full((n, 2), -1)], dim=1)
    return {"queries": F.normalize(queries, dim=-1), "documents": F.normalize(documents, dim=-1), "texts": texts, "right": right}


def test_where_every_text_answers_one_question_the_loss_is_that_of_all_texts_to_the_last_bit(losses_of):
    compute_cosines, compute_loss, _ = losses_of
    given = outputs()
    for side in ("queries", "documents"):
        given[side].requires_grad_()
    loss = compute_loss(given, torch.zeros(6, dtype=torch.long))
    gradients = torch.autograd.grad(loss, [given["queries"], given["documents"]])
    plain = F.cross_entropy(given["queries"] @ given["documents"].flatten(0, 1).T / 0.1, torch.arange(0, 12, 2), reduction="sum") / 6
    expected = torch.autograd.grad(plain, [given["queries"], given["documents"]])
    assert loss.item() == plain.item() and all(torch.equal(one, two) for one, two in zip(gradients, expected))


def test_no_text_that_is_right_for_a_question_counts_as_wrong(losses_of):
    """Questions 0 and 1 share an answer; the negative of 2 is an answer of 3; 4 has a second answer, which 5 owns."""
    compute_cosines, compute_loss, validate = losses_of
    given = outputs()
    given["texts"][1, 0] = given["right"][1, 0] = given["texts"][0, 0]
    given["right"][3, 1] = given["texts"][2, 1]
    given["right"][4, 2] = given["texts"][5, 0]
    left_out = {0: [2], 1: [0], 3: [5], 4: [10]}
    cosines = given["queries"] @ given["documents"].flatten(0, 1).T
    found, columns = compute_cosines(**given)
    assert columns.tolist() == [0, 2, 4, 6, 8, 10]
    total, reciprocal = 0, []
    for i, row in enumerate(cosines):
        kept = [j for j in range(12) if j not in left_out.get(i, [])]
        assert torch.isneginf(found[i]).nonzero().flatten().tolist() == left_out.get(i, [])
        total += F.cross_entropy(row[kept][None] / 0.1, torch.tensor([kept.index(2 * i)])).item()
        rank = 1 + sum(row[j] > row[2 * i] for j in kept).item()
        reciprocal.append(1 / rank if rank <= 10 else 0)
    assert compute_loss(given, torch.zeros(6, dtype=torch.long)).item() == pytest.approx(total / 6, rel=1e-5)
    assert validate(**given) == pytest.approx({"loss": total / 6, "mrr@10": np.mean(reciprocal)}, rel=1e-5)


@pytest.mark.parametrize("name", PAIR)
def test_mined_negatives_answer_nothing_and_are_none_where_no_text_is_left(name, capsys):
    texts = ["sail", "tent", "boat", "sail", "lamp", "rope", "wire", "bell"]  # the first and the fourth are the same
    ids = [f"d{i}" for i in range(8)]
    given = {"ids": ids, "position": {name: i for i, name in enumerate(ids)}, "texts": texts, "numbers": [0, 1, 2, 0, 4, 5, 6, 7]}
    embed = lambda encoder, some, prompt="": np.eye(8, dtype=np.float32)[[texts.index(text) for text in some]]
    nearest = definitions(FOLDER, name, "nearest", faiss=faiss, top_k=8)
    add_negatives = definitions(
        FOLDER, name, "add_negatives", embed=embed, nearest=nearest, pretrained_encoder=None, query_prompt="", most_answers=3,
        pretrained_vectors=np.eye(8, dtype=np.float32), **given,
    )
    pairs = [{"question": "sail", "id": "d0", "document": "sail", "answers": ["d0", "d1"]},
             {"question": "boat", "id": "d2", "document": "boat", "answers": ["d2"]}]
    rows = add_negatives(pairs, 2, {"d0", "d1", "d2"}, skip=0)
    for row in rows:
        assert len(row["negatives"]) == 2 and not {"sail", "tent", "boat"} & set(row["negatives"])
    assert [row["texts"][0] for row in rows] == [0, 2] and [row["right"] for row in rows] == [[0, 1, -1], [2, -1, -1]]
    assert "mined" not in capsys.readouterr().out
    for row in add_negatives(pairs, 2, set(ids) - {"d7"}, skip=1):
        assert row["negatives"] == [] and len(row["texts"]) == 1
    assert "0 mined negatives for each question: no more texts are left" in capsys.readouterr().out


@pytest.mark.parametrize("name", PAIR)
def test_every_copy_of_an_answer_is_a_right_answer(name):
    texts = ["One.", "Two.", "One."]
    entries_of = definitions(
        FOLDER, name, "entries_of", texts=texts, position={"a": 0, "b": 1, "c": 2}, copies={"One.": [0, 2], "Two.": [1]})
    assert entries_of(["b", "c"]) == [1, 0, 2] and entries_of(["a", "c"]) == [0, 2]


@pytest.mark.parametrize("name", PAIR)
def test_a_repository_that_cannot_be_is_known_before_anything_is_loaded(name):
    with pytest.raises(HFValidationError, match="my search"):
        cell_that_makes(FOLDER, name, "collection", push_to_hub="my search", huggingface_hub=huggingface_hub)


# ---------------------------------------------------------------------------------------------------- whole runs


def write_faq(folder):
    """Thirty texts, two of them the same; four wordings of a question for each, one in test; every text is an answer in training."""
    folder.mkdir()
    things = [a + b for a in CONSONANTS[:6] for b in VOWELS]
    texts = [f"{thing} {thing}n. Wipe the {thing} with {things[i - 1]} and dry it, {things[i - 2]}." for i, thing in enumerate(things)]
    texts[29] = texts[28]
    csv_file(folder / "texts.csv", ["id", "text"], [f"{i:04}" for i in range(30)], texts)
    (folder / "questions").mkdir()
    for split, wordings in {"train": ["{} be", "bo {}"], "validation": ["{} du {}"], "test": ["ba {} bi"]}.items():
        asked = [(wording.format(thing, thing), f"{i:04}") for i, thing in enumerate(things) for wording in wordings]
        csv_file(folder / "questions" / f"{split}.csv", ["question", "answers"], *zip(*asked))
    return texts


@pytest.fixture(scope="module")
def faq(hub, scripts):
    """Both notebooks on a FAQ that leaves no text for negatives, with first-token pooling and prompts; the loop also on two processes."""
    return once("faq", lambda folder: run_faq(folder, hub, scripts))


def run_faq(folder, hub, scripts):
    folder.mkdir()
    write_faq(folder / "data")
    checkpoint = shutil.copytree(hub.store / "models" / "stand-in" / "no-dropout", folder / "checkpoint")
    write(checkpoint, modules=modules("Transformer", "Pooling"), **{"1_Pooling__config": old(cls_token=True)},
          config_sentence_transformers={"prompts": {"query": "be: ", "passage": "du: "}})
    parameters = {
        "checkpoint": str(checkpoint), "sparse_checkpoint": str(checkpoint), "dataset_id": str(folder / "data" / "texts.csv"),
        "questions_id": str(folder / "data" / "questions"), "num_made": 300, "batch_size": 8, "num_epochs": 2, "learning_rate": 1e-3,
    }
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        world = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    one, two = folder / "one", folder / "two"
    jobs = [job(one, export(FOLDER, name, one, parameters), log=f"{name}.log") for name in PAIR]
    script = export(FOLDER, "accelerate_loop", two, parameters | {"batch_size": 4})
    jobs += [job(two, script, log=f"log{rank}", environment=world | {"RANK": rank, "LOCAL_RANK": rank}) for rank in "01"]
    statuses = scripts.run(*jobs)
    assert statuses == [0] * 4, "\n\n".join(log.read_text()[-2000:] for log in [*one.glob("*.log"), *two.glob("log?")])
    (folder / "parameters.json").write_text(json.dumps(parameters))


def test_a_faq_of_thirty_texts_trains_alike_in_both_notebooks_and_on_two_processes(faq):
    (trainer,), (loop,) = (outcomes(faq / "one", name) for name in PAIR)
    assert len(trainer["losses"]) == 14 and trainer["losses"] == loop["losses"] and trainer["metrics"] == loop["metrics"]
    for half in outcomes(faq / "two", "accelerate_loop"):
        assert notebooks.largest_difference(half["losses"], loop["losses"]) < 1e-5
    for name in PAIR:
        said = (faq / "one" / f"{name}.log").read_text()
        assert "0 mined negatives for each question" in said and "30 of the 30 test questions have an answer that training" in said
        assert "60 pairs, 0 of them made from the collection\n22 were asked for" in said
        assert "1 entries have the same text as an earlier one" in said
        assert "pooling: cls; before each question: 'be: ', before each text: 'du: '" in said


@pytest.mark.parametrize("name", PAIR)
def test_the_search_that_was_saved_pools_and_asks_as_its_checkpoint_does(faq, name):
    model = faq / "one" / "outputs" / name / "run-001" / "model"
    theirs = SentenceTransformer(str(model), device="cpu")
    rows = list(csv.DictReader((faq / "data" / "texts.csv").open()))
    index = faiss.read_index(str(model / "index.faiss"))
    expected = theirs.encode([row["text"] for row in rows], prompt_name="document")
    assert np.abs(index.reconstruct_n(0, 30) - expected).max() < 1e-5
    search = definitions(FOLDER, name, "Search")(model)
    hits = search("ba be bi", k=100)
    scores = theirs.encode("ba be bi", prompt_name="query") @ expected.T
    assert len(hits) == 30, "no more than there are"
    assert [hit["score"] for hit in hits] == pytest.approx(np.sort(scores)[::-1], abs=1e-5)
    assert {hit["name"] for hit in hits} == {f"{i:04}" for i in range(30)}


def test_a_run_is_not_resumed_with_other_numbers(faq, scripts):
    target, parameters = faq / "one", json.loads((faq / "parameters.json").read_text()) | {"resume": True, "num_epochs": 3}
    jobs = [job(target, export(FOLDER, name, target, parameters), log=f"{name}.again") for name in PAIR]
    assert scripts.run(*jobs) == [1, 1]
    for name in PAIR:
        assert "was started with {'num_epochs': 2}: resume with the same parameters" in (target / f"{name}.again").read_text()
        assert os.listdir(target / "outputs" / name) == ["run-001"]
