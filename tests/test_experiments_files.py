"""The files of experiments/ and results/reference/."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from table_records import write_run

from dylora.results.layout import (
    Arm,
    ScoreLayout,
    SettingsLayout,
    TimeLayout,
    known_tasks,
    load_experiments,
    load_published,
)
from dylora.results.runs import load_records
from dylora.results.tables import build_tables
from dylora.results.tables.settings import compose_settings
from dylora.suite.config import Config
from dylora.suite.sweep import jobs
from dylora.suite.validation import validate

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "experiments").glob("*.yaml"))
SWEEPERS: dict[str, Any] = {
    path.stem: yaml.safe_load(path.read_text()).get("hydra", {}).get("sweeper", {})
    for path in FILES
}
GRIDS = [path for path in FILES if SWEEPERS[path.stem]]


def test_every_file_is_sound_and_its_published_numbers_are_there() -> None:
    experiments, problems = load_experiments(ROOT / "experiments", known_tasks())
    published, faults = load_published(ROOT / "results" / "reference")
    assert not problems and not faults
    assert [experiment.path for experiment in experiments] == FILES
    for experiment in experiments:
        assert set(experiment.layout.published) <= set(published)
    # A misspelt key would silently leave a published value out of every table.
    columns = {
        k for e in experiments if isinstance(e.layout, ScoreLayout) for k in e.layout.columns
    }
    for name in ("glue", "ablation", "data_to_text"):
        keys = {key for row in published[name] for key in row.values}
        assert keys <= columns | {"average", "average_of_six"}


@pytest.mark.parametrize(
    ("name", "runs"),
    [("table2_glue", 8 * 5 * (2 + 8)), ("table4_ablation", 8 * 4 * 5), ("table_e2e", 3 * (2 + 4))],
)
def test_the_grid_is_the_papers(name: str, runs: int) -> None:
    assert len(jobs(SWEEPERS[name]["grids"], {})) == runs


def test_the_time_experiment_shares_its_runs_with_table2() -> None:
    assert set(jobs(SWEEPERS["time"]["grids"], {})) <= set(
        jobs(SWEEPERS["table2_glue"]["grids"], {})
    )


@pytest.mark.slow
@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
def test_every_grid_composes_to_a_valid_run_that_an_arm_of_the_layout_means(path: Path) -> None:
    ConfigStore.instance().store(name="schema", node=Config)
    layout: Any = next(
        e.layout for e in load_experiments(path.parent, known_tasks())[0] if e.path == path
    )
    arms = layout.arms if isinstance(layout, ScoreLayout) else [layout.once, layout.sweep]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for grid in SWEEPERS[path.stem]["grids"] + SWEEPERS[path.stem]["smoke"]:
            for job in one_of_each(grid):
                config: Any = compose("config", [*job, "hydra/sweeper=basic"])
                validate(OmegaConf.to_object(config))  # type: ignore[arg-type]
                assert any(fits(arm, config) for arm in arms), f"no arm for {job}"


def one_of_each(grid: dict[str, Any]) -> list[tuple[str, ...]]:
    """Few jobs in which each value of each option of the grid occurs."""
    listed = {k: v if isinstance(v, list) else [v] for k, v in grid.items() if k != "seed"}
    most = max(map(len, listed.values()))
    return [tuple(f"{k}={v[i % len(v)]}" for k, v in listed.items()) for i in range(most)]


def fits(arm: Arm, config: Any) -> bool:
    return all(OmegaConf.select(config, key) == value for key, value in arm.match.items())


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
def test_the_runs_of_scale_smoke_fill_a_table_of_their_experiment(
    tmp_path: Path, path: Path
) -> None:
    """Made-up records of just these runs: every arm of the layout has a value."""
    for job in smoke_jobs(SWEEPERS[path.stem]["smoke"]):
        model = "tiny_gpt2" if job["task"] == "toy_e2e" else "tiny_roberta"
        rank = job.pop("method.max_rank", 8)
        options = {k.removeprefix("method."): v for k, v in job.items() if k.startswith("method.")}
        ranks = [r for r in (*range(1, 9), 16, 32, 64) if r <= rank]
        place = (job["task"], job["method"], job["seed"], model, rank)
        scores = dict.fromkeys([0] if job["method"] == "full" else ranks, 0.7)
        write_run(tmp_path, *place, scores, task__max_train_rows=64, **options)
    found = next(e for e in load_experiments(path.parent, known_tasks())[0] if e.path == path)
    made, _ = build_tables(found, load_records(tmp_path / "records")[0], {})
    trials = [table for table in made.tables if "trial" in table.title]
    assert trials and all(table.measured for table in trials)
    if isinstance(found.layout, ScoreLayout):
        filled = {r.name for r in trials[0].rows if any(cell.runs for cell in r.cells)}
        assert filled == {arm.name for arm in found.layout.arms}


def smoke_jobs(grids: list[dict[str, Any]]) -> list[dict[str, Any]]:
    listed = [{k: v if isinstance(v, list) else [v] for k, v in grid.items()} for grid in grids]
    return [dict(zip(g, values, strict=True)) for g in listed for values in product(*g.values())]


def test_hyperparameters_are_those_of_the_recipes() -> None:
    experiments, _ = load_experiments(ROOT / "experiments", known_tasks())
    found = next(e for e in experiments if e.name == "table8_hyperparameters")
    assert isinstance(found.layout, SettingsLayout)
    found.layout.models = {"roberta_base": ["cola", "mrpc"], "gpt2_medium": ["e2e"]}
    made, problems = build_tables(found, [], load_published(ROOT / "results" / "reference")[0])
    assert not problems
    texts = [
        {(r.name, r.published is None): [c.text for c in r.cells] for r in table.rows}
        for table in made.tables
    ]
    recipe = yaml.safe_load((ROOT / "conf/recipe/released/roberta_base_cola.yaml").read_text())
    assert texts[0]["Epochs", True][0] == str(recipe["train"]["epochs"])
    assert texts[0]["Examples per step", True] == ["64", "128"]
    assert texts[0]["Learning rate", True] == ["4e-4", "4e-4"]
    assert "Beams" not in {name for name, _ in texts[0]}
    assert texts[1]["Warm-up, steps", True] == ["500"]
    assert texts[1]["Length penalty", False] != texts[1]["Length penalty", True]


@pytest.mark.slow
def test_hyperparameters_are_what_hydra_composes() -> None:
    ConfigStore.instance().store(name="schema", node=Config)
    experiments, _ = load_experiments(ROOT / "experiments", known_tasks())
    layout = next(e.layout for e in experiments if isinstance(e.layout, SettingsLayout))
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for model, tasks in layout.models.items():
            for task in tasks:
                options = [f"task={task}", f"model={model}", "protocol=released"]
                options.append("hydra/sweeper=basic")
                expected, found = compose("config", options), compose_settings(task, model)
                for group in ("task", "train", "method", "init_adapter"):
                    assert found[group] == expected[group], f"{model} {task} {group}"


def test_a_model_without_configuration_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "table.yaml"
    layout = {"kind": "settings", "title": "x", "models": {"robberta": ["cola"]}}
    path.write_text(yaml.safe_dump({"layout": layout}))
    [found], _ = load_experiments(tmp_path, known_tasks())
    made, [problem] = build_tables(found, [], {})
    assert problem.path == path and "robberta" in problem.message and not made.tables


def test_time_has_an_arm_for_each_side() -> None:
    experiments, _ = load_experiments(ROOT / "experiments", known_tasks())
    layout = next(e.layout for e in experiments if e.name == "time")
    assert isinstance(layout, TimeLayout)
    assert layout.sweep.own_rank and not layout.once.own_rank
    assert layout.once.ranks == layout.sweep.ranks
