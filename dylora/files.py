"""Folders that are there as a whole or not at all."""

import tempfile
from collections.abc import Callable
from pathlib import Path


def make_folder(target: Path, fill: Callable[[Path], None]) -> Path:
    """The folder `target`; if it is not there, `fill` writes its files under another name first.

    A call that fails leaves nothing; one that is killed outright leaves no `target`, at most a
    hidden folder beside it. Of two calls at once one wins.
    """
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as temporary:
        unfinished = Path(temporary) / target.name
        unfinished.mkdir()
        fill(unfinished)
        try:
            unfinished.rename(target)
        except OSError:  # another call has made it meanwhile
            if not target.is_dir():
                raise
    return target
