"""What both notebooks of semantic_search/ compute, held against other libraries or a few lines by hand.

Other tests show that the two agree with each other. A fault that is written into both, or into common.py, shows only here.
"""

import ast
import importlib.util
import inspect
import itertools
import json
import math
import random
import re
import sys
import textwrap
from contextlib import chdir
from functools import cached_property
from types import SimpleNamespace

import faiss
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from bm25s.stopwords import STOPWORDS_EN
from datasets import Dataset, load_dataset
from notebooks import PAIR, ROOT, common_of, python
from oracles import definitions, importing_common
from parameters import LEARNABLE
from scipy.stats import bootstrap
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sklearn.feature_extraction.text import CountVectorizer
from stand_ins import WORDS
from torch.utils.data import DataLoader
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer, set_seed

FOLDER = "semantic_search"
PARAMETERS = LEARNABLE[FOLDER] | {"max_length": 48, "temperature": 0.05, "seed": 42, "gradient_accumulation_steps": 2}
SCORES = ("recall@1", "recall@10", "mrr@10", "ndcg@10")
common = common_of(FOLDER)


def stdlib_module():
    """A fresh copy of the module data/stdlib.py."""
    spec = importlib.util.spec_from_file_location("stdlib_oracle", ROOT / FOLDER / "data" / "stdlib.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


stdlib = stdlib_module()


# ---------------------------------------------------------------------------------------------------- references


def vectors_of(path, texts, max_length):
    """Mean pooling and length 1, by sentence-transformers."""
    encoder = SentenceTransformer(str(path), device="cpu")
    encoder.max_seq_length = max_length
    return encoder.encode(list(texts), normalize_embeddings=True)


def learned_weights(path, texts, max_length):
    """The weights of SPLADE, one text at a time, so that there is no padding."""
    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModelForMaskedLM.from_pretrained(path).eval()
    rows = []
    for text in texts:
        with torch.inference_mode():
            logits = model(**tokenizer(text, truncation=True, max_length=max_length, return_tensors="pt")).logits[0]
        rows.append(torch.log(1 + torch.clamp(logits, min=0)).amax(dim=0).numpy())
    return np.array(rows)


def bm25_scores(questions, texts, k1=1.5, b=0.75):
    """BM25 as Lucene computes it, without its stop words, (questions, texts)."""
    counter = CountVectorizer(stop_words=list(STOPWORDS_EN))
    counts = counter.fit_transform(texts).toarray()
    lengths, having = counts.sum(axis=1, keepdims=True), (counts > 0).sum(axis=0)
    weights = np.log(1 + (len(texts) - having + 0.5) / (having + 0.5)) * counts / (counts + k1 * (1 - b + b * lengths / lengths.mean()))
    return counter.transform(questions).toarray() @ weights.T


def fused_scores(words, cosines, share, word_rankings=None):
    """Cosine + share x BM25 over its highest, (questions, texts); beyond the first hundred of the encoder, the hundredth cosine counts.

    Minus infinity where a text is among the first hundred of neither. Which of many texts without a common word are among those of BM25
    is left to it, and can be given.
    """
    scores = np.full(cosines.shape, -np.inf)
    for row, word_row, cosine_row, by_words, by_meaning in zip(scores, words, cosines, word_rankings or order(words), order(cosines)):
        row[by_words] = cosine_row[by_meaning[-1]]
        row[by_meaning] = cosine_row[by_meaning]
        row[by_words] += share * word_row[by_words] / max(word_row.max(), 1e-9)
    return scores


def best_share(words, cosines, relevant):
    """The share at which the fusion has the highest nDCG@10; the smallest of those that are equal."""
    found = {share: judged(order(fused_scores(words, cosines, share)), relevant)["ndcg@10"] for share in (0.05, 0.1, 0.2, 0.4)}
    return max(found, key=found.get), found


def order(scores, k=100):
    return np.argsort(-np.asarray(scores), axis=1, kind="stable")[:, :k].tolist()


def judged(rankings, relevant):
    """The scores of rankings, best first, by sentence-transformers."""
    queries, corpus = {str(i): "" for i in range(len(rankings))}, {str(i): "" for i in {*itertools.chain(*rankings, *relevant)}}
    evaluator = InformationRetrievalEvaluator(
        queries, corpus, {str(i): set(map(str, answers)) for i, answers in enumerate(relevant)},
        mrr_at_k=[10], ndcg_at_k=[10], precision_recall_at_k=[1, 10],
    )
    found = evaluator.compute_metrics([[{"corpus_id": str(j), "score": -i} for i, j in enumerate(row)] for row in rankings])
    return dict(zip(SCORES, (found["recall@k"][1], found["recall@k"][10], found["mrr@k"][10], found["ndcg@k"][10])))


def is_best_first(ranking, scores, k=100):
    """Whether a ranking holds the `k` largest of some scores in their order; of equal ones any may come first."""
    return len(set(ranking)) == len(ranking) == k and np.allclose(scores[ranking], -np.sort(-scores)[:k], atol=1e-5)


def recalls_at_10(vectors, queries, lists):
    """Of the exact search and of IVF and HNSW at the settings that `measure_indexes` tries, by the classes of faiss."""
    exact = order(queries @ vectors.T, 10)
    inverted = faiss.IndexIVFFlat(faiss.IndexFlatIP(vectors.shape[1]), vectors.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
    linked = faiss.IndexHNSWFlat(vectors.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
    recalls = [1.0]
    inverted.train(vectors)
    for index, knobs, name, values in [
        (inverted, inverted, "nprobe", (1, 2, 4, 8, 16, 32)), (linked, linked.hnsw, "efSearch", (8, 16, 32, 64, 128, 256)),
    ]:
        index.add(vectors)
        for value in values:
            setattr(knobs, name, value)
            found = index.search(queries, 10)[1]
            recalls.append(np.mean([len({*one} & {*two}) / 10 for one, two in zip(found, exact)]))
    return recalls


# ---------------------------------------------------------------------------------------------------- the recorded runs


@pytest.fixture(scope="module")
def data(hub):
    """The stand-in data set and the paths of the checkpoints, straight from where they lie."""
    passages = load_dataset(PARAMETERS["dataset_id"])["train"]
    questions = load_dataset(PARAMETERS["questions_id"])
    texts = dict(zip(passages["id"], passages["text"]))
    checkpoint = hub.store / "models" / PARAMETERS["checkpoint"]
    return SimpleNamespace(texts=texts, questions=questions, checkpoint=checkpoint, tokenizer=AutoTokenizer.from_pretrained(checkpoint))


@pytest.fixture(scope="module", params=PAIR)
def run(request, recorded_run, data):
    folder = recorded_run(FOLDER)
    record = torch.load(folder / f"{request.param}.record", weights_only=False)
    written = json.loads((folder / f"{request.param}.json").read_text())
    run_dir = folder / "outputs" / request.param / "run-001"
    # what the plain training drew and computed, an epoch of 7 batches, is left out: nothing of it is kept
    drawn = [i for i, event in enumerate(record["events"]) if event["kind"] == "batch" and event["size"] == 56]
    record["events"] = record["events"][:drawn[0]] + record["events"][drawn[7]:]
    batches = [event for event in record["events"] if event["kind"] == "batch"]
    return SimpleNamespace(
        **record, **written, run_dir=run_dir, log=(folder / f"{request.param}.log").read_text(),
        forward=[event for event in record["events"] if event["kind"] == "forward"],
        train=[event for event in batches if event["size"] == 56],  # 25 questions and 32 sentences, as far as they fill batches of 8
        validation=[event for event in batches if event["size"] == len(data.questions["validation"])],
    )


def rows_of(side):
    """The tokens of each text of one side of a batch, padding left out."""
    return [tuple(row[mask.bool()].tolist()) for row, mask in zip(side["input_ids"], side["attention_mask"])]


def keys(data, texts):
    """{the tokens by which a text can be known in a batch: its number among `texts`}"""
    encoded = data.tokenizer(list(texts), truncation=True, max_length=PARAMETERS["max_length"])["input_ids"]
    found = {tuple(row): i for i, row in enumerate(encoded)}
    assert len(found) == len(encoded), "no two texts are alike in what is read of them"
    return found


def test_a_question_is_trained_with_its_answer_and_a_hard_negative_that_answers_nothing(run, data):
    ids, texts = list(data.texts), list(data.texts.values())
    train = data.questions["train"]
    first = [text[:text.index(".") + 1] for text in texts]
    question_at, sentence_at = keys(data, train["question"]), keys(data, first)
    text_at, rest_at = keys(data, texts), keys(data, [text[len(start):] for text, start in zip(texts, first)])
    asked, told, negatives = [], [], []
    for event in run.train[:7]:
        queries, documents = rows_of(event["batch"]["queries"]), rows_of(event["batch"]["documents"])
        assert len(documents) == 2 * len(queries) == 16, "for every question an answer and one negative"
        for query, right, wrong in zip(queries, documents[::2], documents[1::2]):
            if query in question_at:
                asked.append(question_at[query])
                assert ids[text_at[right]] == train[asked[-1]]["answers"][0]
                question = train[asked[-1]]["question"]
            else:
                told.append(sentence_at[query])
                assert rest_at[right] == told[-1], "the first sentence goes with the rest of its own text"
                question = first[told[-1]]
            negatives.append((question, text_at[wrong]))
    answers = {ids.index(name) for names in train["answers"] for name in names}
    assert sorted(asked) == list(range(len(train))) and len(set(told)) == 56 - len(train)
    assert not set(told) & answers, "no sentence of a text that answers a training question"
    collection = Dataset.from_dict({"id": ids, "text": texts, "summary": first})
    chosen = common.sentence_pairs(collection, PARAMETERS["num_pairs"], PARAMETERS["seed"], {ids[i] for i in answers})
    assert {ids[i] for i in told} == {pair["id"] for pair in chosen[:56 - len(train)]}
    used = answers | set(told)
    assert not {wrong for _, wrong in negatives} & used, "no negative that is known to be right for a question"
    similar = vectors_of(data.checkpoint, [question for question, _ in negatives], 48) @ vectors_of(data.checkpoint, texts, 48).T
    free = [i for i in range(len(texts)) if i not in used]
    for row, (_, wrong) in zip(similar, negatives):
        # five are skipped, and the text of the one pair that fills no batch may stand before it too
        assert (row[free] > row[wrong] + 1e-5).sum() in (4, 5, 6) and (row[free] > row[wrong] - 1e-5).sum() in (6, 7)


def test_validation_asks_the_validation_questions_once_per_epoch(run, data):
    rows = data.questions["validation"]
    question_at, text_at, ids = keys(data, rows["question"]), keys(data, data.texts.values()), list(data.texts)
    assert len(run.validation) == 2 * PARAMETERS["num_epochs"]
    queries = [row for event in run.validation[:2] for row in rows_of(event["batch"]["queries"])]
    documents = [row for event in run.validation[:2] for row in rows_of(event["batch"]["documents"])]
    assert [question_at[row] for row in queries] == list(range(len(rows)))
    found = np.array([text_at[row] for row in documents]).reshape(len(rows), 6)
    assert [[ids[i]] for i in found[:, 0]] == rows["answers"][:]
    assert not {ids[i] for i in found[:, 1:].flat} & {name for names in rows["answers"] for name in names}


def test_every_epoch_sees_every_row_once_in_an_order_of_its_own(run):
    assert len(run.train) == 7 * PARAMETERS["num_epochs"]
    epochs = [[i for event in run.train[at:at + 7] for i in event["indices"]] for at in range(0, len(run.train), 7)]
    assert all(sorted(epoch) == list(range(56)) for epoch in epochs)
    assert len({*map(tuple, epochs), tuple(range(56))}) == len(epochs) + 1


def test_gradients_are_kept_in_training_and_dropout_is_off_elsewhere(run):
    assert len(run.forward) > 2 * len(run.train)
    assert {(event["grad"], event["training"]) for event in run.forward} == {(True, True), (False, False)}
    assert sum(event["grad"] for event in run.forward) == len(run.train)


def test_the_loss_of_a_step_is_the_cross_entropy_of_the_answers_over_all_its_questions(run):
    steps, drawn = [[]], iter(run.train)
    for event in run.events:
        if event["kind"] == "step":
            steps.append([])
        elif event["kind"] == "forward" and event["grad"]:
            assert torch.equal([*event["inputs"].values()][0]["input_ids"], next(drawn)["batch"]["queries"]["input_ids"])
            steps[-1].append([event["outputs"][side] for side in ("queries", "documents")])
    assert list(map(len, steps)) == [2, 2, 2, 1] * PARAMETERS["num_epochs"] + [0]
    for step, loss in zip(steps[:-1], run.losses, strict=True):
        total = 0
        for queries, documents in step:
            assert torch.allclose(queries.norm(dim=-1), torch.ones(8)) and torch.allclose(documents.norm(dim=-1), torch.ones(8, 2))
            cosines = (queries[:, None, None] * documents).sum(dim=-1).flatten(1)  # (questions, texts of all questions)
            total += F.cross_entropy(cosines / PARAMETERS["temperature"], torch.arange(0, 16, 2), reduction="sum")
        assert loss == pytest.approx(total.item() / (8 * len(step)), rel=1e-5)


def test_the_learning_rate_rises_over_a_tenth_of_the_steps_and_falls_to_zero(run):
    steps = [event for event in run.events if event["kind"] == "step"]
    warm = math.ceil(0.1 * len(steps))
    for i, event in enumerate(steps):
        rate = PARAMETERS["learning_rate"] * (i / warm if i < warm else (len(steps) - i) / (len(steps) - warm))
        assert event["optimizer"] == "AdamW" and event["groups"] == [(pytest.approx(rate), 0.01), (pytest.approx(rate), 0.0)]


def test_training_again_with_nothing_but_torch_gives_the_same_losses_scores_and_weights(run, data):
    """What a loss does not show is seen here by its effect: gradients, clipping, weight decay, which encoder is kept."""
    model = AutoModel.from_pretrained(data.checkpoint)
    set_seed(PARAMETERS["seed"])
    plain = [name.endswith("bias") or "norm" in name.lower() for name, _ in model.named_parameters()]
    groups = [[weights for weights, other in zip(model.parameters(), plain) if other == kind] for kind in (False, True)]
    optimizer = torch.optim.AdamW([{"params": groups[0], "weight_decay": 0.01}, {"params": groups[1], "weight_decay": 0.0}])
    steps, losses, history, kept = len(run.losses), [], [], None

    def loss_and_ranks(batches):
        sides = [[], []]
        for batch in batches:
            for vectors, side in zip(sides, (batch["queries"], batch["documents"])):
                hidden, mask = model(**side).last_hidden_state, side["attention_mask"][..., None]
                vectors.append(F.normalize((hidden * mask).sum(dim=1) / mask.sum(dim=1), dim=-1))
        similar = torch.cat(sides[0]) @ torch.cat(sides[1]).T
        right = torch.arange(len(similar)) * (similar.shape[1] // len(similar))
        loss = F.cross_entropy(similar / PARAMETERS["temperature"], right, reduction="sum")
        return loss, (similar >= similar[range(len(right)), right][:, None]).sum(dim=1)

    for epoch in range(PARAMETERS["num_epochs"]):
        # a loader, for it draws random numbers at the start of an epoch, which dropout then does not get
        window = [*DataLoader([event["batch"] for event in run.train[7 * epoch:7 * epoch + 7]], batch_size=None)]
        model.train()
        for first in range(0, 7, 2):
            batches = window[first:first + 2]
            parts = [loss_and_ranks([batch])[0] / (8 * len(batches)) for batch in batches]
            sum(parts).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for group in optimizer.param_groups:
                group["lr"] = PARAMETERS["learning_rate"] * min(len(losses) / 2, (steps - len(losses)) / (steps - 2))
            optimizer.step()
            optimizer.zero_grad()
            losses.append(sum(parts).item())
        model.eval()
        with torch.no_grad():
            loss, ranks = loss_and_ranks(DataLoader([event["batch"] for event in run.validation[:2]], batch_size=None))
        mrr = np.mean([1 / rank if rank <= 10 else 0 for rank in ranks.tolist()])
        history.append({"epoch": epoch + 1, "loss": loss.item() / len(ranks), "mrr@10": mrr})
        if history[-1]["mrr@10"] > max((entry["mrr@10"] for entry in history[:-1]), default=0):
            kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert losses == pytest.approx(run.losses, rel=1e-4)
    assert history == [pytest.approx(entry, rel=1e-4) for entry in run.history]
    saved = AutoModel.from_pretrained(run.run_dir / "model").state_dict()
    assert max((saved[name] - tensor).abs().max() for name, tensor in kept.items()) < 1e-4
    assert AutoTokenizer.from_pretrained(run.run_dir / "model").model_max_length == PARAMETERS["max_length"]


def test_what_is_reported_is_what_the_saved_encoder_and_the_baselines_find(run, data):
    texts, test = list(data.texts.values()), data.questions["test"]
    relevant = [[[*data.texts].index(name) for name in names] for names in test["answers"]]
    found = {"bm25_": order(bm25_scores(test["question"], texts))}
    weights = [learned_weights(data.checkpoint, some, 32) for some in (test["question"], texts)]
    found["sparse_"] = order(weights[0] @ weights[1].T)
    for prefix, path in [("base_", data.checkpoint), ("", run.run_dir / "model")]:
        found[prefix] = order(vectors_of(path, test["question"], 48) @ vectors_of(path, texts, 48).T)
    validation, path = data.questions["validation"], run.run_dir / "model"
    wanted = [[[*data.texts].index(name) for name in names] for names in validation["answers"]]
    cosines = [vectors_of(path, some["question"], 48) @ vectors_of(path, texts, 48).T for some in (validation, test)]
    share, _ = best_share(bm25_scores(validation["question"], texts), cosines[0], wanted)
    found["fused_"] = order(fused_scores(bm25_scores(test["question"], texts), cosines[1], share))
    expected = {prefix: judged(rankings, relevant) for prefix, rankings in found.items()}
    assert len({scores["mrr@10"] for scores in expected.values()}) == 5, "no two searches are equally good"
    assert run.metrics == pytest.approx({prefix + key: value for prefix, scores in expected.items() for key, value in scores.items()})
    assert run.baselines == {
        name: pytest.approx(expected[prefix])
        for name, prefix in {"BM25": "bm25_", "SPLADE": "sparse_", "pretrained encoder": "base_"}.items()
    }


def test_the_saved_index_holds_the_vectors_of_the_saved_encoder(run, data):
    index = faiss.read_index(str(run.run_dir / "model" / "index.faiss"))
    entries = json.loads((run.run_dir / "model" / "entries.json").read_text())
    expected = vectors_of(run.run_dir / "model", data.texts.values(), 48)
    assert index.metric_type == faiss.METRIC_INNER_PRODUCT
    assert entries == [{"name": name, "summary": text[:text.index(".") + 1]} for name, text in data.texts.items()]
    assert np.allclose(index.reconstruct_n(0, index.ntotal), expected, atol=1e-5)


def test_the_interval_of_the_gain_is_that_of_a_bootstrap_of_scipy(run):
    gain = run.variables["gain"]
    per_question = [
        [judged([found], [answers])["ndcg@10"] for found, answers in zip(run.variables["rankings"][name], run.variables["test_labels"])]
        for name in ("fine-tuned encoder", "pretrained encoder")
    ]
    assert gain == pytest.approx(np.subtract(*per_question)) and np.ptp(gain) > 0
    expected = bootstrap((gain,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(1)).confidence_interval
    number = r"([+-][\d.]+)"
    said = re.search(rf"nDCG@10: difference {number}, 95% interval {number} to {number}: (a gain|a loss|no gain shown)", run.log)
    assert float(said[1]) == pytest.approx(gain.mean(), abs=6e-4)
    width = expected.high - expected.low
    assert (float(said[2]), float(said[3])) == pytest.approx((expected.low, expected.high), abs=0.05 * width + 6e-4)


def test_the_recall_of_approximate_indexes_is_that_of_indexes_made_by_hand(run):
    found = run.variables
    made = found["made"]
    assert made.shape == (PARAMETERS["num_made"] + 200, 64) and np.allclose(np.linalg.norm(made, axis=1), 1, atol=1e-5)
    for table, vectors, queries, lists in [
        (found["on_collection"], found["vectors"], found["test_vectors"], 7), (found["on_made"], made[:-200], made[-200:], 31),
    ]:
        assert table["recall"].tolist() == pytest.approx(recalls_at_10(vectors, queries, lists))
        assert table["MB"][0] == pytest.approx(vectors.nbytes / 1e6, rel=0.01)


# ---------------------------------------------------------------------------------------------------- on questions with several answers


def write_passages(folder):
    """Write and return texts of very different lengths, and questions with up to three answers and one that this Python lacks."""
    rng, taken = random.Random(3), itertools.count()
    sentences = [f"{' '.join(rng.sample(WORDS, 8))}." for _ in range(620)]
    rests = [" ".join(rng.choices(WORDS, k=rng.choice([2, 12, 24]))) for _ in range(620)]
    rows = [{"id": f"p{i}", "text": f"{sentences[i - i % 3 // 2]} {rest}."} for i, rest in enumerate(rests)]
    questions = {}
    for split, n in {"train": 14, "validation": 6, "test": 16}.items():
        questions[split] = []
        for i in range(n):
            answers = [rows[2 * next(taken)] for _ in range(1 + i % 3)]
            words = [word for row in answers for word in rng.choices(row["text"].replace(".", "").split(), k=3)] + rng.choices(WORDS, k=6)
            names, since = [*(row["id"] for row in answers), "gone"], [""] * len(answers) + ["3.99"]
            questions[split].append({"question": " ".join(words), "answers": names, "since": since})
    for name, splits in {"texts": {"train": rows}, "questions": questions}.items():
        (folder / name).mkdir()
        for split, lines in splits.items():
            (folder / name / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return rows, questions


def run_sections(name, parameters, instead_of_training):
    """Run the cells of a notebook but for its section Training; return its variables and the tables that it showed."""
    variables, shown, training = {}, [], False
    for cell in nbformat.read(ROOT / FOLDER / f"{name}.ipynb", as_version=4).cells:
        if cell.cell_type == "markdown" and cell.source.startswith("## "):
            if training:
                instead_of_training(variables)
            training = cell.source.startswith("## Training")
        if cell.cell_type == "code" and not training:
            *body, last = ast.parse(python(cell.source)).body
            exec(compile(ast.Module([*body] if isinstance(last, ast.Expr) else [*body, last], []), name, "exec"), variables)
            if isinstance(last, ast.Expr):
                shown.append(eval(compile(ast.Expression(last.value), name, "eval"), variables))
            if "common" in variables:
                variables["common"].show, sys.modules["helpers"].plt.show = (lambda table: table), (lambda: None)
            if "parameters" in cell.metadata.get("tags", []):
                variables |= parameters
    return variables, [table for table in shown if isinstance(table, pd.DataFrame)]


@pytest.fixture(scope="module", params=PAIR)
def world(request, hub, tmp_path_factory):
    """A notebook without training: the texts above, and for the fine-tuned encoder one whose weights were changed at random."""
    folder = tmp_path_factory.mktemp("world")
    passages, questions = write_passages(folder)
    base, tuned = hub.store / "models" / PARAMETERS["checkpoint"], folder / "run" / "model"

    def change(variables):
        encoder = AutoModel.from_pretrained(base)
        torch.manual_seed(0)
        with torch.no_grad():
            for weights in encoder.parameters():
                weights.add_(torch.randn_like(weights), alpha=0.15)
        for part in (encoder, variables["tokenizer"]):
            part.save_pretrained(tuned)
        common.save_settings(tuned, encoder.config.hidden_size, "mean", "", "", 24)
        variables |= {"encoder": encoder.train(), "run_dir": folder / "run"}
        variables |= {"losses": [2.0, 1.0], "history": [{"epoch": 1, "loss": 2.0, "mrr@10": 0.5}]}

    parameters = PARAMETERS | {
        "dataset_id": str(folder / "texts"), "questions_id": str(folder / "questions"),
        "num_pairs": 40, "max_length": 24, "temperature": 0.1, "seed": 7,
    }
    with importing_common(FOLDER), chdir(ROOT / FOLDER):  # where the pictures are
        variables, tables = run_sections(request.param, parameters, change)
    found = SimpleNamespace(variables=variables, tables=tables, base=base, tuned=tuned, questions=questions, run=folder / "run")
    found.ids, found.texts = [row["id"] for row in passages], [row["text"] for row in passages]
    found.asked = [row["question"] for row in questions["test"]]
    found.relevant = [[found.ids.index(name) for name in row["answers"][:-1]] for row in questions["test"]]
    found.vectors = {path: vectors_of(path, found.texts, 24) for path in (base, tuned)}
    found.cosines = {path: vectors_of(path, found.asked, 24) @ found.vectors[path].T for path in (base, tuned)}
    return found


def table_with(world, column):
    return next(table for table in world.tables if column in table.columns)


def test_every_search_ranks_by_its_own_score_and_is_judged_by_all_answers(world):
    found = world.variables
    rankings, table = found["rankings"], found["table"]
    expected = {
        "BM25": bm25_scores(world.asked, world.texts),
        "SPLADE": learned_weights(world.base, world.asked, 24) @ learned_weights(world.base, world.texts, 24).T,
        "pretrained encoder": world.cosines[world.base], "fine-tuned encoder": world.cosines[world.tuned],
    }
    asked = [row["question"] for row in world.questions["validation"]]
    wanted = [[world.ids.index(name) for name in row["answers"][:-1]] for row in world.questions["validation"]]
    share, by_share = best_share(
        bm25_scores(asked, world.texts), vectors_of(world.tuned, asked, 24) @ world.vectors[world.tuned].T, wanted)
    assert found["by_share"] == pytest.approx(by_share) and found["best_share"] == share and len({*by_share.values()}) > 1
    expected["BM25 + fine-tuned"] = fused_scores(expected["BM25"], expected["fine-tuned encoder"], share, rankings["BM25"])
    assert found["test_labels"] == world.relevant and set(rankings) == set(expected) == set(table.index)
    for name, scores in expected.items():
        for ranking, row in zip(rankings[name], scores, strict=True):
            assert is_best_first(ranking, row, 100), name
        assert table.loc[name, list(SCORES)].to_dict() == pytest.approx(judged(rankings[name], world.relevant), abs=6e-4), name
    bm25 = judged(rankings["BM25"], world.relevant)
    assert len({judged(rankings[name], world.relevant)["ndcg@10"] for name in rankings}) == len(rankings), "no two are equally good"
    hits = np.mean([bool({*row[:10]} & {*answers}) for row, answers in zip(rankings["BM25"], world.relevant)])
    assert 0 < bm25["recall@1"] < bm25["recall@10"] < hits < 1 and len({*bm25.values()}) == 4, "data on which no two scores are alike"
    for prefix, name in zip(("bm25_", "sparse_", "base_", "", "fused_"), expected):
        assert {key: found["metrics"][prefix + key] for key in SCORES} == pytest.approx(judged(rankings[name], world.relevant)), name


def test_vectors_of_texts_come_in_the_order_of_the_texts_and_without_dropout(world):
    found = world.variables
    assert np.allclose(found["pretrained_vectors"], world.vectors[world.base], atol=1e-5)
    assert np.allclose(found["vectors"], world.vectors[world.tuned], atol=1e-5)
    some = world.texts[:40]
    assert np.allclose(found["embed"](found["encoder"].train(), some, batch_size=7), world.vectors[world.tuned][:40], atol=1e-5)
    assert np.allclose(found["sparse_vectors"](some).toarray(), learned_weights(world.base, some, 24), atol=1e-5)
    assert np.allclose(found["weights"], learned_weights(world.base, world.asked[:1], 24)[0], atol=1e-5)
    lengths = [len(row) for row in AutoTokenizer.from_pretrained(world.base)(world.texts, truncation=False)["input_ids"]]
    assert found["lengths"].tolist() == [min(n, 24) for n in lengths] and min(lengths) < 24 < max(lengths)


def test_no_text_that_answers_a_question_is_its_negative(world):
    """Pairs are made of the first answers; all answers and all texts of other pairs are kept out of the negatives."""
    pairs, rows = world.variables["pairs"], world.variables["train_rows"]
    answers = {i for row in world.questions["train"] for i in row["answers"][:-1]}
    first = [text[:text.index(".") + 1] for text in world.texts]
    assert len(pairs) == 14 + 40 and len(rows) == 48 and max(len(row["answers"]) for row in world.questions["train"]) > 2
    for pair, row in zip(pairs, world.questions["train"]):
        document = world.texts[world.ids.index(row["answers"][0])]
        assert pair == {"question": row["question"], "id": row["answers"][0], "document": document, "answers": row["answers"][:-1]}
    for pair in pairs[14:]:
        i = world.ids.index(pair["id"])
        assert pair["id"] not in answers and first.count(first[i]) == 1 and pair["question"] == first[i]
        assert pair["document"].strip() == world.texts[i].removeprefix(first[i]).strip() and len(pair["document"]) >= 60
    validation = world.variables["validation_rows"]
    known = {i for row in world.questions["validation"] for i in row["answers"][:-1]}
    assert [row["id"] for row in validation] == [row["answers"][0] for row in world.questions["validation"]]
    for found, used, n in [(rows, answers | {pair["id"] for pair in pairs}, 1), (validation, known, 5)]:
        free = [i for i, name in enumerate(world.ids) if name not in used]
        similar = vectors_of(world.base, [row["question"] for row in found], 24) @ world.vectors[world.base][free].T
        for row, scores in zip(found, similar):
            assert len(row["negatives"]) == n and used.isdisjoint(world.ids[world.texts.index(text)] for text in row["negatives"])
            negatives = [free.index(world.texts.index(text)) for text in row["negatives"]]
            assert np.allclose(scores[negatives], -np.sort(-scores)[5:5 + n], atol=1e-5), "behind the first five"


def test_the_losses_on_one_batch_are_those_that_sentence_transformers_gives(world):
    found = world.variables
    theirs = MultipleNegativesRankingLoss(None, scale=1 / 0.1)

    def expected(rows):
        queries = torch.tensor(vectors_of(world.base, [row["question"] for row in rows], 24))
        texts = [text for row in rows for text in (row["document"], *row["negatives"])]
        documents = torch.tensor(vectors_of(world.base, texts, 24)).view(len(rows), 2, -1)
        return queries, documents, theirs.compute_loss_from_embeddings([queries, *documents.unbind(dim=1)], None).item()

    queries, documents, loss = expected(found["train_rows"][:8])
    for side, vectors in {"queries": queries, "documents": documents}.items():
        assert torch.allclose(found["outputs"][side], vectors, atol=1e-5), side
    labels = found["labels"]
    assert found["compute_loss"](found["outputs"], labels).item() == pytest.approx(loss, rel=1e-4)
    assert found["compute_loss"](found["outputs"], labels, torch.tensor(20)).item() == pytest.approx(loss * 8 / 20, rel=1e-4)
    assert found["losses_by_hand"].mean().item() == pytest.approx(expected(found["train_rows"][:3])[2], rel=1e-4)


def test_validation_before_training_is_a_search_by_the_pretrained_encoder(world):
    found, rows = world.variables, world.variables["validation_rows"]
    texts = [text for row in rows for text in (row["document"], *row["negatives"])]
    cosines = vectors_of(world.base, [row["question"] for row in rows], 24) @ vectors_of(world.base, texts, 24).T
    right = np.arange(0, len(texts), 6)
    loss = F.cross_entropy(torch.tensor(cosines) / 0.1, torch.tensor(right)).item()
    mrr = judged(order(cosines, len(texts)), [[i] for i in right])["mrr@10"]
    assert found["before_training"] == pytest.approx({"loss": loss, "mrr@10": mrr}, rel=1e-4)


def test_the_comparison_puts_the_largest_gains_first_and_the_largest_losses_last(world):
    found, shown = world.variables, table_with(world, "pretrained encoder")
    for name in ("BM25", "pretrained encoder", "fine-tuned encoder"):
        assert found["by_question"][name].tolist() == [
            min((ranking.index(i) + 1 for i in answers if i in ranking), default=101)
            for ranking, answers in zip(found["rankings"][name], world.relevant)
        ]
    assert found["by_question"]["answer"].tolist() == [world.ids[answers[0]] for answers in world.relevant]
    scores = {
        name: [judged([row], [answers])["ndcg@10"] for row, answers in zip(found["rankings"][name], world.relevant)]
        for name in ("pretrained encoder", "fine-tuned encoder")
    }
    gains = {q: b - a for q, a, b in zip(world.asked, scores["pretrained encoder"], scores["fine-tuned encoder"])}
    best, worst = sorted(gains.values(), reverse=True)[:5], sorted(gains.values(), reverse=True)[-5:]
    assert best[0] > 0 > worst[-1] and [gains[question] for question in shown["question"]] == pytest.approx(best + worst)
    ranks = found["by_question"]["fine-tuned encoder"].tolist()
    lost = table_with(world, "found instead")
    assert [ranks[world.asked.index(question)] for question in lost["question"]] == sorted(ranks, reverse=True)[:8]
    sentence = {name: text[:text.index(".") + 1] for name, text in zip(world.ids, world.texts)}
    for row in lost.to_dict("records"):
        i = world.asked.index(row["question"])
        right, instead = world.ids[world.relevant[i][0]], world.ids[found["rankings"]["fine-tuned encoder"][i][0]]
        assert [*row.values()] == [row["question"], right, sentence[right], instead, sentence[instead]]


def test_the_share_of_words_is_that_of_the_best_answer(world):
    expected = []
    for question, answers in zip(world.asked, world.relevant):
        words = {*question.split()} - {*STOPWORDS_EN}
        expected.append(max(len(words & {*world.texts[i].replace(".", "").split()}) / len(words) for i in answers))
    assert world.variables["shares"] == pytest.approx(expected) and len(set(expected)) > 3


def test_the_search_of_the_saved_folder_gives_the_most_similar_entries_best_first(world):
    found, shown = world.variables, table_with(world, "query")
    for query in found["queries"] + world.asked[:3]:
        hits = found["search"](query, k=4)
        scores = (vectors_of(world.tuned, [query], 24) @ world.vectors[world.tuned].T)[0]
        assert is_best_first([world.ids.index(hit["name"]) for hit in hits], scores, 4)
        for hit in hits:
            i = world.ids.index(hit["name"])
            assert hit["score"] == pytest.approx(scores[i], abs=1e-5) and world.texts[i].startswith(hit["summary"])
    assert shown["query"].tolist() == [query for query in found["queries"] for _ in range(5)]


def test_the_search_needs_nothing_of_the_notebook_but_its_folder(world):
    alone = definitions(FOLDER, PAIR[0], "Search")(world.run / "model")
    assert alone(world.asked[0], k=3) == world.variables["search"](world.asked[0], k=3)


def test_what_goes_wrong_goes_wrong_as_it_is_said(world):
    found, tables = world.variables, {tuple(table.index): table for table in world.tables}
    right = order(world.cosines[world.tuned])
    means = found["raw_vectors"](world.texts[:30]).numpy()
    assert np.allclose(means / np.linalg.norm(means, axis=1, keepdims=True), world.vectors[world.tuned][:30], atol=1e-5)
    assert np.ptp(np.linalg.norm(means, axis=1)) > 0.1, "of the lengths that pooling gives"
    part = found["part"]
    assert len(part) < len(world.texts) and {i for answers in world.relevant for i in answers} <= {*part}
    labels = [[part.index(i) for i in answers] for answers in world.relevant]
    queries, raw = vectors_of(world.tuned, world.asked, 24), found["raw"].numpy()
    assert np.allclose(raw, np.concatenate([found["raw_vectors"]([world.texts[i]]) for i in part]), atol=1e-5)
    expected = {
        "smallest distance first": judged(right, world.relevant),
        "largest distance first": judged([row[::-1] for row in right], world.relevant),
        "not normalised": judged(order(queries @ raw.T, 10), labels),
        "length 1": judged(order(world.cosines[world.tuned][:, part], 10), labels),
    }
    for name, scores in expected.items():
        assert next(table for index, table in tables.items() if name in index).loc[name].to_dict() == pytest.approx(scores, abs=6e-4), name
    encoder, tokenizer = found["encoder"], found["tokenizer"]
    with torch.no_grad():
        inputs = tokenizer([found["text"], found["longer_text"]], padding=True, truncation=True, return_tensors="pt")
        hidden = encoder(**inputs).last_hidden_state
    assert torch.allclose(found["plain_beside"], F.normalize(hidden[0].mean(dim=0), dim=0), atol=1e-5)
    pooled = torch.tensor(vectors_of(world.tuned, [found["text"]], 24)[0])
    for name in ("plain_alone", "masked_alone", "masked_beside"):
        assert torch.allclose(found[name], pooled, atol=1e-5), name


# ---------------------------------------------------------------------------------------------------- helpers on what the runs do not meet


def test_rank_metrics_are_those_of_sentence_transformers_also_with_more_answers_than_are_looked_at():
    rng = np.random.default_rng(0)
    rankings = [rng.permutation(40).tolist() for _ in range(30)]
    relevant = [rng.choice(40, n, replace=False).tolist() for n in [1, 2, 3, 5, 12, 20] * 5]
    expected = judged(rankings, relevant)
    assert common.rank_metrics(rankings, relevant) == pytest.approx(expected) and len({*expected.values()}) == 4
    assert common.rank_metrics([row[:10] for row in rankings], relevant) == pytest.approx(expected), "only the first ten count"


def test_validation_is_a_search_among_the_texts_of_all_questions():
    vectors = torch.randn(60, 4, 5, generator=torch.Generator().manual_seed(0))
    vectors[:, 1] += vectors[:, 0]
    queries, documents = F.normalize(vectors[:, 0], dim=-1), F.normalize(vectors[:, 1:], dim=-1)
    rankings = order(queries @ documents.flatten(0, 1).T, 180)
    assert {1, 10, 11} <= {ranking.index(3 * i) + 1 for i, ranking in enumerate(rankings)}, "ranks on both sides of the last that counts"
    loss = MultipleNegativesRankingLoss(None, scale=1 / 0.2).compute_loss_from_embeddings([queries, *documents.unbind(dim=1)], None)
    expected = {"loss": loss.item(), "mrr@10": judged(rankings, [[3 * i] for i in range(60)])["mrr@10"]}
    _, validate = definitions(FOLDER, PAIR[0], "compute_cosines", "validate", torch=torch, F=F, temperature=0.2)
    numbers = torch.arange(180).view(60, 3)
    assert validate(queries=queries, documents=documents, texts=numbers, right=numbers[:, :1]) == pytest.approx(expected, rel=1e-5)


def test_what_an_approximate_index_costs_is_counted_per_question_and_per_index():
    clock = SimpleNamespace(perf_counter=itertools.count().__next__)
    measure = definitions(FOLDER, PAIR[0], "measure_indexes", faiss=faiss, np=np, pd=pd, time=clock)
    vectors = np.random.default_rng(0).standard_normal((400, 8), dtype=np.float32)
    faiss.normalize_L2(vectors)
    table = measure(vectors[:-5], vectors[-5:], num_lists=40)
    assert table["ms"].tolist() == [1000.0] * 13 and table["build s"].tolist() == [1] * 13, "by a clock that moves a second when it is read"
    assert table["recall"].tolist() == pytest.approx(recalls_at_10(vectors[:-5], vectors[-5:], 40)) and table["recall"].nunique() > 3
    assert table["setting"].tolist() == ["", *(f"nprobe={2 ** i}" for i in range(6)), *(f"efSearch={2 ** i}" for i in range(3, 9))]


def test_an_answer_counts_from_the_version_on_that_has_it():
    major, minor = sys.version_info[:2]
    here = {"always": "", "now": f"{major}.{minor}", "before": f"{major}.9", "long ago": "2.99"}
    versions = here | {"next": f"{major}.{minor + 1}", "later": f"{major + 1}.0"}
    assert stdlib.in_this_python([*versions], [*versions.values()]) == [*here]


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("Is it? Yes.", "Is it?"), ("Names, i.e. words. More.", "Names, i.e. words."), ("Call a.b first.\nThen d.", "Call a.b first."),
        ("  Spaces   and\n  lines. More.", "Spaces and lines."), ("No end\n\nThe end.", "No end"), ("", ""),
    ],
)
def test_a_first_sentence_ends_with_its_mark(text, sentence):
    assert stdlib.first_sentence(text) == sentence


def test_pairs_of_sentences_depend_on_the_seed_and_leave_short_ones_out():
    def entry(name, sentence, rest):
        return {"id": name, "summary": sentence, "text": f"{name}: {sentence}{rest}"}

    collection = Dataset.from_list([
        *(entry(f"p{i}", f"This is sentence number {i}.", f" {'rest ' * 12}{i}") for i in range(30)),
        entry("short", "Eighteen letters..", "x" * 60), entry("least", "Just twenty letters.", "x" * 60),
        entry("little", "Twenty letters are it.", "x" * 59),
    ])
    assert {pair["id"] for pair in common.sentence_pairs(collection, 99, 0, set())} == {*(f"p{i}" for i in range(30)), "least"}
    chosen = [[pair["id"] for pair in common.sentence_pairs(collection, 6, seed, set())] for seed in (1, 1, 2)]
    assert chosen[0] == chosen[1] != chosen[2] and list(map(len, chosen)) == [6, 6, 6] and chosen[0] != sorted(chosen[0])


# ---------------------------------------------------------------------------------------------------- the standard library

# modules in whose names, documentation and signatures importing and parsing them agree, in every supported version of Python
MODULES = """
    base64 cmd copy csv datetime difflib fileinput fnmatch fractions functools getpass glob gzip heapq hmac http.client http.cookies
    imaplib ipaddress itertools linecache logging.handlers math mimetypes netrc numbers operator pkgutil plistlib poplib pprint
    sched shelve shlex socketserver statistics string symtable tempfile textwrap time urllib.parse urllib.robotparser warnings wave
    webbrowser wsgiref.handlers zipapp zoneinfo
""".split()


@pytest.fixture(scope="module")
def entries():
    """name -> (signature, documentation) in these modules and those below or beside them; all would take long."""
    stdlib = stdlib_module()
    packages = {name.split(".")[0] for name in [*MODULES, "asyncio", "builtins"]}
    public = [name for name in stdlib.public_modules() if name.split(".")[0] in packages]
    stdlib.public_modules = lambda: public
    return {name: (signature, doc) for name, signature, doc in stdlib.standard_library()}


def documented(module):
    """{name: object} of what a module exports, and of what its classes define, as far as it has documentation of its own.

    A method counts for a class also if it is defined in a base that is not exported.
    """
    home, found = importlib.import_module(module), {}
    names = getattr(home, "__all__", None) or [name for name, value in vars(home).items() if getattr(value, "__module__", "") == module]
    names = [name for name in names if name[0] != "_"]
    for name in names:
        value = getattr(home, name)
        bases = [base for base in value.__mro__ if base is value or base.__module__ == module] if inspect.isclass(value) else []
        if bases or inspect.isroutine(value):
            found[f"{module}.{name}"] = value
        for base in bases:
            for key, child in vars(base).items() if base is value or base.__name__ not in names else []:
                child = child if isinstance(child, (property, cached_property)) else getattr(value, key)
                if key[0] != "_" and (isinstance(child, (property, cached_property)) or inspect.isroutine(child)):
                    found.setdefault(f"{module}.{name}.{key}", child)
    docs = {name: vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__ for name, value in found.items()}
    found = {name: value for name, value in found.items() if isinstance(docs[name], str) and docs[name].strip()}
    first = {getattr(value, "__func__", value): name for name, value in reversed(found.items())}  # what two classes share has one entry
    return {name: value for name, value in found.items() if first[getattr(value, "__func__", value)] == name}


def written_parameters(value):
    """The parameters of a function or class as its source has them, without the first of a method; None if it has no source."""
    function = vars(value).get("__init__") if inspect.isclass(value) else value
    if not (inspect.isfunction(function) or inspect.ismethod(function)):
        return None
    written = ast.unparse(ast.parse(textwrap.dedent(inspect.getsource(function))).body[0].args)
    first, _, rest = written.removeprefix("/, ").partition(", ")
    return f"({rest.removeprefix('/, ')})" if first in ("self", "cls") else f"({written})"


@pytest.mark.parametrize("module", MODULES)
def test_entries_of_the_standard_library_are_what_inspect_finds(entries, module):
    expected = documented(module)
    assert {name for name in entries if name.startswith(f"{module}.")} == set(expected)
    for name, value in expected.items():
        signature, doc = entries[name]
        whole = inspect.getdoc(value).strip()
        assert doc and whole.endswith(doc) and (len(doc) == len(whole) or "(" in whole[:-len(doc)]), "but for calls at the top"
        assert written_parameters(value) in (None, signature), name


def test_coroutines_are_read_from_the_source(entries):
    found = {name: value for name, value in documented("asyncio").items() if inspect.iscoroutinefunction(value)}
    assert {"asyncio.sleep", "asyncio.open_unix_connection", "asyncio.Queue.get"} <= set(found)
    assert {name: entries[name] for name in found} == {
        name: (written_parameters(value), inspect.getdoc(value).strip()) for name, value in found.items()
    }


def test_nothing_private_or_only_for_the_prompt_is_in_the_collection(entries):
    assert "sorted" in entries and not {"help", "credits", "copyright", "license"} & set(entries)
    assert not [name for name in entries if "._" in name]


def test_the_library_is_walked_by_the_running_python(monkeypatch, tmp_path):
    """In a process of its own, whose lines become entries: searched by name, signature and documentation."""
    rows = "[['a.b', '(c)', 'Do it. Then\\nmore.'], ['d', '()', sys.executable], ['e', '()', str(sys.flags.isolated)]]"
    (tmp_path / "stdlib.py").write_text(f"import json, sys\nfor row in {rows}: print(json.dumps(row))")
    walked = stdlib_module()
    monkeypatch.setattr(walked, "__file__", str(tmp_path / "stdlib.py"))
    first, second, third = walked.load()
    assert first == {"id": "a.b", "summary": "Do it.", "text": "a.b(c): Do it. Then\nmore."}
    assert (second["text"], third["text"]) == (f"d(): {sys.executable}", "e(): 1")


def test_the_collection_is_what_the_module_loads(monkeypatch):
    rows = [{"id": "a", "summary": "It is.", "text": "a(): It is."}]
    monkeypatch.setattr("runpy.run_path", lambda path: {"load": lambda: rows} if path.endswith("data/stdlib.py") else {})
    assert common.load_collection("stdlib", {}).to_list() == rows
