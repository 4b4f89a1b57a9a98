"""Readers of the public system outputs with official scores in the real data."""

import csv
from pathlib import Path

Texts = tuple[list[list[str]], list[str]]


def e2e_baseline(data: Path) -> Texts:
    """References per input of the E2E test set, and the outputs of TGen, its baseline."""
    with (data / "e2e/testset_w_refs.csv").open(encoding="utf-8", newline="") as file:
        groups: dict[str, list[str]] = {}
        for row in csv.DictReader(file):
            groups.setdefault(row["mr"], []).append(row["ref"])
    with (data / "scorer_examples/e2e/tgen.tsv").open(encoding="utf-8", newline="") as file:
        outputs = {row["MR"]: row["output"] for row in csv.DictReader(file, delimiter="\t")}
    return list(groups.values()), [outputs[mr] for mr in groups]


def e2e_example(data: Path) -> Texts:
    """The ten instances that come with the official E2E scorer."""
    folder = data / "scorer_examples/e2e"
    blocks = (folder / "devel-conc.txt").read_text(encoding="utf-8").strip().split("\n\n")
    outputs = (folder / "baseline-output.txt").read_text(encoding="utf-8").splitlines()
    return [block.split("\n") for block in blocks], outputs


def webnlg_participant(data: Path, part: str) -> Texts:
    """One participant's outputs as the organizers scored them, with the three reference files."""
    folder = data / "scorer_examples/webnlg"
    columns = [
        (folder / f"gold-{part}-cat-reference{number}.lex").read_text().split("\n")[:-1]
        for number in range(3)
    ]
    outputs = (folder / f"UPF-TALN_{part}-cat.txt").read_text().split("\n")[:-1]
    return [list(group) for group in zip(*columns, strict=True)], outputs
