"""Tasks: files in, splits with fixed column names out. Nothing here knows of adapters."""

from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from dylora.suite.config import PathsConfig, TaskConfig

if TYPE_CHECKING:
    from dylora.tasks.base import Splits

LOADERS = {  # task.format -> what reads it, a `Loader`; imported when used, as `datasets` is slow
    "glue": "dylora.tasks.glue:load_glue",
    "table": "dylora.tasks.table:load_table",
    "e2e": "dylora.tasks.data2text:load_e2e",
    "dart": "dylora.tasks.data2text:load_dart",
    "webnlg": "dylora.tasks.data2text:load_webnlg",
}


def load(task: TaskConfig, paths: PathsConfig) -> "Splits":
    """The task's splits, cut to its row limits; a toy task's files are written first.

    Raises UserError naming the file, row or option that is wrong.
    """
    from dylora.tasks import toy
    from dylora.tasks.base import Loader, hold_out, limit_rows, own_rows

    read: Loader = resolve_name(LOADERS[task.format])
    data = toy.write(task.name, Path(paths.cache)) if task.toy else Path(paths.data)
    return limit_rows(hold_out(own_rows(read(task, data), task), task), task)
