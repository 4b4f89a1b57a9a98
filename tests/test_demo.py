"""What the demo prints follows from the records, whichever way they turn out."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
import demo  # noqa: E402


def runs(*scores: tuple[float, float]) -> list[dict]:
    """Records of one run per seed, with these accuracies at rank 1 and rank 8."""
    return [
        {"scores": {"1": {"accuracy": first}, "8": {"accuracy": last}}} for first, last in scores
    ]


def verdict(lora: list[dict], dylora: list[dict], capsys: pytest.CaptureFixture[str]) -> str:
    demo.print_verdict({"lora": lora, "dylora": dylora}, "accuracy")
    return capsys.readouterr().out


def test_the_effect_shows_when_every_seed_agrees(capsys: pytest.CaptureFixture[str]) -> None:
    out = verdict(runs((0.5, 0.9), (0.6, 1.0)), runs((0.88, 0.9), (0.9, 0.92)), capsys)
    assert "LoRA loses 40.0 points, DyLoRA 2.0 (mean of 2 seeds)" in out
    assert "The effect shows" in out


def test_the_effect_is_absent_when_one_seed_does_not_show_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = verdict(runs((0.5, 0.9), (0.9, 0.95)), runs((0.88, 0.9), (0.9, 0.92)), capsys)
    assert "ABSENT" in out and "effect shows" not in out


def test_ranks_stand_side_by_side_with_their_spread(capsys: pytest.CaptureFixture[str]) -> None:
    methods = {"lora": runs((0.5, 0.9), (0.6, 0.9)), "dylora": runs((0.8, 0.9), (0.8, 0.9))}
    demo.print_ranks(methods, "accuracy", scale=100)
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line]
    assert lines == [
        ["rank", "lora", "dylora"],
        ["1", "55.0", "±", "7.1", "80.0", "±", "0.0"],
        ["8", "90.0", "±", "0.0", "90.0", "±", "0.0"],
    ]


@pytest.mark.slow
def test_the_demo_shows_the_effect_and_texts_at_both_ends(tmp_path: Path) -> None:
    """With one seed of classification; the tiny models are made below the default cache."""
    command = [sys.executable, "scripts/demo.py", "seeds=1", f"results={tmp_path}"]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "The effect shows" in out
    accuracy = re.findall(r"^ +([1-8]) +(\d+\.\d) +(\d+\.\d)$", out, flags=re.MULTILINE)
    assert [int(rank) for rank, _, _ in accuracy] == [*range(1, 9), *range(1, 5)]
    assert float(accuracy[7][1]) > 95 and float(accuracy[7][2]) > 90  # both good at rank 8
    assert float(accuracy[0][2]) > 75 > float(accuracy[0][1])  # only DyLoRA at rank 1
    assert out.count("    rank 1: ") == out.count("    rank 4: ") == 6
