"""Preprocessing and display helpers that both notebooks of this folder import."""


import numpy as np
import torch

from helpers import advise, compare, count_unknown, own_device, plot_curves, readable_length, show, start_run  # noqa: F401, for the notebooks
from reading import WORD, load_collection, load_questions, question_pairs, sentence_pairs, shorten  # noqa: F401, for the notebooks
from sentence_files import read_settings, save_settings  # noqa: F401


def pool(hidden: torch.Tensor, attention_mask: torch.Tensor, mode: str = "mean", normalize: bool = True) -> torch.Tensor:
    """One vector for each text, of length 1 if `normalize`.

    Args:
        hidden: (texts, tokens, width), the vectors of the tokens.
        attention_mask: (texts, tokens), 1 for tokens and 0 for padding, which may be on either side.
        mode: "mean" of the tokens' vectors, or the vector of the first ("cls") or the last token ("lasttoken").

    Returns:
        (texts, width).
    """
    if mode == "mean":
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        vectors = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
    else:
        first, last = attention_mask.argmax(dim=1), attention_mask.cumsum(dim=1).argmax(dim=1)
        position = {"cls": first, "lasttoken": last}[mode]
        vectors = hidden[torch.arange(len(hidden), device=hidden.device), position]
    return torch.nn.functional.normalize(vectors, dim=-1) if normalize else vectors


def rank_metrics(rankings: list[list[int]], relevant: list[list[int]]) -> dict[str, float]:
    """Recall at 1 and 10, reciprocal rank and nDCG at 10, each from 0 to 1 and averaged over the questions.

    Args:
        rankings: for each question the entries that were found, best first, at least ten of them.
        relevant: for each question the entries that answer it, at least one.
    """
    rows = []
    for found, answers in zip(rankings, relevant, strict=True):
        hits = [rank for rank, entry in enumerate(found[:10], start=1) if entry in answers]
        best = sum(1 / np.log2(rank + 1) for rank in range(1, min(len(answers), 10) + 1))
        rows.append({
            "recall@1": sum(rank == 1 for rank in hits) / len(answers),
            "recall@10": len(hits) / len(answers),
            "mrr@10": 1 / hits[0] if hits else 0.0,
            "ndcg@10": sum(1 / np.log2(rank + 1) for rank in hits) / best,
        })
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
