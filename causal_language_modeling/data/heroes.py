"""Does a story keep to its hero? These functions read stories of the grammar in make_stories.py, and no others."""

import re

# The ways in which a story says who it is about, in the first sentence after its title.
INTRODUCED = re.compile(r"\b(?:called|named|lived|knew) ([A-Z][a-z]+)\b|(?:^|\. )([A-Z][a-z]+) was an? |\bas \w+ as ([A-Z][a-z]+)\.")
PRONOUNS = {"he": {"he", "him", "his", "himself"}, "she": {"she", "her", "hers", "herself"}}


def introduced(text: str) -> str | None:
    """The name that the first two sentences of a story, one of which may be a title, give its hero, or None."""
    first_sentences = re.match(r"(?:.*?[.!?](?=\s|$)){1,2}|.*", text)[0]
    found = INTRODUCED.search(first_sentences)
    return next(filter(None, found.groups()), None) if found else None


def consistent(text: str, names: set[str]) -> bool:
    """Whether a story keeps to its hero: it has no other name than the one it introduces, and not both *he* and *she*.

    Args:
        text: a story.
        names: all names that heroes have.
    """
    words = re.findall(r"[A-Za-z]+", text)
    lower = {word.lower() for word in words}
    num_pronouns = sum(bool(forms & lower) for forms in PRONOUNS.values())
    hero = introduced(text)
    return hero is not None and names & set(words) == {hero} and num_pronouns < 2
