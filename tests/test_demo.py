"""What the demo prints follows from the records, whichever way they turn out."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from runs import config, write

from dylora.results.curves import Panel, panels
from dylora.results.runs import load_records

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
import demo  # noqa: E402


def panel_of(tmp_path: Path, lora: dict[int, tuple[float, float]], sorted_at_1: float) -> Panel:
    """Runs with these accuracies at ranks 1 and 8 by seed; DyLoRA has 0.9 and 0.92."""
    for seed, (first, last) in lora.items():
        scores = {"1": {"accuracy": first}, "8": {"accuracy": last}}
        ordered = {"1": {"accuracy": sorted_at_1}, "8": {"accuracy": last}}
        run = config("rte", "lora", seed, max_rank=8)
        write(tmp_path, run, scores=scores, truncations={"svd": ordered})
        scores = {"1": {"accuracy": 0.9}, "8": {"accuracy": 0.92}}
        write(tmp_path, config("rte", "dylora", seed, max_rank=8), scores=scores)
    (panel,) = panels(load_records(tmp_path / "records")[0])
    return panel


def test_the_effect_shows_when_every_seed_agrees(tmp_path: Path) -> None:
    panel = panel_of(tmp_path, {1: (0.5, 0.9), 2: (0.6, 1.0)}, sorted_at_1=0.8)
    said = demo.sentence(panel, "accuracy")
    assert "At rank 1: DyLoRA 90.0, LoRA sorted by SVD 80.0, LoRA truncated 55.0" in said
    assert "2 seeds" in said
    assert "LoRA loses 40.0 points, DyLoRA 2.0: the effect shows" in said


def test_the_effect_is_absent_when_one_seed_does_not_show_it(tmp_path: Path) -> None:
    panel = panel_of(tmp_path, {1: (0.5, 0.9), 2: (0.9, 0.95)}, sorted_at_1=0.8)
    said = demo.sentence(panel, "accuracy")
    assert "ABSENT" in said and "effect shows" not in said


def test_ranks_stand_side_by_side_with_their_spread(tmp_path: Path) -> None:
    panel = panel_of(tmp_path, {1: (0.5, 0.9), 2: (0.6, 0.9)}, sorted_at_1=0.8)
    lines = [line.split() for line in demo.table(panel.series, "accuracy").splitlines()]
    assert lines[0] == ["rank", "DyLoRA", "LoRA", "truncated", "LoRA", "sorted", "by", "SVD"]
    assert lines[1] == ["1", "90.0", "±", "0.0", "55.0", "±", "7.1", "80.0", "±", "0.0"]
    assert lines[2] == ["8", "92.0", "±", "0.0", "90.0", "±", "0.0", "90.0", "±", "0.0"]


def test_the_picture_has_every_method_and_no_colors_where_nobody_watches(tmp_path: Path) -> None:
    drawn = demo.picture(panel_of(tmp_path, {1: (0.5, 0.9)}, sorted_at_1=0.8), "accuracy")
    assert "\x1b" not in drawn
    assert all(name in drawn for name in ("DyLoRA", "LoRA truncated", "LoRA sorted by SVD"))
    assert all(len(line) <= demo.CHART[0] for line in drawn.splitlines())


@pytest.mark.slow
def test_the_demo_shows_the_effect_a_picture_and_texts(tmp_path: Path) -> None:
    """With one seed of classification; the tiny models are made below the default cache."""
    command = [sys.executable, "scripts/demo.py", "seeds=1", f"results={tmp_path}"]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert out.count("dylora run task=") == 4 and "[4/4]" in out
    assert "the effect shows" in out
    accuracy = re.findall(r"^ +([1-8]) +(\d+\.\d) +(\d+\.\d) +\d+\.\d$", out, flags=re.MULTILINE)
    pair = {int(rank): (float(dylora), float(lora)) for rank, dylora, lora in accuracy[-8:]}
    assert min(pair[8]) > 90  # both good at rank 8
    assert pair[1][0] > 75 > pair[1][1]  # only DyLoRA at rank 1
    assert out.count("  reference: ") == 2 and out.count("LoRA sorted by SVD, rank 1:") == 2
    for name in ("Picture", "Page"):
        printed = re.search(rf"^{name}: +(.+)$", out, flags=re.MULTILINE)
        assert printed is not None and Path(printed[1]).is_file()
