"""The report as a file: what it says, what it escapes, and that it needs nothing but itself."""

import base64
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from runs import config, write

from dylora.results.answer import NO_ANSWER
from dylora.results.layout import Experiment, known_tasks, load_experiments
from dylora.results.loading import Material
from dylora.results.report import write_report
from dylora.results.run_view import POINTS, view_of
from dylora.results.runs import Problem, load_records
from dylora.results.status import planned_runs
from dylora.suite.history import write_history

pytest.importorskip("jinja2", reason="jinja2 is absent: pip install 'dylora[report]'")
ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "make_report.py"
EXPERIMENT = """
hydra:
  sweeper:
    grids:
      - {task: [mrpc, rte], method: [dylora, lora], seed: [1, 2]}
layout:
  kind: scores
  title: Two tasks
  model: roberta_base
  architecture: encoder
  columns: {mrpc.accuracy: MRPC, rte.accuracy: RTE}
  arms:
    - {name: "LoRA, truncated", match: {method.name: lora}, ranks: [1, 4]}
    - {name: DyLoRA, match: {method.name: dylora, method.frozen: false}, ranks: [1, 4]}
"""


SORTED_SCORES = {str(b): {"accuracy": score, "f1": score} for b, score in ((1, 0.82), (4, 0.90))}


class Page(HTMLParser):
    """Start tags with their attributes, and the text of each element with an id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def having(self, name: str) -> list[str]:
        return [value or "" for _, attributes in self.tags if (value := attributes.get(name))]


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "two_tasks.yaml").write_text(EXPERIMENT)
    (found,), problems = load_experiments(tmp_path / "experiments", known_tasks())
    assert not problems
    return found


def make(results: Path, *experiments: Experiment, problems: tuple[Problem, ...] = ()) -> str:
    runs, _ = load_records(results / "records")
    write_report(results / "report.html", Material(runs, experiments, {}, [*problems]))
    return (results / "report.html").read_text()


def data_of(text: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert found is not None
    return json.loads(found[1])


def test_importing_the_report_does_not_load_torch() -> None:
    code = "import sys, dylora.results.report; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_page_without_any_run_is_made(tmp_path: Path, experiment: Experiment) -> None:
    text = make(tmp_path, experiment)
    assert "No run is finished yet." in text
    assert "0 of 8 runs done" in text


def test_an_experiment_without_a_run_is_one_line(tmp_path: Path, experiment: Experiment) -> None:
    text = make(tmp_path, experiment)
    assert "Two tasks: not run" in text and "<table" not in text
    assert "dylora run experiments=two_tasks" in text


def test_a_table_shows_only_rows_and_columns_that_a_run_has_filled(
    tmp_path: Path, experiment: Experiment
) -> None:
    write(tmp_path, config("mrpc", "dylora"))
    table = re.findall(r"<table>.*?</table>", make(tmp_path, experiment), re.S)[0]
    headings = re.findall(r'<th scope="col">(.*?)</th>', table)
    assert "MRPC" in headings and "RTE" not in headings
    assert "DyLoRA" in table and "LoRA, truncated" not in table


def test_the_page_begins_with_the_answer_that_the_records_give(tmp_path: Path) -> None:
    for seed in (1, 2):
        write(tmp_path, config("mrpc", "dylora", seed))
        write(tmp_path, config("mrpc", "lora", seed), truncations={"svd": SORTED_SCORES})
        for rank in (1, 2):
            write(tmp_path, config("mrpc", "lora", seed, rank))
        write(tmp_path, config("mrpc", "dylora_sandwich", seed))
    said = re.search(r'<p class="answer">(.*?)</p>', make(tmp_path), re.S)
    assert said is not None and said[1] == (
        "With RoBERTa-base on MRPC (2 seeds): at rank 1 instead of 4 DyLoRA loses 1.2 points, a "
        "truncated LoRA 25.2, the same LoRA sorted by SVD, which trains nothing, 8.0. At rank 4 "
        "DyLoRA is 0.0 points below LoRA, over all ranks 0.0 points below a LoRA trained at each "
        "rank. DyLoRA with sandwich ranks is over all ranks 0.0 points below a LoRA trained at "
        "each rank."
    )


def test_without_runs_of_both_methods_there_is_no_answer(tmp_path: Path) -> None:
    write(tmp_path, config("mrpc", "dylora"))
    assert NO_ANSWER in make(tmp_path)


def test_claims_stand_on_top_with_their_verdicts(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        write(tmp_path, config("mrpc", "dylora", seed, 8))
        write(tmp_path, config("mrpc", "lora", seed, 8))
    experiments, _ = load_experiments(ROOT / "experiments", known_tasks(), "claims")
    text = make(tmp_path, *experiments)
    claims = text[text.index('<div class="claims">') : text.index('<section id="tables"')]
    assert re.search(r'reproduced">reproduced</span> At rank 1 DyLoRA holds where', claims)
    assert "claims that no run is about yet" in claims


def test_nothing_is_loaded_from_elsewhere(tmp_path: Path, experiment: Experiment) -> None:
    write(tmp_path, config("e2e", "dylora"))
    page = Page(make(tmp_path, experiment))
    links = [*page.having("src"), *page.having("href")]
    assert links and all(link.startswith(("#", "data:")) for link in links)
    assert "default-src 'none'" in page.having("content")[-1]


def test_the_policy_allows_the_pages_own_script_and_style_only(tmp_path: Path) -> None:
    text = make(tmp_path)
    (policy,) = [c for c in Page(text).having("content") if "script-src" in c]
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        body = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.S)
        digest = hashlib.sha256(body[0].encode()).digest()
        assert len(body) == 1
        assert f"'sha256-{base64.b64encode(digest).decode()}'" in policy
    assert not re.search(r"\son\w+=|\sstyle=", re.sub(r"<script.*?</script>", "", text, flags=re.S))


def test_every_text_is_escaped(tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>\"'&</script><script>alert(2)</script>"
    folder = write(tmp_path, config("e2e", "dylora"), task=evil, model=evil, command=evil)
    write(
        tmp_path,
        config("mrpc", "lora"),
        status=f"failed{evil}",
        error=evil,
        device={"name": evil},
        scores={},
        packages={evil: evil},
    )
    (folder / "outputs" / "test.rank1.txt").write_text(f"{evil}\n" * 12)
    text = make(tmp_path, problems=(Problem(Path(evil), evil),))
    page = Page(text)
    assert "img" not in [tag for tag, _ in page.tags]
    assert [tag for tag, _ in page.tags].count("script") == 2
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert evil in data_of(text)["samples"]["0"]["1"]  # and it is there, as text
    assert data_of(text)["panels"][0]["title"] == f"{evil}, {evil}"


def test_values_of_tables_lead_to_their_runs(tmp_path: Path, experiment: Experiment) -> None:
    for seed in (1, 2):
        write(tmp_path, config("mrpc", "dylora", seed))
        write(tmp_path, config("mrpc", "lora", seed))
    page = Page(make(tmp_path, experiment))
    names = {a["id"]: a["data-name"] or "" for _, a in page.tags if "data-name" in a}
    behind = {
        tuple(sorted(names[f"run-{number}"][:15] for number in numbers.split()))
        for numbers in page.having("data-runs")
    }
    assert behind == {("mrpc-roberta_ba",) * 2}
    seeds = {
        tuple(re.sub(r".*_base-(\w+)-r4-(s\d).*", r"\1 \2", names[f"run-{n}"]) for n in ns.split())
        for ns in page.having("data-runs")
    }
    assert {tuple(sorted(pair)) for pair in seeds} == {
        ("dylora s1", "dylora s2"),
        ("lora s1", "lora s2"),
    }


def test_missing_runs_are_listed_with_their_commands(
    tmp_path: Path, experiment: Experiment
) -> None:
    write(tmp_path, config("mrpc", "dylora", 1))
    write(tmp_path, config("mrpc", "dylora", 2), status="failed", error="out of memory", scores={})
    text = make(tmp_path, experiment)
    assert "1 of 8 runs done" in text and "6 missing" in text and "1 failed" in text
    assert "what is missing with roberta_base: 7 runs" in text
    assert "dylora run task=rte method=lora seed=2 model=roberta_base" in text
    assert "task=mrpc method=dylora seed=1 model" not in text
    assert "out of memory" in text


def test_published_rows_name_their_source_and_are_no_measurement(tmp_path: Path) -> None:
    from dylora.results.published import load_published

    names = known_tasks()
    experiments, _ = load_experiments(ROOT / "experiments", names)
    (table,) = [e for e in experiments if e.name == "table2"]
    published, _ = load_published(ROOT / "results" / "reference")
    write(tmp_path, config("mrpc", "dylora", max_rank=8))
    runs, _ = load_records(tmp_path / "records")
    write_report(tmp_path / "report.html", Material(runs, [table], published, []))
    text = (tmp_path / "report.html").read_text()
    rows = re.findall(r'<tr class="published .*?</tr>', text, re.S)
    assert rows and all("published [" in row and "data-runs" not in row for row in rows)
    assert "arXiv 2210.07558v2, Table 2" in text


def test_progress_counts_a_warm_start_but_neither_trials_nor_other_arms(
    tmp_path: Path, experiment: Experiment
) -> None:
    warm = config("mrpc", "dylora", 1)
    warm.init_adapter = "mnli"
    trial = config("mrpc", "dylora", 2)
    trial.train.max_steps = 5
    for each in (warm, trial, config("rte", "dylora", 1, frozen=True)):
        write(tmp_path, each)
    (progress,) = planned_runs(experiment, load_records(tmp_path / "records")[0])
    done = [options for options, status in progress.planned if status == "done"]
    assert done == [{"task": "mrpc", "method": "dylora", "seed": "1"}]


def test_progress_of_another_model_has_its_own_line(tmp_path: Path, experiment: Experiment) -> None:
    other = config("mrpc", "lora", 1)
    other.model.name = "minilm"
    write(tmp_path, other)
    unplanned = config("mrpc", "full", 1)
    unplanned.model.name = "roberta_large"
    write(tmp_path, unplanned)
    found = planned_runs(experiment, load_records(tmp_path / "records")[0])
    assert {p.model: p.counts["done"] for p in found} == {"roberta_base": 0, "minilm": 1}
    assert all("model=minilm" in command for command in found[1].commands())


def test_a_long_history_is_averaged(tmp_path: Path) -> None:
    steps = [{"step": i, "loss": float(i % 2), "rank": 1.0, "lr": 0.1} for i in range(2000)]
    write_history(write(tmp_path, config("mrpc", "dylora")), steps, [])
    (run,) = load_records(tmp_path / "records")[0]
    (course,) = view_of(0, run).courses
    assert course.label == "loss, means of 14 steps"
    (points,) = course.lines.values()
    assert len(points) <= POINTS and {loss for _, loss in points} == {0.5}


def test_samples_are_the_same_inputs_at_every_rank(tmp_path: Path) -> None:
    write(tmp_path, config("e2e", "dylora"))
    (run,) = load_records(tmp_path / "records")[0]
    view = view_of(0, run)
    assert view.ranks == [1, 2, 3, 4]
    ends = {rank: [text.split()[-1] for text in texts] for rank, texts in view.samples.items()}
    assert len(ends[1]) == 8 and ends[1] == ends[4]
    assert view.samples[1] != view.samples[4]


def test_a_missing_score_is_a_dash_and_zero_is_zero(tmp_path: Path) -> None:
    write(tmp_path, config("mrpc", "full"), scores={"0": {"accuracy": 0.0, "f1": None}})
    (run,) = load_records(tmp_path / "records")[0]
    view = view_of(0, run)
    assert view.scores == [("–", ["0.00", "–"])]
    assert view.headline == "mrpc, roberta_base, full, seed 1: accuracy 0.0"


def test_a_failure_while_rendering_keeps_the_old_page(
    tmp_path: Path, experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, experiment)
    before = (tmp_path / "report.html").read_text()
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        make(tmp_path)
    assert (tmp_path / "report.html").read_text() == before


def test_the_script_makes_the_page_and_says_what_it_left_out(
    tmp_path: Path, experiment: Experiment
) -> None:
    write(tmp_path, config("mrpc", "dylora"))
    broken = tmp_path / "records" / "broken" / "record.json"
    broken.parent.mkdir()
    broken.write_text('{"schema": 1, "sta')
    paths = f"paths={{results: {tmp_path}, experiments: {tmp_path / 'experiments'}}}"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), paths], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.returncode, done.stdout.strip()) == (1, str(tmp_path / "report.html"))
    assert f"left out: {broken}" in done.stderr
    assert str(broken) in (tmp_path / "report.html").read_text()
