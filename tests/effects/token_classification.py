"""What comes of the recipes of token classification; see recipes.py."""

EFFECTS = {}
SAME = set()
APART = set()
PARAMETERS = {}
SLOW = set()
