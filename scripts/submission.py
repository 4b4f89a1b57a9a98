"""GLUE's test sets answered at one rank, as a zip file that its leaderboard takes.

  dylora submission results/records/COLA results/records/MNLI ... rank=4
  dylora submission RUNS rank=auto output=submission.zip paths.data=DIR

A run of each of the nine tasks gives a complete submission; that of MNLI also answers the
diagnostic set. rank=auto takes the smallest rank of each run that is good enough on its development
set. The test sets are read as the runs' own data: from paths.data, else from the hub.
"""

import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dylora.errors import UserError
from dylora.files import whole_file
from dylora.results.deploy import adapter_file, named_run, wanted_ranks
from dylora.results.runs import Run
from dylora.suite.cli import options, plain_errors

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass
class PathOptions:
    data: str = "data"
    models: str = "models"


@dataclass
class Options:
    runs: list[str] = field(default_factory=list)  # folders; may be given without "runs="
    rank: Any = None  # 4, or auto: each run's smallest that is good enough
    tolerance: float = 0.5  # of rank=auto, in points of the task's metric
    output: str = "submission.zip"
    batch_size: int = 64
    paths: PathOptions = field(default_factory=PathOptions)


def main() -> None:
    """Write the zip file. Raises UserError for runs or test sets that do not fit."""
    chosen = options(Options, __doc__, first="runs")
    ranks = _checked(chosen)
    # Slow to import: only for runs that can be used.
    from dylora.tasks.leaderboard import SHEETS, read_sheet

    data = Path(chosen.paths.data)
    rows = {
        task: {s.name: read_sheet(run.config().task, s, data) for s in SHEETS[task]}
        for task, (run, _) in ranks.items()
    }
    answers: dict[str, list[str]] = {}
    for task, (run, rank) in ranks.items():
        answers |= _answers(run, rank, rows[task], chosen)
    with whole_file(Path(chosen.output)) as path, zipfile.ZipFile(path, "w") as file:
        for name, lines in answers.items():
            text = "".join(f"{number}\t{line}\n" for number, line in enumerate(lines))
            file.writestr(name, f"index\tprediction\n{text}", zipfile.ZIP_DEFLATED)
            print(f"{name}: {len(lines)} rows")
    print(f"written: {chosen.output}")
    missing = [s.name for sheets in SHEETS.values() for s in sheets if s.name not in answers]
    if missing:
        print(f"the leaderboard also wants {', '.join(missing)}")


def _checked(chosen: Options) -> dict[str, tuple[Run, int]]:
    """The run of each task and its rank; UserError for what cannot be used."""
    if not chosen.runs:
        raise UserError("name a run for each task, such as results/records/NAME; --help says more")
    if chosen.rank != "auto" and type(chosen.rank) is not int:
        raise UserError(f"rank={chosen.rank}: say which rank, such as rank=4, or rank=auto")
    found: dict[str, tuple[Run, int]] = {}
    for path in chosen.runs:
        run = named_run(path)
        task = run.option("task.hub_config")
        if run.option("task.format") != "glue" or not task:
            raise UserError(f"{path}: {run.task} is no task of GLUE; leave this run out")
        if task in found:
            raise UserError(f"{path}: {found[task][0].folder} is of {task} too; name one of them")
        [rank] = wanted_ranks(run, chosen.rank, chosen.tolerance)
        adapter_file(run)
        found[task] = (run, rank)
    return found


def _answers(
    run: Run, rank: int, sheets: "dict[str, Dataset]", chosen: Options
) -> dict[str, list[str]]:
    """What the run's model says at a rank, by the name of the sheet."""
    import torch

    import dylora
    from dylora.suite.config import PathsConfig
    from dylora.tasks.leaderboard import answer
    from dylora.training.classification import encode, predict
    from dylora.training.experiment import quiet_libraries
    from dylora.training.models import load_backbone

    quiet_libraries()
    config, paths = run.config(), PathsConfig(models=chosen.paths.models)
    model, tokenizer = load_backbone(config.model, config.task, paths)
    dylora.load_adapter(model, adapter_file(run), rank=rank)
    device = torch.accelerator.current_accelerator() or torch.device("cpu")
    torch.nn.Module.to(model, device)  # a plain call: transformers hides its type
    found = {}
    for name, rows in sheets.items():
        examples = encode(rows, tokenizer, config.task.max_length)
        predicted = predict(model, examples, tokenizer, [rank], chosen.batch_size, device)[rank]
        found[name] = [answer(config.task, float(value)) for value in predicted]
    return found


if __name__ == "__main__":
    with plain_errors():
        main()
