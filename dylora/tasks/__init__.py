"""Tasks: files in, splits with fixed column names out. Nothing here knows of adapters."""

from pathlib import Path

from dylora.errors import UserError
from dylora.suite.config import PathsConfig, TaskConfig
from dylora.tasks import data2text, glue, table, toy
from dylora.tasks.base import Loader, Splits, hold_out, limit_rows

LOADERS: dict[str, Loader] = {
    "glue": glue.load_glue,
    "table": table.load_table,
    "e2e": data2text.load_e2e,
    "dart": data2text.load_dart,
    "webnlg": data2text.load_webnlg,
}


def load(task: TaskConfig, paths: PathsConfig) -> Splits:
    """The task's splits, cut to its row limits; a toy task's files are written first.

    Raises UserError naming the file, row or option that is wrong.
    """
    if task.format not in LOADERS:
        raise UserError(f"task.format={task.format}: must be one of {', '.join(LOADERS)}")
    data = toy.write(task.name, Path(paths.cache)) if task.toy else Path(paths.data)
    return limit_rows(hold_out(LOADERS[task.format](task, data), task), task)
