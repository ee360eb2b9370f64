"""What people bring, run through both notebooks of causal_language_modeling/: the pair agrees, and the right thing is asked."""

import json

import notebooks
import pytest
from scripts import export, job

FOLDER = "causal_language_modeling"
SYSTEM = {"role": "system", "content": "You speak of animals."}
ANIMALS = ["狐", "熊", "兔", "狼"]


def chat(animal, *before):
    return [SYSTEM, *before, {"role": "user", "content": f"說 {animal}"}, {"role": "assistant", "content": f"{animal}很好。"}]


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def others(scripts, tmp_path_factory):
    """Both notebooks on data that are not ours, in forms of their own: {name: (log, results)}.

    One line of stories holds two; the conversations are those of ShareGPT, with a system message and two turns, Chinese and in one
    file, of which one is far too long; some have no keywords. Blocks of 4,000 tokens are more than the checkpoint reads.
    """
    data, target = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("others") / "run"
    (data / "train.txt").write_text("\n\n".join(f"Ba du fo {i}. Lo di ba.<|endoftext|>" for i in range(60)))
    first = [{"role": "user", "content": "你好"}, {"role": "assistant", "content": "你好"}]
    rows = [{"conversations": [{"from": m["role"].replace("user", "human").replace("assistant", "gpt"), "value": m["content"]}
                               for m in chat(ANIMALS[i % 4], *first)], "keywords": [ANIMALS[i % 4]] if i % 3 else None} for i in range(60)]
    parameters = {
        "checkpoint": "HuggingFaceTB/SmolLM2-135M", "dataset_id": str(data), "domain_id": lines(data / "reports.jsonl", [
            {"body": f"Ru po {i % 7}. Ti {i}."} for i in range(60)]), "columns": {"text": "body"}, "max_length": 128,
        "instructions_id": lines(data / "chats.json", [*rows, {"conversations": [
            {"from": "human", "value": "說" * 300}, {"from": "gpt", "value": "好"}], "keywords": None}]),
        "block_size": 4000, "batch_size": 4, "learning_rate": 1e-2, "num_epochs": 2, "domain_epochs": 1, "instruction_epochs": 20,
    }
    parameters["dataset_id"] = str(data / "train.txt")
    statuses = scripts.run(*(job(target, export(FOLDER, name, target, parameters), log=f"{name}.log") for name in notebooks.PAIR))
    logs = {name: (target / f"{name}.log").read_text() for name in notebooks.PAIR}
    assert statuses == [0, 0], "\n\n".join(text[-3000:] for text in logs.values())
    return {name: (logs[name], json.loads((target / f"{name}.json").read_text())) for name in notebooks.PAIR}


def test_the_pair_agrees_on_what_others_bring(others):
    trainer, loop = (others[name][1] for name in notebooks.PAIR)
    assert notebooks.largest_difference(trainer["losses"], loop["losses"]) == 0.0 and trainer["metrics"] == loop["metrics"]


def test_an_answer_of_one_sentence_in_another_script_complies(others):
    for _, results in others.values():
        assert results["metrics"]["compliance"] > 0.9 > results["metrics"]["compliance_before"]


def test_what_is_left_out_or_reduced_is_told_before_anything_is_trained(others):
    for log, _ in others.values():
        before = log[: log.index("perplexity before training")]
        assert "4000 tokens are asked for, and the checkpoint reads 512: texts are cut there" in before
        assert sum("1 of more than 128 tokens left out" in line for line in before.splitlines()) == 1


def test_nothing_is_measured_that_only_our_stories_have(others):
    assert all("hero" not in log for log, _ in others.values())
