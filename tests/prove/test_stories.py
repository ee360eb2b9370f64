"""The stories of causal_language_modeling/ are what their grammar writes."""

from test_causal_language_modeling import FOLDER, SIZES, make_stories, rows_of


def test_the_files_are_what_the_grammar_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(make_stories, "HERE", tmp_path)
    make_stories.main()
    for world, sizes in SIZES.items():
        for split, size in zip(("train", "validation", "test"), sizes):
            rows = rows_of(FOLDER / "data", world, split)
            assert len(rows) == size and rows == rows_of(tmp_path, world, split), "run data/make_stories.py"
