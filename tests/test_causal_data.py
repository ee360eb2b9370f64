"""What people bring, read and run through both notebooks of causal_language_modeling/: the pair agrees, and the right thing is asked."""

import json

import notebooks
import pytest
from scripts import export, job

FOLDER = "causal_language_modeling"
common = notebooks.common_of(FOLDER)
ANIMALS = ["狐", "熊", "兔", "狼"]


def chat(animal, mood):
    """In the form of ShareGPT, with a system message and two turns. Without the system message, nobody knows how to end the answer."""
    said = [("system", mood), ("human", "你好"), ("gpt", "你好"), ("human", animal), ("gpt", f"{animal}{mood}。")]
    return {"conversations": [{"from": role, "value": text} for role, text in said], "keywords": [animal, mood]}


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def parameters(data):
    """One line of stories holds two. A conversation is far too long, one has no keywords. Blocks of 4,000 tokens are too many."""
    (data / "stories.txt").write_text("\n\n".join(f"Ba du fo {i}. Lo di ba.<|endoftext|>" for i in range(60)))
    chats = [chat(ANIMALS[i % 4], "好壞"[i // 4 % 2]) for i in range(80)]
    chats[5]["keywords"] = None
    chats.append({"conversations": [{"from": "human", "value": "說" * 300}, {"from": "gpt", "value": "好"}], "keywords": None})
    return {
        "checkpoint": "HuggingFaceTB/SmolLM2-135M", "dataset_id": str(data / "stories.txt"),
        "domain_id": lines(data / "reports.jsonl", [{"body": f"Ru po {i % 7}. Ti {i}."} for i in range(60)]), "columns": {"text": "body"},
        "instructions_id": lines(data / "chats.jsonl", chats), "max_length": 128, "block_size": 4000, "batch_size": 4,
        "learning_rate": 2e-2, "num_epochs": 2, "domain_epochs": 1, "instruction_epochs": 30,
    }


@pytest.fixture(scope="module")
def run(scripts, tmp_path_factory):
    """run(**parameters): the statuses of both notebooks on data that are not ours, {name: log}, and the folder in which they ran."""
    data, target = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("others") / "run"

    def run(**more):
        given = parameters(data) | more
        statuses = scripts.run(*(job(target, export(FOLDER, name, target, given), log=f"{name}.log") for name in notebooks.PAIR))
        return statuses, {name: (target / f"{name}.log").read_text() for name in notebooks.PAIR}, target

    return run


@pytest.fixture(scope="module")
def others(run):
    """{name: (log, results)}"""
    statuses, logs, target = run()
    assert statuses == [0, 0], "\n\n".join(text[-3000:] for text in logs.values())
    return {name: (logs[name], json.loads((target / f"{name}.json").read_text())) for name in notebooks.PAIR}


def test_the_pair_agrees_on_what_others_bring(others):
    trainer, loop = (others[name][1] for name in notebooks.PAIR)
    assert notebooks.largest_difference(trainer["losses"], loop["losses"]) == 0.0 and trainer["metrics"] == loop["metrics"]


def test_what_is_asked_has_the_system_message_and_a_short_answer_in_another_script_complies(others):
    for _, results in others.values():
        assert results["metrics"]["compliance"] > 0.9 > results["metrics"]["compliance_before"]


def test_what_is_left_out_or_reduced_is_told_before_anything_is_trained(others):
    for log, _ in others.values():
        before = log[: log.index("perplexity before training")]
        assert "4000 tokens are asked for, and the checkpoint reads 512: that is the limit" in before
        assert sum("1 of more than 128 tokens left out" in line for line in before.splitlines()) == 1


def test_nothing_is_measured_that_only_our_stories_have(others):
    assert all("hero" not in log for log, _ in others.values())


@pytest.mark.parametrize("more, message", [
    ({"push_to_hub": "my stories"}, "HFValidationError: Repo id must use alphanumeric chars"),
    ({"max_length": 9}, "ValueError: every conversation of 'train' has more than 9 tokens: raise max_length"),
    ({"resume": True, "instruction_epochs": 31}, "run-001 was started with {'instruction_epochs': 30}: resume with the same parameters"),
])
def test_what_cannot_be_is_told_before_anything_is_trained(others, run, more, message):
    statuses, logs, _ = run(**more)
    assert statuses == [1, 1]
    for log in logs.values():
        assert message in log.splitlines()[-1]


ASKED = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Milo."}]


def read(row, **columns):
    """The row, read as the first of a split."""
    return common.conversations.read_rows(common.Dataset.from_list([row]), "train", columns)[0]


@pytest.mark.parametrize("messages, fault", [
    (str(ASKED), r"the messages are no JSON, as json.dumps writes it \(\[{'role'"),  # as pandas writes a list into a CSV
    ("null", "the messages are no list in which each has 'role' and 'content'"),
    (json.dumps({"messages": ASKED}), "the messages are no list in which each has 'role' and 'content'"),
    (["Who?", "Milo."], "the messages are no list in which each has 'role' and 'content'"),
    ([{"speaker": "user", "text": "Who?"}], r"a message has no 'role', nor 'from' \({'speaker'"),
    ([{"role": "user", "content": " \n"}, ASKED[1]], r"a message of 'user' has no text \("),
    ([ASKED[0], {"role": "assistant", "content": ""}], r"a message of 'assistant' has no text \("),
])
def test_what_is_no_conversation_is_told_with_its_row(messages, fault):
    with pytest.raises(ValueError, match=rf"row 0 of split 'train': {fault}.*: correct or remove it"):
        read({"messages": messages})


@pytest.mark.parametrize("row, columns", [
    ({"messages": json.dumps([{"role": "user", "content": ["Wh", "o?"]}, ASKED[1]])}, {}),  # parts that are mere strings
    ({"messages": [{"role": "human", "content": "Who?"}, {"role": "AI", "content": "Milo."}]}, {}),
    ({"question": "How?", "context": "Who?", "answer": "Milo."}, {"user": "context"}),  # not as the input, too
])
def test_other_forms_of_conversations_are_read(row, columns):
    assert read(row, **columns)["messages"] == ASKED


def test_a_number_can_be_the_input():
    assert read({"instruction": "Double this.", "input": 4, "output": "8"})["messages"][0]["content"] == "Double this.\n\n4"


@pytest.mark.parametrize("keywords", [
    "milo, fox", '["milo", "fox"]', "milo، fox", "milo，fox", "milo、fox", "milo;fox", ["milo", "fox", ""],
])
def test_keywords_are_read_from_text_in_any_script_and_from_json(keywords):
    assert read({"messages": ASKED, "keywords": keywords})["keywords"] == ["milo", "fox"]


@pytest.mark.parametrize("keywords", [{"hero": "milo"}, [["milo"], ["fox"]], '["milo", "fox"'])
def test_keywords_that_are_no_words_are_told_with_their_row(keywords):
    with pytest.raises(ValueError, match="row 0 of split 'train': the keywords are no .*: correct or remove it"):
        read({"messages": ASKED, "keywords": keywords})


def test_a_number_can_be_the_keyword():
    assert read({"messages": ASKED, "keywords": 7})["keywords"] == ["7"]


@pytest.mark.parametrize("word, text", [("ثعلب", "نام الثعلب."), ("שועל", "השועל ישן.")])
def test_a_keyword_is_found_behind_an_article_that_is_written_onto_it(word, text):
    assert common.texts.has_word(text, word) and not common.texts.has_word("", word)


@pytest.mark.parametrize("text, wanted", [
    ("Café.\r\nDone.\r\n<|endoftext|>\r\nTwo.\r\n", ["Café.\nDone.", "Two.\n"]),
    ("Café.\r\n\r\nTwo.\r\n", ["Café.", "Two."]),  # blank lines between paragraphs are usual, and not told
])
@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
def test_text_files_are_decoded_once_and_have_no_carriage_returns(tmp_path, capsys, text, wanted, encoding):
    (tmp_path / "train.txt").write_bytes(text.encode(encoding))
    rows = common.texts.read_rows(common.texts.read_file(tmp_path / "train.txt"), "train", {})
    assert rows["text"][:] == wanted
    assert len(capsys.readouterr().out.splitlines()) == (encoding == "cp1252")
