"""The helpers of causal_language_modeling/ pack, mark and read as they say, and refuse what is wrong."""

import gzip
import importlib.util
import json
import re
import string
import sys
from functools import cache
from html import unescape

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from notebooks import ROOT, common_of
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoTokenizer, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

common = common_of("causal_language_modeling")

END_OF_TEXT, START, END = SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
SENTENCES = [
    "Once there lived by the river a shy fox called Milo.\n\nHe said: \"Who is there?\"",
    "system\nuser\nassistant\nIt's 3 o'clock.\n",
]


def tokenizer_with(template=common.CHAT_TEMPLATE, end=END_OF_TEXT):
    """A byte-level BPE tokenizer in which `end` is the end-of-text token and the padding."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        SENTENCES * 3, trainers.BpeTrainer(vocab_size=340, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False)
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end, pad_token=end, chat_template=template)


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizer_with()


# ---------------------------------------------------------------------------------------------------- loading


def texts(n, name="text", **more):
    return [{name: f"{name} {i}", **more} for i in range(n)]


def turns(*contents, first="user"):
    """A conversation in which the user and the assistant take turns, behind what a system says if it is `first`."""
    roles = ["system"] * (first == "system") + ["user", "assistant"] * len(contents)
    return [{"role": role, "content": content} for role, content in zip(roles, contents)]


def chats(n, **more):
    return [{"messages": turns(f"question {i}", f"answer {i}"), **more} for i in range(n)]


def folder_of(path, card="", **splits):
    """A folder with a JSON lines file per split, of rows or of what is written there."""
    path.mkdir(exist_ok=True)
    for split, rows in splits.items():
        lines = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
        (path / f"{split}.jsonl").write_text(lines)
    if card:
        (path / "README.md").write_text(card)
    return str(path)


def test_texts_are_kept_and_other_columns_and_splits_are_left_out(tmp_path):
    files = {"train": texts(30, id=1, label="a"), "validation": texts(3, id=2, label="b"), "test": texts(5, id=3, label="c")}
    files["spare"] = files["test"][:2]
    card = "---\nconfigs:\n- config_name: default\n  data_files:\n"
    card += "".join(f"  - split: {split}\n    path: {split}.jsonl\n" for split in files) + "---\n"
    loaded = common.load_splits(folder_of(tmp_path, card=card, **files), "text", {}, max_rows=1000)
    assert isinstance(loaded, DatasetDict) and list(loaded) == ["train", "validation", "test"]
    for split in loaded:
        assert loaded[split].to_list() == [{"text": row["text"]} for row in files[split]]


def test_the_first_rows_of_each_split_are_kept(tmp_path):
    files = {"train": texts(30), "validation": texts(3), "test": texts(8)}
    loaded = common.load_splits(folder_of(tmp_path, **files), "text", {}, max_rows=5)
    assert {split: loaded[split].to_list() for split in loaded} == {split: rows[:5] for split, rows in files.items()}


@pytest.mark.parametrize(
    "given, sizes",
    [
        ([], {"train": 180, "validation": 10, "test": 10}),
        (["validation"], {"train": 190, "validation": 3, "test": 10}),
        (["test"], {"train": 190, "validation": 10, "test": 3}),
    ],
)
def test_a_missing_split_is_a_twentieth_of_the_train_rows_that_are_kept(tmp_path, given, sizes):
    files = {"train": texts(250)} | {split: [{"text": f"{split} {i}"} for i in range(3)] for split in given}
    loaded, again = (common.load_splits(folder_of(tmp_path / name, **files), "text", {}, max_rows=200) for name in ("one", "two"))
    assert loaded.num_rows == sizes
    found = {split: loaded[split]["text"][:] for split in loaded}
    assert found == {split: again[split]["text"][:] for split in again}
    assert sorted(sum(found.values(), [])) == sorted(row["text"] for rows in files.values() for row in rows[:200]), "each row once"
    assert all(found[split] == [row["text"] for row in files[split]] for split in given)


def test_conversations_keep_their_keywords(tmp_path):
    files = {
        split: [row | {"keywords": ["answer", str(i)][: i % 3], "id": i} for i, row in enumerate(chats(n))]
        for split, n in {"train": 30, "validation": 3, "test": 4}.items()
    }
    loaded = common.load_splits(folder_of(tmp_path, **files), "messages", {}, max_rows=20)
    for split in common.SPLITS:
        assert loaded[split].to_list() == [{name: row[name] for name in ("messages", "keywords")} for row in files[split][:20]]


def test_conversations_without_keywords_get_empty_ones(tmp_path):
    files = {"train": chats(60, text="a story"), "test": chats(2, text="b")}
    loaded = common.load_splits(folder_of(tmp_path, **files), "messages", {}, max_rows=1000)
    assert loaded.num_rows == {"train": 57, "validation": 3, "test": 2}
    assert all(rows.column_names == ["messages", "keywords"] and rows["keywords"][:] == [[]] * len(rows) for rows in loaded.values())
    assert loaded["test"]["messages"][:] == [row["messages"] for row in chats(2)]
    found = [row["messages"][0]["content"] for split in ("train", "validation") for row in loaded[split]]
    assert sorted(found) == sorted(f"question {i}" for i in range(60)), "each row once"


def with_row(n, value, name="text"):
    """25 rows of which row `n` has this value."""
    rows = texts(25) if name == "text" else chats(25)
    rows[n] = {name: value}
    return rows


@pytest.mark.parametrize(
    "files, message",
    [
        ({"train": texts(30, "story")},
         r"split 'train' has no column 'text', only \['story'\]: name .*columns = \{'text': 'its name in the data'\}"),
        ({"test": texts(30)}, r"has no split 'train', only \['test'\]: name one"),
        ({"train": with_row(24, "")}, r"row 24 of split 'train' has the text '': drop it"),
        ({"train": with_row(3, " \n\t")}, r"row 3 of split 'train' has the text ' \\n\\t': drop it"),
        ({"train": with_row(7, None)}, r"row 7 of split 'train' has the text None: .*cast the column to string"),
        ({"train": [{"text": i} for i in range(30)]}, r"row 0 of split 'train' has the text 0: .*cast the column to string"),
        ({"train": texts(25), "validation": with_row(2, " "), "test": texts(5)}, r"row 2 of split 'validation' has the text ' '"),
        ({"train": texts(25), "validation": texts(5), "test": with_row(0, "")}, r"row 0 of split 'test' has the text ''"),
        ({"train": texts(19)}, r"split 'train' has 19 rows, too few to take some for 'validation': add that split"),
        ({"train": texts(19), "validation": texts(5)}, r"split 'train' has 19 rows, too few to take some for 'test': add that split"),
        ({"train": texts(30), "test": '{"text": "a"'}, r"can't be read: JSON parse error"),
        ({"train": texts(30), "test": ""}, r"can't be read: .*test.* no data"),
        ({"train": texts(30), "test": [{"words": 3}]},
         r"(?s)can't be read: .*column names don't match\nEvery split needs rows with the same columns"),
    ],
)
def test_bad_texts_are_refused_with_a_cure(tmp_path, files, message):
    with pytest.raises(ValueError, match=message):
        common.load_splits(folder_of(tmp_path / "data", **files), "text", {}, max_rows=1000)


QUESTION, ANSWER = turns("Who?", "Milo.")
NO_ANSWER = "and there is no answer to learn: end it with the role 'assistant'"


@pytest.mark.parametrize(
    "files, message",
    [
        ({"train": texts(30)}, r"split 'train' has no column 'messages', only \['text'\]: name"),
        ({"train": with_row(24, [QUESTION], "messages")}, f"the conversation in row 24 of split 'train' ends with 'user', {NO_ANSWER}"),
        ({"train": with_row(3, [QUESTION, ANSWER, QUESTION], "messages")}, f"in row 3 of split 'train' ends with 'user', {NO_ANSWER}"),
        ({"train": with_row(0, [], "messages")}, f"the conversation in row 0 of split 'train' is empty, {NO_ANSWER}"),
        ({"train": with_row(5, None, "messages")}, f"the conversation in row 5 of split 'train' is empty, {NO_ANSWER}"),
        ({"train": with_row(2, turns("Who?", ""), "messages")}, "row 2 of split 'train' has an empty message of 'assistant': drop the row"),
        ({"train": with_row(4, turns(" \n", "Milo."), "messages")}, "row 4 of split 'train' has an empty message of 'user': drop the row"),
        ({"train": with_row(4, turns(None, "Milo."), "messages")}, "row 4 of split 'train' has an empty message of 'user'"),
        ({"train": chats(25), "validation": with_row(1, [QUESTION], "messages")}, "in row 1 of split 'validation' ends with 'user'"),
        ({"train": chats(25), "validation": chats(2), "test": with_row(1, [], "messages")}, "in row 1 of split 'test' is empty"),
        ({"train": chats(19)}, r"split 'train' has 19 rows, too few to take some for 'validation': add that split"),
        ({"train": chats(25), "test": '{"messages": ['}, r"can't be read: JSON parse error"),
    ],
)
def test_bad_conversations_are_refused_with_a_cure(tmp_path, files, message):
    with pytest.raises(ValueError, match=message):
        common.load_splits(folder_of(tmp_path / "data", **files), "messages", {}, max_rows=1000)


def test_an_empty_split_is_refused():
    with pytest.raises(ValueError, match="split 'test' is empty: check its data files"):
        common.check_columns(Dataset.from_dict({"text": []}), "test", "text")
    common.check_columns(Dataset.from_list(texts(1)), "test", "text")
    common.check_columns(Dataset.from_list(chats(1)), "train", "messages")


# ---------------------------------------------------------------------------------------------------- packing

# each begins with the end-of-text token, 0, and has it nowhere else
DOCUMENTS = st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=12).map(lambda ids: [0, *ids]), min_size=1, max_size=12)


@given(documents=DOCUMENTS, block_size=st.integers(1, 30))
@settings(max_examples=100, deadline=None)
def test_blocks_and_what_is_left_over_are_the_documents_in_order(documents, block_size):
    tokens = sum(documents, [])
    assume(len(tokens) >= block_size)
    blocks, left_out = common.pack(documents, block_size)
    assert blocks.column_names == ["input_ids", "position_ids"]
    assert {len(ids) for ids in (*blocks["input_ids"], *blocks["position_ids"])} == {block_size}
    assert 0 <= left_out < block_size
    assert sum(blocks["input_ids"], []) == tokens[: len(tokens) - left_out]


@given(documents=DOCUMENTS, block_size=st.integers(1, 30))
@settings(max_examples=100, deadline=None)
def test_positions_count_from_0_at_a_document_and_at_a_block(documents, block_size):
    assume(sum(map(len, documents)) >= block_size)
    blocks, _ = common.pack(documents, block_size)
    for ids, positions in zip(blocks["input_ids"], blocks["position_ids"]):
        for i, (token, position) in enumerate(zip(ids, positions)):
            assert position == (0 if i == 0 or token == 0 else positions[i - 1] + 1)


def test_documents_are_packed_across_blocks():
    blocks, left_out = common.pack([[0, 1, 2, 3, 4], [0, 5], [0, 6, 7, 8]], block_size=4)
    assert blocks["input_ids"][:] == [[0, 1, 2, 3], [4, 0, 5, 0]] and left_out == 3
    assert blocks["position_ids"][:] == [[0, 1, 2, 3], [0, 0, 1, 0]]


def test_text_that_fills_no_block_is_refused():
    assert len(common.pack([[0, 1, 2], [0, 3]], 5)[0]) == 1
    with pytest.raises(ValueError, match="all texts together have 5 tokens, and a block has 6: use a smaller block_size, or more text"):
        common.pack([[0, 1, 2], [0, 3]], 6)


@pytest.mark.parametrize("empty", [[0], []])
def test_an_empty_document_is_refused(empty):
    with pytest.raises(ValueError, match="document 1 has no tokens but the end-of-text token: drop empty texts"):
        common.pack([[0, 1], empty, [0, 2], [0]], 2)


# ---------------------------------------------------------------------------------------------------- borders


VOCABULARY = 100
MODELS = {
    "Llama": lambda: LlamaForCausalLM(LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        max_position_embeddings=256, use_cache=False, attn_implementation="sdpa",
    )),
    "GPT-2": lambda: GPT2LMHeadModel(GPT2Config(
        vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=2, n_positions=256, bos_token_id=0, eos_token_id=0, use_cache=False,
        attn_implementation="sdpa",
    )),
}


@cache
def model_of(kind):
    torch.manual_seed(0)
    model = MODELS[kind]().eval()
    assert model.config._attn_implementation == "sdpa" and not model.config.use_cache
    return model


@torch.no_grad()
def logits(kind, ids, positions=None):
    return model_of(kind)(input_ids=torch.tensor(ids), position_ids=None if positions is None else torch.tensor(positions)).logits


def furthest(a, b):
    return (a - b).abs().max().item()


@pytest.mark.parametrize("kind", MODELS)
@given(documents=DOCUMENTS.filter(lambda documents: len(documents) > 1))
@settings(max_examples=15, deadline=None)
def test_a_document_is_read_in_a_block_as_it_is_alone(kind, documents):
    blocks, _ = common.pack(documents, sum(map(len, documents)))
    ends = np.cumsum([len(document) for document in documents])
    with_borders, without = logits(kind, blocks["input_ids"][:], blocks["position_ids"][:])[0], logits(kind, blocks["input_ids"][:])[0]
    for i, (end, document) in enumerate(zip(ends, documents)):
        alone = logits(kind, [document])[0]
        assert furthest(with_borders[end - len(document) : end], alone) < 1e-5
        if i:
            assert furthest(without[end - len(document) : end], alone) > 1e-3, "else nothing is shown"


@pytest.mark.parametrize("kind", MODELS)
@given(documents=DOCUMENTS.filter(lambda documents: len(documents) > 2), block_size=st.integers(4, 11))
@settings(max_examples=10, deadline=None)
def test_blocks_with_other_borders_do_not_disturb_each_other_in_a_batch(kind, documents, block_size):
    assume(sum(map(len, documents)) >= block_size)
    blocks, _ = common.pack(documents, block_size)
    ids, found = np.array(blocks["input_ids"][:]), logits(kind, blocks["input_ids"][:], blocks["position_ids"][:])
    for row, at in zip(ids, found):
        borders = [0, *(i for i in range(1, block_size) if row[i] == 0), block_size]
        for start, end in zip(borders, borders[1:]):
            assert furthest(at[start:end], logits(kind, [row[start:end].tolist()])[0]) < 1e-5


# ---------------------------------------------------------------------------------------------------- conversations


def spoken(ids, tokenizer):
    """Where the assistant speaks: from behind `<|im_start|>assistant` and a new line to the next `<|im_end|>`."""
    start, end = tokenizer.convert_tokens_to_ids([START, END])
    opening = [start, *tokenizer("assistant\n")["input_ids"]]
    marks, speaks = [], False
    for i in range(len(ids)):
        speaks = speaks or ids[i - len(opening) : i] == opening
        marks.append(speaks)
        speaks = speaks and ids[i] != end
    return marks


def runs_of_targets(labels):
    """The targets, in a list per run of them."""
    runs = [[]]
    for label in labels:
        if label != -100:
            runs[-1].append(label)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


@pytest.mark.parametrize(
    "messages, text",
    [
        (turns("Who?", "Milo, the fox."), [f"{START}user\nWho?{END}\n{START}assistant\n", f"Milo, the fox.{END}", "\n"]),
        (
            turns("Who?", "Milo.", "Where?", "\n\n  By the river.\n"),
            [f"{START}user\nWho?{END}\n{START}assistant\n", f"Milo.{END}",
             f"\n{START}user\nWhere?{END}\n{START}assistant\n", f"By the river.{END}", "\n"],
        ),
        (
            turns("assistant\nBe short.", "Who?", "Milo.", first="system"),
            [f"{START}system\nassistant\nBe short.{END}\n{START}user\nWho?{END}\n{START}assistant\n", f"Milo.{END}", "\n"],
        ),
    ],
)
def test_the_answer_and_its_end_of_turn_are_the_targets(tokenizer, messages, text):
    parts = [tokenizer(part)["input_ids"] for part in text]
    encoded = common.encode_chat(messages, tokenizer)
    assert encoded["input_ids"] == sum(parts, [])
    assert encoded["labels"] == sum([part if i % 2 else [-100] * len(part) for i, part in enumerate(parts)], [])
    assert tokenizer.decode(encoded["input_ids"]) == "".join(text)


CHARACTERS = st.text(alphabet=string.ascii_letters + string.digits + string.punctuation + " \n\tàé’…狐🦊", min_size=1, max_size=25)
CONTENTS = CHARACTERS.filter(lambda text: text.strip() and not any(token in text for token in SPECIAL))
CONVERSATIONS = st.builds(
    lambda system, pairs: turns(*filter(None, [system]), *sum(pairs, ()), first="system" if system else "user"),
    st.none() | CONTENTS,
    st.lists(st.tuples(CONTENTS, CONTENTS), min_size=1, max_size=4),
)


@given(messages=CONVERSATIONS)
@settings(max_examples=60, deadline=None)
def test_targets_are_the_answers_whatever_is_said(tokenizer, messages):
    encoded = common.encode_chat(messages, tokenizer)
    ids, labels = encoded["input_ids"], encoded["labels"]
    assert len(ids) == len(labels)
    assert labels == [token if speaks else -100 for token, speaks in zip(ids, spoken(ids, tokenizer))]
    answers = [message["content"] for message in messages if message["role"] == "assistant"]
    assert [tokenizer.decode(run) for run in runs_of_targets(labels)] == [answer.strip() + END for answer in answers]


@given(messages=CONVERSATIONS)
@settings(max_examples=60, deadline=None)
def test_what_the_model_is_asked_is_how_the_conversation_begins_that_it_learned(tokenizer, messages):
    encoded = common.encode_chat(messages, tokenizer)
    prompt = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True)["input_ids"]
    assert encoded["input_ids"][: len(prompt)] == prompt
    rest, end = encoded["labels"][len(prompt) :], tokenizer.convert_tokens_to_ids(END)
    assert -100 not in rest[:-1] and rest[-2:] == [end, -100], "the last answer begins right behind it, and a new line ends it"


@pytest.mark.parametrize("end", [END, END_OF_TEXT])
def test_the_end_of_turn_is_a_target_though_it_is_the_padding(end):
    tokenizer = tokenizer_with(end=end)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == tokenizer.convert_tokens_to_ids(end)
    encoded = common.encode_chat(turns("Who?", "Milo.", "Where?", "Here."), tokenizer)
    end_of_turn = tokenizer.convert_tokens_to_ids(END)
    assert [run[-1] for run in runs_of_targets(encoded["labels"])] == [end_of_turn] * 2
    assert encoded["input_ids"].count(end_of_turn) == 4, "those of the questions are none"


def test_a_tokenizer_without_a_template_is_refused():
    with pytest.raises(ValueError, match=r"no chat template: set tokenizer.chat_template, e.g. to CHAT_TEMPLATE"):
        common.check_template(tokenizer_with(template=None))


UNMARKED = re.sub(r"\{% (end)?generation %\}", "", common.CHAT_TEMPLATE)


def test_a_template_that_does_not_mark_the_answer_is_refused():
    message = r"does not mark what the assistant says, .*put \{% generation %\} and \{% endgeneration %\} around it, .*or use CHAT_TEMPLATE"
    assert "add_generation_prompt" in UNMARKED
    for check in (common.check_template, lambda tokenizer: common.encode_chats(Dataset.from_list(chats(2)), tokenizer, 100)):
        with pytest.raises(ValueError, match=message):
            check(tokenizer_with(template=UNMARKED))


def test_a_template_that_marks_the_answer_is_taken(tokenizer):
    common.check_template(tokenizer)
    common.check_template(tokenizer_with(template=common.CHAT_TEMPLATE.replace("{% generation %}", "{%- generation -%}")))


def test_a_conversation_in_which_nothing_is_marked_is_refused(tokenizer):
    message = r"no token of the conversation \[\{'role': 'user', 'content': 'Who\?'\}.* is the assistant's: check the chat template"
    with pytest.raises(ValueError, match=message):
        common.encode_chat(turns("Who?", "Milo."), tokenizer_with(template=UNMARKED))
    with pytest.raises(ValueError, match=message):
        common.encode_chat([QUESTION, {"role": "bot", "content": "Milo."}], tokenizer)


def test_too_long_conversations_are_left_out_as_a_whole_and_counted(tokenizer):
    rows = [turns("Who?", "x" * n) for n in (30, 2, 12, 11, 4)]
    encoded = [common.encode_chat(row, tokenizer) for row in rows]
    conversations, longest = Dataset.from_dict({"messages": rows}), len(encoded[2]["input_ids"])
    assert common.encode_chats(conversations, tokenizer, longest)[0].to_list() == [encoded[i] for i in (1, 2, 3, 4)]
    kept, left_out = common.encode_chats(conversations, tokenizer, longest - 1)
    assert kept.to_list() == [encoded[i] for i in (1, 3, 4)] and left_out == 2
    shortest = len(encoded[1]["input_ids"])
    assert [common.encode_chats(conversations, tokenizer, n)[1] for n in (1000, shortest)] == [0, 4]
    with pytest.raises(ValueError, match=f"every conversation is longer than {shortest - 1} tokens: raise max_length"):
        common.encode_chats(conversations, tokenizer, shortest - 1)


def test_a_prompt_leaves_room_for_its_answer():
    common.check_prompts([[1] * 3, [1] * 12, [1]], max_new_tokens=20, positions=32)
    common.check_prompts([], max_new_tokens=20, positions=10)
    with pytest.raises(ValueError, match="prompt 1 has 13 tokens, which leaves no room for 20 more in a context of 32: shorten it"):
        common.check_prompts([[1] * 3, [1] * 13, [1] * 40], max_new_tokens=20, positions=32)


@pytest.mark.parametrize(
    "answer, keywords, kept",
    [
        ("A fox met a bear.", ["fox", "bear"], True),
        ("A fox met a bear.", ["bear", "fox"], True),
        ("A fox met a bear.", ["fox", "owl"], False),
        ("FOX and Bear", ["fox", "BEAR"], True),
        ('"Fox!" (bear), it said', ["fox", "bear"], True),
        ("fox's\nbear", ["fox", "bear"], True),
        ("Two foxes met.", ["fox"], False),
        ("The firefox", ["fox"], False),
        ("Two foxes and a fox", ["fox"], True),
        ("It grew.", ["grew up"], False),
        ("It Grew up.", ["grew up"], True),
        ("It is 345", ["3.5"], False),
        ("It is 3.5.", ["3.5"], True),
        ("cat", ["c.*t"], False),
        ("a) b", ["a) b"], True),
        ("Was?", [], True),
        ("", [], True),
        ("", ["fox"], False),
    ],
)
def test_an_answer_complies_if_it_has_all_words(answer, keywords, kept):
    assert common.complies(answer, keywords) is kept


# ---------------------------------------------------------------------------------------------------- stories


@pytest.mark.parametrize("title", ["", "The Lost Key. "])
@pytest.mark.parametrize(
    "opening, name",
    [
        ("Once there lived by the river a shy fox called Milo.", "Milo"),
        ("A lazy bear named Otto lived on the hill.", "Otto"),
        ("Milo was a shy fox, and he lived here.", "Milo"),
        ("Otto was an old bear.", "Otto"),
        ("By the pond lived Maud, a greedy hare.", "Maud"),
        ("Everyone on the hill knew Ruby, the careful wolf.", "Ruby"),
        ("No fox behind the mill was as shy as Kit.", "Kit"),
        ("The shy fox who lived by the pond was called Ada.", "Ada"),
        ("At mile 3.5 lived Otto!", "Otto"),
        ("A fox called Milo met a bear named Otto.", "Milo"),
        ("A fox was called by the bear.", None),
        ("It rained.", None),
        ("", None),
    ],
)
def test_the_hero_is_introduced_at_the_beginning_or_behind_a_title(title, opening, name):
    assert common.introduced(title + opening) == name


@pytest.mark.parametrize("opening", ["A fox called Milo.", "A fox called Milo lived here!", "Milo was a fox."])
def test_who_comes_later_is_not_introduced(opening):
    assert common.introduced(f"{opening} A bear named Otto came. By the pond lived Maud.") == "Milo"
    assert common.introduced(f"It rained! Did it snow? {opening}") is None


NAMES = {"Milo", "Ada", "Otto"}
OPENING = "Milo was a shy fox."


@pytest.mark.parametrize(
    "text, kept",
    [
        (f"{OPENING} He slept, and Milo's friend woke him. His dream was his.", True),
        ("Ada was a shy fox. She slept, and her friend saw herself. It was hers.", True),
        (OPENING, True),
        (f"{OPENING} The sheep was there, where others cheered.", True),  # words that only have he, she and her in them
        (f"{OPENING} He met Kurt.", True),  # no name of a hero
        (f"{OPENING} He met Ada.", False),
        (f"{OPENING} Otto's friend came.", False),
        ("Milo met Ada, and by the river lived Milo.", False),
        ("It rained. Milo got wet.", False),
        ("It rained.", False),
        ("Kurt was a shy fox.", False),  # not one of the names
        ("Kurt was a shy fox. Milo came.", False),
    ],
)
def test_a_story_keeps_to_the_hero_who_is_introduced(text, kept):
    assert common.consistent(text, NAMES) is kept


@pytest.mark.parametrize("he", ["He", "him", "his", "himself"])
@pytest.mark.parametrize("she", ["she", "Her", "hers", "herself"])
def test_a_hero_is_either_he_or_she(he, she):
    assert all(common.consistent(f"{OPENING} That was {word}.", NAMES) for word in (he, she))
    assert not common.consistent(f"{OPENING} That was {he}. This was {she}.", NAMES)


# ---------------------------------------------------------------------------------------------------- checkpoints


def checkpoint(folder, step, state='{"losses": [1.0]}'):
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    if state is not None:
        (path / "trainer_state.json").write_text(state)
    return path


def test_a_stage_that_has_not_begun_has_no_checkpoint(tmp_path):
    checkpoint(tmp_path / "other-stage", 10)
    (tmp_path / "stage").mkdir()
    assert common.last_checkpoint_in(tmp_path / "stage") is None
    assert common.last_checkpoint_in(tmp_path / "not-there") is None


def test_the_newest_checkpoint_of_a_stage_is_that_with_the_highest_number(tmp_path):
    found = {step: checkpoint(tmp_path, step) for step in (9, 10, 8)}
    assert common.last_checkpoint_in(tmp_path) == common.last_checkpoint_in(str(tmp_path)) == found[10]


@pytest.mark.parametrize("state", [None, "", '{"losses": [1.0', "{}"])
def test_a_half_written_checkpoint_is_passed_over(tmp_path, state):
    checkpoint(tmp_path, 11, state)
    assert common.last_checkpoint_in(tmp_path) is None
    whole = checkpoint(tmp_path, 10)
    checkpoint(tmp_path, 9)
    assert common.last_checkpoint_in(tmp_path) == whole


# ---------------------------------------------------------------------------------------------------- display


def test_targets_are_shown_escaped_and_marked(tokenizer):
    encoded = common.encode_chat(turns("Is <b> & \"c\"\nbold?", "Yes,\n<i>&amp;</i> too."), tokenizer)
    html = common.show_targets(encoded["input_ids"], encoded["labels"], tokenizer).data
    spans = re.findall(r"<(u|span)([^>]*)>(.*?)</\1>", html)
    assert len(spans) == len(encoded["input_ids"])
    assert [kind == "u" and "background" in style for kind, style, _ in spans] == [label != -100 for label in encoded["labels"]]
    assert {len({style for (_, style, _), label in zip(spans, encoded["labels"]) if (label == -100) is no}) for no in (True, False)} == {1}
    spans = [(style, text) for _, style, text in spans]
    assert not re.search("[<>\"]|&(?!#?\\w+;)", "".join(text for _, text in spans).replace("<br>", ""))
    shown = [unescape(text.replace("&#9166;<br>", "\n")) for _, text in spans]
    assert shown == [tokenizer.decode([token]) for token in encoded["input_ids"]]
    assert "&lt;|im_end|&gt;" in html and html.count("<br>") == 6


def test_stages_are_drawn_one_after_another(monkeypatch):
    shown = []
    monkeypatch.setattr(common.plt, "show", lambda: shown.append(common.plt.gcf()))
    stages = {
        "pretraining": ([5.0, 4.0, 3.0], [{"epoch": 1, "loss": 3.0, "other": 1}, {"epoch": 2, "loss": 2.0}]),
        "new domain": ([4.0, 3.5], [{"epoch": 1, "loss": 2.5}]),
        "instructions": ([2.0, 1.0, 0.5, 0.25], [{"epoch": 1, "loss": 1.0}, {"epoch": 2, "loss": 0.5}, {"epoch": 3, "loss": 0.0}]),
    }
    common.plot_stages(stages)
    (fig,) = shown
    left, right = fig.axes
    curves, borders = left.lines[::2], left.lines[1::2]
    assert [line.get_xdata().tolist() for line in curves] == [[1, 2, 3], [4, 5], [6, 7, 8, 9]]
    assert [line.get_ydata().tolist() for line in curves] == [losses for losses, _ in stages.values()]
    assert [list(line.get_xdata()) for line in borders] == [[3, 3], [5, 5], [9, 9]]
    assert [line.get_xdata().tolist() for line in right.lines] == [[1, 2], [1], [1, 2, 3]]
    for line, (_, history) in zip(right.lines, stages.values()):
        assert line.get_ydata() == pytest.approx(np.exp([entry["loss"] for entry in history]))
    assert [text.get_text() for text in right.get_legend().get_texts()] == [line.get_label() for line in curves] == list(stages)
    assert [line.get_color() for line in curves] == [line.get_color() for line in right.lines], "a stage has one colour"
    assert len({line.get_linestyle() for line in right.lines}) == 3 and left.get_yscale() == right.get_yscale() == "log"
    common.plt.close("all")


# ---------------------------------------------------------------------------------------------------- the stories


FOLDER = ROOT / "causal_language_modeling"
SIZES = {"woods": (12000, 600, 600), "sea": (3000, 400, 400), "instructions": (4000, 200, 200)}
spec = importlib.util.spec_from_file_location("make_stories", FOLDER / "data" / "make_stories.py")
make_stories = importlib.util.module_from_spec(spec)
sys.modules["make_stories"] = make_stories  # dataclasses look their module up
spec.loader.exec_module(make_stories)
WORLDS = {"woods": make_stories.WOODS, "sea": make_stories.SEA, "instructions": make_stories.WOODS}


def rows_of(folder, world, split):
    with gzip.open(folder / world / f"{split}.jsonl.gz", "rt", encoding="ascii") as file:
        return [json.loads(line) for line in file]


def stories(world, split):
    rows = rows_of(FOLDER / "data", world, split)
    return [row["messages"][1]["content"] if world == "instructions" else row["text"] for row in rows]


def told_of(text, world):
    """The heroes, things and places in a text."""
    words = set(re.findall(r"[a-z]+", text.lower()))
    return [words & set(kinds) for kinds in (world.heroes.split(), world.things, world.places)]


@pytest.mark.parametrize("world", SIZES)
def test_load_splits_takes_the_stories(world):
    loaded = common.load_splits(str(FOLDER / "data" / world), "messages" if world == "instructions" else "text", {}, 10**6)
    assert tuple(len(loaded[split]) for split in common.SPLITS) == SIZES[world]


def test_no_story_is_told_twice():
    told = [text for world in SIZES for split in common.SPLITS for text in stories(world, split)]
    assert len(set(told)) == len(told)


@pytest.mark.parametrize("world, most", [("woods", 0.025), ("sea", 0.04)])
def test_two_stories_rarely_share_a_sentence(world, most):
    told = [set(re.split(r'(?<=[.!?"]) (?=[A-Z"])', text)) for text in stories(world, "train")]
    rng = np.random.default_rng(0)
    shared = np.mean([bool(told[i] & told[j]) for i, j in rng.integers(len(told), size=(100_000, 2)) if i != j])
    print(f"{world}: {shared:.3f} of the pairs share a sentence")
    assert 0 < shared < most


@pytest.mark.parametrize("world", SIZES)
def test_stories_are_clean_and_keep_to_their_hero(world):
    names = {name for names in WORLDS[world].names.values() for name in names}
    for split in common.SPLITS:
        for text in stories(world, split):
            assert text.isascii() and text == text.strip() and text[-1] in '.!?"' and text.count('"') % 2 == 0, text
            assert not re.search(r"[\[\]{}|_\n]|  |\.\.|,,| [,.!?]|\b(\w+) \1\b", text), text
            assert not re.search(r"\b[Aa] (?:[aeiou]|honest)|\b[Aa]n (?![aeiou]|honest|hour)", text), text
            assert not re.search(r"\b(?:a|an|the) (?:a|an|the)\b", text, re.I), text
            assert all(len(kinds) == 1 for kinds in told_of(text, WORLDS[world])), text
            assert common.consistent(text, names), text


def test_a_request_names_what_its_answer_is_about_and_test_combines_it_anew():
    seen = {}
    for split in common.SPLITS:
        for row in rows_of(FOLDER / "data", "instructions", split):
            request, answer = (message["content"] for message in row["messages"])
            asked = [kinds.pop() for kinds in told_of(request, make_stories.WOODS)]
            assert asked == row["keywords"] and common.complies(answer.partition(". ")[2], asked), row
            seen.setdefault(split, set()).add(tuple(asked))
    told = {
        tuple(kinds.pop() for kinds in told_of(text, make_stories.WOODS)) for split in common.SPLITS for text in stories("woods", split)
    }
    assert not (seen["test"] | seen["validation"]) & (seen["train"] | told) and not seen["test"] & seen["validation"]


# ---------------------------------------------------------------------------------------------------- checkpoints


def test_an_encoder_is_refused(hub):
    with pytest.raises(ValueError, match=r"\S+ is an encoder \(distilbert\), .*: choose a decoder, .*see masked language modeling"):
        common.load_tokenizer("distilbert/distilbert-base-uncased")


def test_a_tokenizer_without_an_end_of_text_is_refused(hub, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained("HuggingFaceTB/SmolLM2-135M")
    AutoConfig.from_pretrained("HuggingFaceTB/SmolLM2-135M").save_pretrained(tmp_path)
    assert common.load_tokenizer("HuggingFaceTB/SmolLM2-135M").eos_token == tokenizer.eos_token
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no end-of-text token to put between documents: set tokenizer.eos_token"):
        common.load_tokenizer(str(tmp_path))


def test_attention_that_crosses_borders_is_refused():
    common.check_borders(1e-6, 1.2, "llama")
    with pytest.raises(ValueError, match=r"the attention of opt does not stop .*differ by 8.6e-01 .*: choose a checkpoint of another"):
        common.check_borders(0.86, 1.2, "opt")
