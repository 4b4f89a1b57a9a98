"""Predictions that are the same for every example, however good their score looks. No torch."""

from collections.abc import Sequence
from pathlib import Path


def constant(predictions: Sequence[str]) -> bool:
    """Whether several predictions are all the same."""
    return len(predictions) > 1 and len(set(predictions)) == 1


def constant_ranks(outputs: Path, splits: Sequence[str]) -> dict[str, str]:
    """What a run predicts throughout, by the rank at which it does so on one of the splits."""
    found: dict[str, str] = {}
    for split in splits:
        for path in sorted(outputs.glob(f"{split}.rank*.txt")):
            lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
            if constant(lines):
                found.setdefault(path.stem.rpartition(".rank")[2], lines[0])
    return found
