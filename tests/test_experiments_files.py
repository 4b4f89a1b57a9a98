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

from dylora.methods import METHODS
from dylora.results.composing import compose_settings
from dylora.results.layout import (
    Arm,
    ClaimsLayout,
    ScoreLayout,
    SearchLayout,
    SettingsLayout,
    TimeLayout,
    arms_of,
    known_tasks,
    load_experiments,
    published_files,
)
from dylora.results.published import load_published
from dylora.results.runs import load_records
from dylora.results.tables import build_tables
from dylora.suite.config import Config, Protocol, Truncation
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
        assert set(published_files(experiment.layout)) <= set(published)
        # A misspelled key or name would silently leave a published value out of its table.
        layout = experiment.layout
        if isinstance(layout, ScoreLayout | SearchLayout) and layout.published:
            known = {*layout.columns, "average", "parameters", "seconds", "time"}
            rows = published[layout.published[0]]
            assert {key for row in rows for key in row.values} <= known
            if experiment.name.startswith("table"):
                names = {arm.name for arm in arms_of(layout)} | {"FLOP"}
                assert {row.name for row in rows} <= names


def test_every_table_of_the_paper_is_an_experiment() -> None:
    names = {path.stem for path in FILES}
    assert names >= {*(f"table{n}" for n in range(1, 10)), "appendix_a"}


@pytest.mark.parametrize(
    ("name", "runs"),
    [
        ("table1", 4 * 6 * 5),
        ("table2", 8 * 5 * 4),
        ("table3", 4 * 5 * 3),
        ("table4", 6 * 4 * 5),
        ("table5", 2 * 5 * (7 + 2)),
        ("table6", 3 * 4),
        ("table7", 2 * 5),
        ("table9", 2 * 3 * 4),
        ("appendix_a", 5 * (1 + 8)),
        ("each_rank", 3 * 5 * (1 + 4)),
    ],
)
def test_the_grid_is_the_papers(name: str, runs: int) -> None:
    assert len(jobs(SWEEPERS[name]["grids"], {})) == runs


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
def test_grids_of_the_papers_tables_have_its_seeds(path: Path) -> None:
    """The paper prints 10 twice; the fifth seed, 100, is our choice."""
    for grid in SWEEPERS[path.stem]["grids"] if path.stem.startswith("table") else []:
        generates = not {"e2e", "dart"}.isdisjoint(
            grid["task"] if isinstance(grid["task"], list) else [grid["task"]]
        )
        assert grid["seed"] == [10, 42, 4242] + [1010, 100] * (not generates)


def settings_of(name: str) -> set[frozenset[str]]:
    """The runs of an experiment, without options at their defaults."""
    usual = {"method.frozen=false", "method.rank_distribution=uniform", "method.max_rank=8"}
    return {frozenset(job) - usual for job in jobs(SWEEPERS[name]["grids"], {})}


def test_tables_share_their_runs() -> None:
    def of_task(name: str, *words: str) -> set[frozenset[str]]:
        return {job for job in settings_of(name) if set(words) <= job}

    assert of_task("table3", "method=dylora") <= settings_of("table2")
    assert of_task("table4", "task=cola") - settings_of("table2") == {
        job for job in of_task("table4", "task=cola") if "method.rank_distribution=geometric" in job
    }
    assert of_task("table1", "task=sst2") <= settings_of("table5") | settings_of("table2")


@pytest.mark.slow
@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
def test_every_grid_composes_to_a_valid_run_that_an_arm_of_the_layout_means(path: Path) -> None:
    ConfigStore.instance().store(name="schema", node=Config)
    layout: Any = next(
        e.layout for e in load_experiments(path.parent, known_tasks())[0] if e.path == path
    )
    arms = arms_of(layout)
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
        rank = job.pop("method.max_rank", 4 if job["task"] == "toy_e2e" else 8)
        options = {k.removeprefix("method."): v for k, v in job.items() if k.startswith("method.")}
        options |= {k.replace(".", "__"): v for k, v in job.items() if k.startswith("train.")}
        ranks = list(range(1, rank + 1))
        place = (job["task"], job["method"], job["seed"], model, rank)
        scores = dict.fromkeys(ranks if METHODS[job["method"]].has_ranks else [0], 0.7)
        limits = {"task__max_train_rows": 64, "protocol": job.get("protocol", Protocol.paper)}
        metric = {"toy_e2e": "BLEU"}.get(job["task"], "accuracy")
        lower = {str(r): {metric: 0.6} for r in ranks}
        cut = {"truncations": {truncation.value: lower for truncation in Truncation}}
        write_run(tmp_path, *place, scores, cut, **limits, **options)
    found = next(e for e in load_experiments(path.parent, known_tasks())[0] if e.path == path)
    made, _ = build_tables(found, load_records(tmp_path / "records")[0], {})
    if isinstance(found.layout, ClaimsLayout):
        assert not any(table.measured for table in made.tables), "a trial decided a claim"
        return
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
    found = next(e for e in experiments if e.name == "table8")
    assert isinstance(found.layout, SettingsLayout)
    models = {"roberta_base": ["cola", "mrpc"], "gpt2_medium": ["e2e"]}
    found.layout.models = {Protocol.released: models, Protocol.paper: {"roberta_base": ["cola"]}}
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
    assert texts[2]["Epochs", True] == texts[2]["Epochs", False] == ["30"]
    assert texts[2]["Epoch chosen by", True] == ["last"]


@pytest.mark.slow
def test_hyperparameters_are_what_hydra_composes() -> None:
    ConfigStore.instance().store(name="schema", node=Config)
    experiments, _ = load_experiments(ROOT / "experiments", known_tasks())
    layout = next(e.layout for e in experiments if isinstance(e.layout, SettingsLayout))
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for protocol, models in layout.models.items():
            for model, task in [(name, task) for name in models for task in models[name]]:
                options = [f"task={task}", f"model={model}", f"protocol={protocol}"]
                expected = compose("config", [*options, "hydra/sweeper=basic"])
                found = compose_settings(task, model, protocol)
                for group in ("task", "train", "method", "init_adapter"):
                    assert found[group] == expected[group], f"{model} {task} {group}"


def test_a_model_without_configuration_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "table.yaml"
    layout = {"kind": "settings", "title": "x", "models": {"paper": {"robberta": ["cola"]}}}
    path.write_text(yaml.safe_dump({"layout": layout}))
    [found], _ = load_experiments(tmp_path, known_tasks())
    made, [problem] = build_tables(found, [], {})
    assert problem.path == path and "robberta" in problem.message and not made.tables


def test_time_has_an_arm_for_each_side() -> None:
    experiments, _ = load_experiments(ROOT / "experiments", known_tasks())
    layout = next(e.layout for e in experiments if e.name == "appendix_a")
    assert isinstance(layout, TimeLayout)
    assert layout.sweep.own_rank and not layout.once.own_rank
    assert layout.once.ranks == layout.sweep.ranks
