"""The effect the paper is about, on toy tasks made here: offline, a few minutes on two cores.

LoRA is trained at max_rank and then cut, or sorted by SVD and cut; DyLoRA is trained once for all
ranks; same data and settings. Ends with a picture of the scores at every rank, a sentence that says
whether the effect shows, and texts.

  dylora demo                    into results/demo/
  dylora demo seeds=1            of the classification task: a third of the time
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from dylora.errors import UserError
from dylora.metrics import metric_named
from dylora.results.curves import Panel, Series, panels
from dylora.results.figures import write_figures
from dylora.results.loading import Material
from dylora.results.report import write_report
from dylora.results.runs import load_run
from dylora.suite.cli import options, plain_errors
from dylora.suite.config import Config
from dylora.suite.records import run_folder
from dylora.suite.validation import validate

ROOT = Path(__file__).parents[1]
PAIR, INNS = "toy_pair", "toy_e2e"
ABOUT = {
    PAIR: "Does a sentence about a village entail another?",
    INNS: "An inn's attributes into a sentence.",
}
USUAL = {PAIR: 25, INNS: 30}  # seconds of a run on one free core
CLEAR = 5.0  # points: a difference of losses that counts as the effect
SAMPLES = 2
CHART = (76, 18)  # columns and lines


@dataclass
class Options:
    """What to run and where."""

    seeds: int = 3  # of the classification task
    results: str = "results/demo"


def main() -> None:
    os.environ["TQDM_DISABLE"] = "1"  # one bar is enough
    with plain_errors():
        chosen = options(Options, __doc__)
        configs = planned(chosen)
        minutes = sum(USUAL[config.task.name] for config in configs) / 60
        print(f"{len(configs)} runs, usually {minutes:.0f} minutes; those that are done are kept.")
        for number, config in enumerate(configs, start=1):
            with shown(f"[{number}/{len(configs)}]", config):
                run(config)
        show(configs, Path(chosen.results))


def planned(chosen: Options) -> list[Config]:
    """Every run of the demo, as `dylora run` would compose it."""
    ConfigStore.instance().store(name="schema", node=Config)
    pairs = [(PAIR, seed) for seed in range(1, chosen.seeds + 1)]
    found = []
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for task, seed in [*pairs, (INNS, 1)]:
            for method in ("lora", "dylora"):
                words = [f"task={task}", f"method={method}", f"seed={seed}"]
                composed = compose("config", [*words, f"paths.results={chosen.results}"])
                config = OmegaConf.to_object(composed)
                assert isinstance(config, Config)
                validate(config)
                found.append(config)
    return found


@contextmanager
def shown(number: str, config: Config) -> Iterator[None]:
    """A moving bar while the run goes on; where nobody watches, only its line."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    except ImportError as error:
        raise UserError("the demo needs rich: pip install 'dylora[report]'") from error
    line = f"{number} dylora run task={config.task.name} method={config.method.name} "
    line += f"seed={config.seed} (usually {USUAL[config.task.name]} s)"
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    console.print(line, markup=False)
    columns = (TextColumn("   "), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as p:
        p.add_task("", total=None)
        yield


def run(config: Config) -> None:
    """Train and score, or keep what is there from an earlier demo."""
    from dylora.training import experiment  # torch is not needed for --help

    words = f"task={config.task.name} method={config.method.name} seed={config.seed}"
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        experiment.run(config, f"dylora run {words}")


def show(configs: Sequence[Config], results: Path) -> None:
    """Tables, the picture, the sentence and texts; figures and a page as files."""
    runs = [load_run(run_folder(config)) for config in configs]
    by_task = {panel.task: panel for panel in panels(runs)}
    for task, panel in by_task.items():
        metric = panel.metrics[0]
        print(f"\n{ABOUT[task]} {metric_named(metric).axis}\n")
        print(table(panel.series, metric))
    print(f"\n{picture(by_task[PAIR], 'accuracy')}\n\n{sentence(by_task[PAIR], 'accuracy')}")
    inns = next(config for config in configs if config.task.name == INNS)
    print_samples(by_task[INNS], rows_of(inns))
    drawn = write_figures(runs, results / "figures")
    write_report(results / "report.html", Material(runs, [], {}, []))
    print(f"\nPicture: {next(path for path in drawn.files if PAIR in path.name)}")
    print(f"Page:    {results / 'report.html'}")
    print("Next:    source .venv/bin/activate, then dylora --help")


def table(series: Sequence[Series], metric: str) -> str:
    """A row per rank, a column per way to get there: mean ± standard deviation over the seeds."""
    summaries = {each.name: each.summary(metric) for each in series}
    lines = ["  rank " + "".join(f"{name:>22}" for name in summaries)]
    for rank in next(iter(summaries.values())):
        cells = []
        for by_rank in summaries.values():
            found = by_rank[rank]
            spread = "" if found.std is None else f" ± {found.std:4.1f}"
            cells.append(f"{f'{found.mean:.1f}{spread}':>22}")
        lines.append(f"  {rank:>4} {''.join(cells)}")
    return "\n".join(lines)


def picture(panel: Panel, metric: str) -> str:
    """Score against rank, drawn in characters."""
    try:
        import plotext
    except ImportError as error:
        raise UserError("the demo needs plotext: pip install 'dylora[report]'") from error
    plotext.clear_figure()
    plotext.plotsize(*CHART)
    colored = sys.stdout.isatty()
    plotext.theme("clear")
    looks = (("*", "blue"), ("o", "red"), ("+", "orange"))
    for each, (marker, color) in zip(panel.series, looks, strict=True):
        found = each.summary(metric)
        means = [summary.mean for summary in found.values()]
        plotext.plot(list(found), means, label=each.name, marker=marker, color=color)
    plotext.xticks(sorted(panel.series[0].runs))
    plotext.xlabel("rank")
    drawn = plotext.build()
    return drawn if colored else plotext.uncolorize(drawn)


def sentence(panel: Panel, metric: str) -> str:
    """What the scores say, whichever way they turn out."""
    dylora, cut, ordered = (
        next(s for s in panel.series if s.name == name)
        for name in ("DyLoRA", "LoRA truncated", "LoRA sorted by SVD")
    )
    low, high = min(cut.runs), max(cut.runs)
    at = {each.name: points(each, metric, low) for each in (dylora, ordered, cut)}
    scores = ", ".join(f"{name} {fmean(values):.1f}" for name, values in at.items())
    drops = [
        [b - a for a, b in zip(at[s.name], points(s, metric, high), strict=True)]
        for s in (cut, dylora)
    ]
    shows = all(lora - dynamic > CLEAR for lora, dynamic in zip(*drops, strict=True))
    losses = f"LoRA loses {fmean(drops[0]):.1f} points, DyLoRA {fmean(drops[1]):.1f}"
    seeds = f"by more than {CLEAR:.0f} points with every seed"
    verdict = (
        f"the effect shows, LoRA's loss is greater {seeds}"
        if shows
        else f"the effect is ABSENT, LoRA's loss is not greater {seeds}"
    )
    count = len(drops[0])
    return (
        f"At rank {low}: {scores} ({metric} in percent, {count} seed{'s' * (count > 1)}).\n"
        f"From rank {high} to rank {low} {losses}: {verdict}."
    )


def points(series: Series, metric: str, rank: int) -> list[float]:
    """The printed score of each seed at a rank."""
    printed = metric_named(metric).printed
    values = [run.truncated(series.cut)[rank][metric] for run in series.runs[rank]]
    return [printed(value) for value in values if value is not None]


def rows_of(config: Config) -> Sequence[Any]:
    """The test inputs with their references."""
    from dylora.tasks import load

    return list(load(config.task, config.paths)["test"].select(range(SAMPLES)))


def print_samples(panel: Panel, rows: Sequence[Any]) -> None:
    """Test inputs, a reference of each, and what every method makes of them at both ends."""
    for number, row in enumerate(rows):
        print(f"\n  input:     {row['source']}\n  reference: {row['references'][0]}")
        for series in panel.series:
            for rank in (min(series.runs), max(series.runs)):
                folder = series.runs[rank][0].folder / "outputs" / (series.cut or "")
                file = folder / f"test.rank{rank}.txt"
                if file.is_file():  # at the highest rank a sorted LoRA is the LoRA itself
                    text = file.read_text(encoding="utf-8").splitlines()[number]
                    print(f"    {f'{series.name}, rank {rank}:':<28} {text}")


if __name__ == "__main__":
    main()
