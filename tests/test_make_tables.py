"""scripts/make_tables.py: what is wrong is reported by file, the rest is made, the status is 1."""

import importlib.util
import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from table_records import experiment, write_run

from dylora.results.published import load_published
from dylora.results.runs import load_records

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "make_tables.py"


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """Results with one sound run, and an experiment to show it."""
    write_run(tmp_path, method="full", scores={0: 0.9})
    experiment(tmp_path / "experiments")
    return tmp_path


@dataclass
class Outcome:
    status: int
    stdout: str
    stderr: str


MakeTables = Callable[[Path], Outcome]


@pytest.fixture
def make_tables(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> MakeTables:
    """The script on results with their own experiments; the sound part must always be made."""
    spec = importlib.util.spec_from_file_location("make_tables_script", SCRIPT)
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = script  # dataclasses look their module up
    spec.loader.exec_module(script)

    def run(results: Path) -> Outcome:
        paths = [f"paths.results={results}", f"paths.experiments={results / 'experiments'}"]
        monkeypatch.setattr(sys, "argv", ["make_tables.py", *paths])
        monkeypatch.chdir(ROOT)
        status = script.main()
        assert "| Full |  | 90.00 |" in (results / "tables" / "small.md").read_text()
        return Outcome(status, *capsys.readouterr())

    return run


def test_nothing_wrong_is_exit_status_0(make_tables: MakeTables, sound: Path) -> None:
    done = make_tables(sound)
    assert done.status == 0 and done.stderr == ""
    assert f"{sound / 'tables' / 'small.md'}" in done.stdout


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"schema": 1, "status": "do', r"cannot be read .*delete it"),
        ("[]", r"is no run record; delete it"),
        ("\xff\xfe", r"cannot be read|is no run record"),
        ('{"schema": 2, "status": "done"}', r"has no signature.*run again with force=true"),
        (
            '{"schema": 0, "status": "done", "command": "python run.py x=1"}',
            r"older schema 0.*run again with force=true: python run\.py x=1",
        ),
        ('{"schema": 2, "seed": NaN}', r"cannot be read \(NaN is no number"),
        ('{"schema": 9, "status": "done"}', r"newer .*update dylora"),
    ],
)
def test_a_record_that_cannot_be_used_is_named(
    make_tables: MakeTables, sound: Path, text: str, said: str
) -> None:
    folder = sound / "records" / "broken"
    folder.mkdir()
    (folder / "record.json").write_text(text, encoding="latin-1")
    done = make_tables(sound)
    assert done.status == 1
    assert str(folder / "record.json") in done.stderr and re.search(said, done.stderr)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"scores": {"0": 0.9}}, "has scores.0 = 0.9, which should be a group of fields"),
        ({"scores": {"0": {"f1": "?"}}}, 'has scores.0.f1 = "?", which should be a number'),
        ({"scores": {}}, "is done but has no scores"),
        ({"scores": {"x": {}}}, "has scores of 'x', which is no rank"),
        ({"truncations": {"svd": {"x": {}}}}, "has scores of 'x', which is no rank"),
        ({"times": {"train": 1}}, "has no times.evaluate"),
        ({"status": "gone"}, "should be one of running, done, failed, interrupted"),
        ({"seed": True}, "has seed = true, which should be a whole number"),
        ({"config": 3}, "has config = 3, which should be a group of fields"),
        ({"config": {"task": {"kind": "?"}}}, "has config.task.kind = "),
        ({"config": {"task": {"metrics": ["f1", 2]}}}, "has config.task.metrics.1 = 2"),
        ({"config": {"train": {"max_steps": "all"}}}, "should be a whole number"),
    ],
)
def test_the_field_of_a_record_that_is_wrong_is_named(
    make_tables: MakeTables, sound: Path, change: dict[str, Any], said: str
) -> None:
    folder = write_run(sound, "rte", "full", record=change)
    done = make_tables(sound)
    assert done.status == 1
    assert f"{folder / 'record.json'}: " in done.stderr and said in done.stderr
    assert "run again with force=true: python run.py task=rte" in done.stderr


def test_a_record_of_a_method_that_is_not_there_says_where_to_add_it(
    make_tables: MakeTables, sound: Path
) -> None:
    folder = write_run(sound, "rte", "full", record={"method": "gone"})
    done = make_tables(sound)
    assert done.status == 1
    assert f"{folder / 'record.json'}: has method=gone" in done.stderr
    assert "dylora.methods" in done.stderr


def test_what_a_record_has_more_or_left_out_by_default_is_no_fault(
    make_tables: MakeTables, sound: Path
) -> None:
    record = {"later": {"x": 1}, "config": {"task": {"later": 2}, "train": {"max_steps": None}}}
    write_run(sound, "rte", "full", seed=9, record=record)
    assert make_tables(sound).status == 0


def test_a_folder_without_a_record_is_named(make_tables: MakeTables, sound: Path) -> None:
    (sound / "records" / "empty").mkdir()
    done = make_tables(sound)
    assert done.status == 1 and str(sound / "records" / "empty") in done.stderr


def test_two_records_of_one_signature_with_other_scores_are_both_left_out(
    make_tables: MakeTables, sound: Path
) -> None:
    one = write_run(sound, "rte", "full", scores={0: 0.5})
    two = one.with_name("copied")
    shutil.copytree(one, two)
    assert make_tables(sound).status == 0, "an equal copy is no fault"
    record = json.loads((two / "record.json").read_text())
    record["scores"]["0"]["accuracy"] = 0.6
    (two / "record.json").write_text(json.dumps(record))
    done = make_tables(sound)
    assert done.status == 1
    assert str(one / "record.json") in done.stderr and str(two / "record.json") in done.stderr
    table = (sound / "tables" / "small.md").read_text()
    assert "50.0" not in table and "60.0" not in table


def test_an_equal_copy_counts_once(tmp_path: Path) -> None:
    one = write_run(tmp_path, method="full", scores={0: 0.5})
    shutil.copytree(one, one.with_name("copied"))
    runs, problems = load_records(tmp_path / "records")
    assert len(runs) == 1 and not problems


def test_an_unknown_task_is_named_and_its_column_left_out(
    make_tables: MakeTables, sound: Path
) -> None:
    path = sound / "experiments" / "small.yaml"
    path.write_text(path.read_text().replace("rte.accuracy", "rtee.accuracy"))
    done = make_tables(sound)
    assert done.status == 1
    assert re.search(r"small\.yaml: names the unknown task rtee.*did you mean rte", done.stderr)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("layout: [", "cannot be read"),
        ("a: 1", "no layout"),
        ("layout: {kind: scorse}", "must be one of scores, time, search, claims, settings"),
        ("layout: {kind: scores, titel: x}", "titel"),
        (
            "layout: {kind: scores, title: x, model: m, architecture: encoder, columns: {a: b}}",
            "task.metric",
        ),
    ],
)
def test_an_experiment_that_cannot_be_read_is_named(
    make_tables: MakeTables, sound: Path, text: str, said: str
) -> None:
    path = sound / "experiments" / "broken.yaml"
    path.write_text(text)
    done = make_tables(sound)
    assert done.status == 1 and f"{path}: " in done.stderr and said in done.stderr


GOOD = """
- source: s
  confidence: primary
  models: [m]
  rows: [{name: x, rank: "1", values: {average: "84.22±0.70"}}]
"""


@pytest.mark.parametrize(
    ("good", "bad", "said"),
    [
        ("source: s", "sorce: s", "sorce"),
        ("confidence: primary", "confidence: high", "confidence"),
        ("84.22±0.70", "eighty", r"x, rank 1, average: 'eighty' is not a number; write it as prin"),
        ("84.22±0.70", "84.22±", "is not a number"),
        (GOOD, "source: s", "must be a list of sources"),
    ],
)
def test_published_numbers_are_refused_without_a_source_or_if_they_are_none(
    tmp_path: Path, good: str, bad: str, said: str
) -> None:
    (tmp_path / "good.yaml").write_text(GOOD)
    (tmp_path / "bad.yaml").write_text(GOOD.replace(good, bad))
    found, [problem] = load_published(tmp_path)
    assert list(found) == ["good"] and problem.path.name == "bad.yaml"
    assert re.search(said, problem.message)


@pytest.mark.parametrize(
    "text", [".39", "87.03(8)", "0.628M", "7x", "88.40±0.0", "4 to 7", "3199.6"]
)
def test_published_numbers_are_kept_as_printed(tmp_path: Path, text: str) -> None:
    (tmp_path / "good.yaml").write_text(GOOD.replace("84.22±0.70", text))
    found, problems = load_published(tmp_path)
    assert not problems and found["good"][0].values == {"average": text}
