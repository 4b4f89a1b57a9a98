"""Files and folders that are there as a whole or not at all, and the names that are shared."""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

ADAPTER = "adapter.safetensors"  # in the folder of a run, and in checkpoints of a Trainer
NESTING = "dylora.json"  # in a folder of PEFT: how its adapter was nested


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields another name to write to, which becomes `path` at the end of the block.

    Folders are made. A block that raises leaves what was at `path` before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".tmp")
    try:
        yield unfinished
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> Path:
    """Write a UTF-8 file with line ends as they are in `text`; returns its path."""
    with whole_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="")
    return path


def write_lines(path: Path, lines: Iterable[str]) -> Path:
    """Write one item per line; returns the path."""
    return write_text(path, "".join(f"{line}\n" for line in lines))


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
