"""scripts/choose_rank.py: the rank to deploy and what it costs."""

import subprocess
import sys
from pathlib import Path

import pytest
from table_records import write_run

from dylora.errors import UserError
from dylora.results.deploy import adapter_size, choose_over_seeds, choose_rank
from dylora.results.runs import load_run

ROOT = Path(__file__).parents[1]
SCORES = {1: 0.842, 2: 0.849, 4: 0.854, 8: 0.854}
COUNTS = {"parameters": {"total": 10**6, "trained": 8900, "low_rank": 8000}}


def script(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/choose_rank.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_the_script_prints_the_choice_its_size_and_all_ranks(tmp_path: Path) -> None:
    folder = write_run(tmp_path, scores=SCORES, record=COUNTS)
    done = script(str(folder), "tolerance=0.5")
    assert done.returncode == 0, done.stderr
    first, _, _, _, *rows = done.stdout.splitlines()
    assert first.startswith("rank 2: ")
    assert "2900 parameters, 11600 bytes" in first, "two eighths of 8000 and a head of 900"
    assert [line.split()[0] for line in rows] == ["1", "2", "4", "8"]
    assert rows[3].split()[1:] == ["85.40", "8900", "35600"]
    assert [line.endswith("deploy") for line in rows] == [False, True, False, False]


def test_the_record_file_may_be_named_too(tmp_path: Path) -> None:
    folder = write_run(tmp_path, scores=SCORES)
    done = script(f"runs=[{folder / 'record.json'}]", "tolerance=0")
    assert done.stdout.startswith("rank 4: ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name a run"),
        (["no/such/run"], "no/such/run: no such run"),
        (["{run}", "tolerance=-1"], "tolerance=-1.0: must be 0 or more"),
        (["{run}", "tolerance=much"], "tolerance"),
        (["{run}", "metric=f1"], "metric=f1: the run has accuracy"),
        (["{run}", "tolerence=1"], "did you mean tolerance?"),
    ],
)
def test_a_wrong_option_gets_one_message(tmp_path: Path, arguments: list[str], said: str) -> None:
    folder = write_run(tmp_path, scores=SCORES)
    done = script(*(argument.replace("{run}", str(folder)) for argument in arguments))
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


def test_the_metric_decides_and_lower_can_be_better(tmp_path: Path) -> None:
    scores = {
        1: {"BLEU": 45.0, "METEOR": 39.0, "TER": 47.0},
        2: {"BLEU": 46.0, "METEOR": None, "TER": 46.0},
    }
    run = load_run(write_run(tmp_path, "dart", model="gpt2_medium", max_rank=2, scores=scores))
    assert choose_rank(run, 0.5).rank == 2 and choose_rank(run, 0.5).metric == "BLEU"
    assert choose_rank(run, 0.5, "TER").rank == 2 and choose_rank(run, 1, "TER").rank == 1
    assert choose_rank(run, 0.5, "METEOR").scores == {1: 39.0}, "a missing score is no score"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "full", "scores": {0: 0.9}}, "has no ranks"),
        ({"record": {"status": "failed"}}, "the run is failed"),
    ],
)
def test_a_run_without_ranks_or_end_is_refused(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    run = load_run(write_run(tmp_path, **changes))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=said):
        choose_rank(run, 0.5)


def test_a_record_without_counts_is_refused(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path, record={"parameters": {}}))
    with pytest.raises(UserError, match="no parameter counts"):
        adapter_size(run, 1)


def test_several_seeds_choose_by_their_mean_and_say_how_far_they_agree(tmp_path: Path) -> None:
    lucky = {1: 0.854, 2: 0.849, 4: 0.854, 8: 0.854}
    paths = [
        write_run(tmp_path, seed=seed, scores=scores, record=COUNTS)
        for seed, scores in ((1, SCORES), (2, SCORES), (3, lucky))
    ]
    choice, alone = choose_over_seeds([load_run(path) for path in paths], 0.5)
    assert (choice.rank, alone) == (2, [2, 2, 1])
    assert choice.scores[1] == pytest.approx(84.6)
    out = script(*map(str, paths)).stdout
    assert "mean of 3 seeds; 2 of them choose this rank alone (each: 2, 2, 1)" in out
    assert "one seed: another may choose another rank" in script(str(paths[0])).stdout


def test_runs_that_differ_in_more_than_the_seed_are_not_averaged(tmp_path: Path) -> None:
    runs = [
        load_run(write_run(tmp_path, seed=s, max_rank=r, scores={1: 0.9}))
        for s, r in ((1, 8), (2, 4))
    ]
    with pytest.raises(UserError, match="in more than its seed"):
        choose_over_seeds(runs, 0.5)
