"""What the tests put into the notebooks from outside: the names of stand-ins (see stand_ins.py), and sizes to go with them."""

# As nbval runs every notebook in `make test`, the slowest first: small models with the tokenizers of the real ones. Where the data are
# small already they stay, so that cells with deterministic output, which are tagged, can be compared with what is committed.
SMALL = {
    "causal_language_modeling": {"max_rows": 120},
    "semantic_search": {
        "checkpoint": "stand-in/all-MiniLM-L6-v2", "sparse_checkpoint": "stand-in/splade-tiny", "dataset_id": "stand-in/passages",
        "questions_id": "stand-in/questions", "num_pairs": 32, "num_made": 1_000, "batch_size": 8, "num_epochs": 2,
    },
    "token_classification": {"checkpoint": "stand-in/all-MiniLM-L6-v2", "num_epochs": 2},
    "masked_language_modeling": {
        "checkpoint": "stand-in/splade-tiny", "dataset_id": "stanfordnlp/imdb", "block_size": 16, "batch_size": 4, "num_draws": 1,
    },
    "sequence_classification": {"checkpoint": "stand-in/all-MiniLM-L6-v2"},
}
# cells, by a name that they make, whose output is not the committed one with these parameters, deterministic as it is
OTHERWISE = {"causal_language_modeling": {"sets", "known", "documents"}}

# What the proofs run each folder on: data from which a tiny model can learn something, in sizes that leave a short last batch and,
# at two batches per step, a short last accumulation step
LEARNABLE = {
    "sequence_classification": {
        "checkpoint": "distilbert/distilbert-base-uncased", "dataset_id": "dair-ai/emotion",
        "num_epochs": 5, "batch_size": 4, "learning_rate": 1e-2, "head_learning_rate": 1e-2,
    },
    "token_classification": {
        "checkpoint": "distilbert/distilbert-base-cased", "dataset_id": "lhoestq/conll2003",
        "num_epochs": 5, "batch_size": 4, "learning_rate": 1e-2,
    },
    "semantic_search": {
        "checkpoint": "distilbert/distilbert-base-uncased", "sparse_checkpoint": "distilbert/distilbert-base-uncased",
        "dataset_id": "stand-in/passages", "questions_id": "stand-in/questions",
        "num_pairs": 32, "num_made": 1_000, "num_epochs": 5, "batch_size": 8, "learning_rate": 1e-3,
    },
    "masked_language_modeling": {
        "checkpoint": "distilbert/distilbert-base-uncased", "dataset_id": "stanfordnlp/imdb",
        "block_size": 16, "num_epochs": 5, "batch_size": 4, "learning_rate": 1e-2, "num_draws": 1,
    },
    "causal_language_modeling": {
        "checkpoint": "HuggingFaceTB/SmolLM2-135M", "dataset_id": "roneneldan/TinyStories", "domain_id": "stanfordnlp/imdb",
        "instructions_id": "HuggingFaceTB/smol-smoltalk", "block_size": 16, "batch_size": 4, "num_epochs": 6, "learning_rate": 2e-2,
        "domain_epochs": 5, "instruction_epochs": 4,
    },
}
NO_DROPOUT = {folder: {"checkpoint": "stand-in/no-dropout", "num_epochs": 3} for folder in LEARNABLE}
NO_DROPOUT["causal_language_modeling"] = {"num_epochs": 2}  # the architecture has none
# the folders below a run in which stages keep their checkpoints, in the order in which they are trained, with their epochs
STAGES = {
    "causal_language_modeling": {
        "1-pretraining": "num_epochs", "2-only-new": "domain_epochs", "2-new-domain": "domain_epochs",
        "3-instructions": "instruction_epochs",
    }
}
# the validation score that chooses the best checkpoint; with a minus, lower is better
BEST_BY = {
    "sequence_classification": "f1", "token_classification": "f1", "semantic_search": "mrr@10", "masked_language_modeling": "-perplexity",
    "causal_language_modeling": "-loss",
}
# Scores that count rows are the same on any number of processes; perplexity is as continuous as the losses and has their last bits.
METRIC_TOLERANCE = {"masked_language_modeling": {"rel": 1e-5}, "causal_language_modeling": {"rel": 1e-5}}
