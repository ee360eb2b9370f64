"""What comes of the recipes of semantic search; see recipes.py."""

EFFECTS = {}
SAME = set()
APART = set()
PARAMETERS = {}
SLOW = set()
