"""Series of scores against the rank: which runs belong together and what their mean is worth."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from runs import config, write
from scipy import stats

from dylora.files import write_lines
from dylora.metrics import metric_named
from dylora.results.curves import LOOKS, band, panels, seeds
from dylora.results.runs import Run, load_records
from dylora.results.stats import summarize
from dylora.suite.config import Config, Truncation


def load(tmp_path: Path, configs: Sequence[Config]) -> list[Run]:
    for each in configs:
        write(tmp_path, each)
    runs, problems = load_records(tmp_path / "records")
    assert not problems
    return runs


def names(runs: Sequence[Run]) -> list[list[str]]:
    return [[series.name for series in panel.series] for panel in panels(runs)]


def test_band_is_students_t_interval_of_the_mean() -> None:
    values = [91.0, 92.5, 90.2, 93.1]
    expected = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert band(summarize(values)) == pytest.approx(expected)


def test_fewer_than_three_seeds_have_no_band() -> None:
    assert band(summarize([1.0])) is None
    assert band(summarize([1.0, 2.0])) is None


def test_seeds_are_repetitions_and_fractions_become_percent(tmp_path: Path) -> None:
    (panel,) = panels(load(tmp_path, [config("mrpc", "dylora", seed) for seed in (1, 2, 3)]))
    (series,) = panel.series
    summary = series.summary("accuracy")[2]
    assert (summary.n, summary.mean) == (3, pytest.approx(100 * (0.9 + 0.008 + 0.01)))
    assert metric_named("accuracy").axis == "accuracy (%)"


def test_generation_metrics_keep_their_unit(tmp_path: Path) -> None:
    (panel,) = panels(load(tmp_path, [config("e2e", "dylora")]))
    assert panel.series[0].summary("BLEU")[1].mean == pytest.approx(70 * 0.909)
    assert metric_named("ROUGE_L").axis == "ROUGE L"


def test_runs_of_other_settings_are_other_series_named_by_what_differs(tmp_path: Path) -> None:
    frozen = [config("mrpc", "dylora", seed, frozen=True) for seed in (1, 2)]
    runs = load(tmp_path, [*frozen, config("mrpc", "dylora", 1)])
    assert sorted(names(runs)[0]) == ["DyLoRA", "DyLoRA, frozen"]


def test_another_learning_rate_is_no_repetition(tmp_path: Path) -> None:
    other = config("mrpc", "dylora", 2)
    other.train.learning_rate = 0.5
    found = names(load(tmp_path, [config("mrpc", "dylora", 1), other]))
    assert found == [["DyLoRA, learning_rate=0.0004", "DyLoRA, learning_rate=0.5"]]


@pytest.mark.parametrize("alphas", [(16, 16, 16), (2, 4, 8)], ids=["alpha", "scaling"])
def test_lora_trained_at_each_rank_is_scored_at_its_own_rank(
    tmp_path: Path, alphas: tuple[float, ...]
) -> None:
    """Be it with one alpha, as in the paper, or with one scaling."""
    pairs = zip((1, 2, 4), alphas, strict=True)
    configs = [config("mrpc", "lora", max_rank=rank, alpha=alpha) for rank, alpha in pairs]
    (panel,) = panels(load(tmp_path, [*configs, config("mrpc", "dylora")]))
    each = next(series for series in panel.series if series.each_rank)
    assert {rank: [run.max_rank for run in runs] for rank, runs in each.runs.items()} == {
        1: [1],
        2: [2],
        4: [4],
    }


def test_only_the_lora_of_dyloras_highest_rank_is_shown_truncated(tmp_path: Path) -> None:
    configs = [config("mrpc", "lora", max_rank=rank) for rank in (2, 4, 8)]
    (panel,) = panels(load(tmp_path, [*configs, config("mrpc", "dylora", max_rank=4)]))
    truncated = [series for series in panel.series if series.name.startswith("LoRA truncated")]
    assert [list(series.runs) for series in truncated] == [[1, 2, 3, 4]]


def test_methods_without_adapters_are_flat(tmp_path: Path) -> None:
    (panel,) = panels(load(tmp_path, [config("mrpc", "full"), config("mrpc", "dylora")]))
    assert {series.name: series.flat for series in panel.series} == {
        "DyLoRA": False,
        "Full fine-tuning": True,
    }


def test_a_method_looks_the_same_in_every_panel(tmp_path: Path) -> None:
    runs = load(tmp_path, [config("mrpc", "full"), config("rte", "full"), config("rte", "dylora")])
    looks = {s.look for panel in panels(runs) for s in panel.series if s.name.startswith("Full")}
    assert len(looks) == 1
    sandwich = [config("rte", name) for name in ("dylora", "dylora_sandwich")]
    (panel,) = panels(load(tmp_path / "two", sandwich))
    assert [(s.name, s.look) for s in panel.series] == [
        (name, LOOKS.index(name)) for name in ("DyLoRA", "DyLoRA, sandwich")
    ]


def test_no_two_series_of_a_panel_look_the_same(tmp_path: Path) -> None:
    configs = [config("mrpc", "dylora", max_rank=rank) for rank in range(1, 9)]
    (panel,) = panels(load(tmp_path, [*configs, config("mrpc", "full")]))
    looks = [series.look for series in panel.series]
    assert len(set(looks)) == len(looks) == 9


def test_trials_never_mix_with_full_runs_and_come_last(tmp_path: Path) -> None:
    trial = config("mrpc", "dylora")
    trial.train.max_steps = 20
    found = panels(load(tmp_path, [trial, config("mrpc", "dylora", 2), config("rte", "dylora")]))
    assert [panel.title for panel in found] == [
        "MRPC, RoBERTa-base",
        "RTE, RoBERTa-base",
        "MRPC, RoBERTa-base, max_steps=20",
    ]


def test_a_failed_run_is_in_no_series(tmp_path: Path) -> None:
    write(tmp_path, config("mrpc", "dylora"), status="failed")
    runs, _ = load_records(tmp_path / "records")
    assert panels(runs) == []


def test_number_of_seeds_is_said_as_a_range_where_it_differs() -> None:
    assert [seeds([1]), seeds([3, 3]), seeds([2, 5, 3])] == ["1 seed", "3 seeds", "2–5 seeds"]


def test_a_band_stays_where_the_metric_can_be() -> None:
    scores = summarize([99.9, 99.0, 99.9])
    assert band(scores, "accuracy") == pytest.approx((98.309, 100.0), abs=0.01)
    assert band(summarize([0.0, 1.0, 2.0]), "matthews_correlation") == pytest.approx(
        (-1.48, 3.48), abs=0.01
    )
    assert band(summarize([0.0, 1.0, 2.0]), "BLEU") == pytest.approx((0.0, 3.48), abs=0.01)


def test_a_lora_sorted_by_svd_is_a_series_beside_the_one_that_is_cut(tmp_path: Path) -> None:
    sorted_scores = {"1": {"accuracy": 0.8}, "4": {"accuracy": 0.95}}
    write(tmp_path, config("rte", "lora", 1), truncations={"svd": sorted_scores})
    write(tmp_path, config("rte", "lora", 2))  # of before there were truncations
    runs, _ = load_records(tmp_path / "records")
    (panel,) = panels(runs)
    cut, ordered = panel.series
    assert (cut.name, ordered.name) == ("LoRA truncated", "LoRA sorted by SVD")
    assert [summary.n for summary in cut.summary("accuracy").values()] == [2] * 4
    values = {rank: summary.mean for rank, summary in ordered.summary("accuracy").items()}
    assert values == {1: pytest.approx(80.0), 4: pytest.approx(95.0)}


def test_the_truncations_that_were_asked_for_do_not_split_a_series(tmp_path: Path) -> None:
    with_svd = config("rte", "lora", 2)
    with_svd.evaluate.truncations = [Truncation.svd]
    assert names(load(tmp_path, [config("rte", "lora", 1), with_svd])) == [["LoRA truncated"]]


def test_a_panel_knows_what_the_most_frequent_class_alone_scores(tmp_path: Path) -> None:
    folder = write(tmp_path, config("mrpc", "dylora"))
    write_lines(folder / "outputs" / "validation.labels.txt", ["1", "1", "1", "0"])
    runs, _ = load_records(tmp_path / "records")
    (panel,) = panels(runs)
    assert panel.majority == {"accuracy": pytest.approx(75.0), "f1": pytest.approx(100 * 6 / 7)}
