"""What comes of the recipes of causal language modeling; see recipes.py."""

EFFECTS = {}
SAME = set()
APART = set()
PARAMETERS = {}
SLOW = set()
