"""Tasks: files in, splits with fixed column names out. Nothing here knows of adapters."""

from pathlib import Path

from dylora.config import PathsConfig, TaskConfig
from dylora.errors import UserError
from dylora.tasks import glue, table
from dylora.tasks.base import Loader, Splits, limit_rows

LOADERS: dict[str, Loader] = {
    "glue": glue.load_glue,
    "table": table.load_table,
}


def load(task: TaskConfig, paths: PathsConfig) -> Splits:
    """The task's splits, cut to its row limits.

    Raises UserError naming the file, row or option that is wrong.
    """
    if task.format not in LOADERS:
        raise UserError(f"task.format={task.format}: must be one of {', '.join(LOADERS)}")
    data = Path(paths.data)
    return limit_rows(LOADERS[task.format](task, data), task)
