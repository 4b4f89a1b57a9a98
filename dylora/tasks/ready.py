"""What can be said of a run before torch is imported: that it is done, or that its data is wrong.

No torch here: importing it takes seconds, on a busy machine many.
"""

import shutil
from pathlib import Path

from dylora.errors import UserError
from dylora.suite.cli import score_table
from dylora.suite.config import Config
from dylora.suite.records import Record, read_record, run_folder
from dylora.tasks import load
from dylora.tasks.fingerprint import Fingerprint, difference, local_fingerprint


def finished(config: Config) -> Record | None:
    """The record of this run, shown, if the run is done and not to be forced; else None.

    Raises UserError if the run was made from other rows than the task has now.
    """
    folder = run_folder(config)
    record = None if config.force else read_record(folder)
    if record is None or record["status"] != "done":
        return None
    if record.get("data"):  # older records do not say what they were made from
        check_unchanged(record, local_fingerprint(config.task, config.paths), "type force=true")
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)  # left if it was killed at its end
    print(f"done already: {folder / 'record.json'} (force=true runs it again)")
    print(score_table(record))
    return record


def check_files(config: Config) -> None:
    """Raise UserError if the task's local files are missing or cannot be read as the task says.

    Files that were read before, by the same options, are not read again. What is to be made or
    downloaded is left to the run.
    """
    task, paths = config.task, config.paths
    elsewhere = task.hub is not None and not (Path(paths.data) / task.folder).is_dir()
    if not task.toy and not elsewhere and local_fingerprint(task, paths) is None:
        load(task, paths)  # which names what is missing


def check_unchanged(record: Record | None, now: Fingerprint | None, advice: str) -> None:
    """Raise UserError if a run was made from other rows than are there now.

    Nothing is known of records older than fingerprints, nor of data that is not on this machine.
    """
    before = (record or {}).get("data")
    changed = difference(before, now) if before and now else ""
    if changed:
        raise UserError(
            f"the data of this run has changed since: {changed}. Put the former files back, or, "
            f"to run on these, {advice}"
        )
