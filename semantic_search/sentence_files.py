"""Reads and writes the files in which an encoder says how it makes its vectors, as the library sentence-transformers has them."""

import json
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from transformers import PreTrainedTokenizerBase

MODULES = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}  # what we can do, and where we save it
POOLING = ("mean", "cls", "lasttoken")  # the vector of a text: the mean of its tokens' vectors, that of the first, or of the last


def read_json(checkpoint: str, name: str) -> dict | list | None:
    """A file of a checkpoint, which is a local folder or a name on the Hub; None if it is not there, or not in the cache when offline."""
    try:
        path = Path(checkpoint, name) if Path(checkpoint).is_dir() else hf_hub_download(checkpoint, name)
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, EntryNotFoundError):
        return None


def read_settings(
    checkpoint: str, tokenizer: PreTrainedTokenizerBase, query_prompt: str | None = None, document_prompt: str | None = None
) -> tuple[str, str, str, int]:
    """How an encoder wants its texts, and how it makes one vector of the vectors of their tokens.

    Args:
        tokenizer: that of the checkpoint, as it was loaded.
        query_prompt, document_prompt: what to put before each question and each text; None for what the checkpoint says.

    Returns:
        The pooling (one of POOLING), both prompts, and the number of tokens that the encoder was made for.

    Raises:
        ValueError: the checkpoint asks for something else.
    """
    config = read_json(checkpoint, "config_sentence_transformers.json") or {}
    prompts, default = config.get("prompts") or {}, config.get("default_prompt_name")

    def prompt(*names):
        general = [default] if default not in ("query", "document", "passage", "corpus") else []
        return next((prompts[name] for name in [*names, *general] if prompts.get(name) is not None), "")

    query_prompt = prompt("query") if query_prompt is None else query_prompt
    document_prompt = prompt("document", "passage", "corpus") if document_prompt is None else document_prompt

    modules, unable = read_json(checkpoint, "modules.json"), []
    if modules is None:
        print(f"{checkpoint} doesn't say how it pools (there is no modules.json): we take the mean")
        modules, pooling, modes = [], {}, ["mean"]
    else:
        paths = {module["type"].split(".")[-1]: module["path"] for module in modules}
        unable += [module["type"] for module in modules if module["type"].split(".")[0] != "sentence_transformers"
                   or module["type"].split(".")[-1] not in MODULES]
        pooling = read_json(checkpoint, f"{paths.get('Pooling', MODULES['Pooling'])}/config.json") or {}
        modes = pooling.get("pooling_mode") or [
            key.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")
            for key, value in pooling.items() if key.startswith("pooling_mode_") and value] or ["mean"]
        modes = [modes] if isinstance(modes, str) else list(modes)
        if "Pooling" not in paths and not unable:
            unable.append("vectors without Pooling")
    if len(modes) > 1 or modes[0] not in POOLING:
        unable.append(f"the pooling {' and '.join(modes)}")
    if not pooling.get("include_prompt", True) and (query_prompt or document_prompt):
        unable.append("pooling without the prompt (include_prompt)")
    transformer = read_json(checkpoint, "sentence_bert_config.json") or {}
    if transformer.get("do_lower_case") and tokenizer.tokenize("A") != tokenizer.tokenize("a"):
        unable.append("texts in lower case (do_lower_case)")
    if unable:
        raise ValueError(f"{checkpoint} asks for {', '.join(unable)}, which these notebooks can't do: choose an encoder whose modules.json "
                         "names no more than Transformer, Pooling (the mean, the first or the last token) and Normalize")
    if config.get("similarity_fn_name") not in (None, "cosine"):
        print(f"{checkpoint} compares vectors by {config['similarity_fn_name']!r}; we compare them by their cosine")
    print(f"pooling: {modes[0]}; before each question: {query_prompt!r}, before each text: {document_prompt!r}")
    return modes[0], query_prompt, document_prompt, transformer.get("max_seq_length") or tokenizer.model_max_length


def save_settings(folder: str | Path, width: int, pooling: str, query_prompt: str, document_prompt: str, max_length: int) -> None:
    """Write these files beside a saved encoder, so that `SentenceTransformer(folder)` makes the same vectors, of `width` numbers."""
    modules = [{"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
               for i, (kind, path) in enumerate(MODULES.items())]
    files = {
        "modules.json": modules,
        "1_Pooling/config.json": {"word_embedding_dimension": width, "pooling_mode": pooling},
        "sentence_bert_config.json": {"max_seq_length": max_length, "do_lower_case": False},
        "config_sentence_transformers.json": {
            "prompts": {"query": query_prompt, "document": document_prompt}, "default_prompt_name": None, "similarity_fn_name": "cosine"},
    }
    for name, content in files.items():
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2), encoding="utf-8")
