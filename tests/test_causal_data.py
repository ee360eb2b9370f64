"""What people bring, run through both notebooks of causal_language_modeling/: the pair agrees, and the right thing is asked."""

import json

import notebooks
import pytest
from scripts import export, job

FOLDER = "causal_language_modeling"
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
        assert "4000 tokens are asked for, and the checkpoint reads 512: texts are cut there" in before
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
