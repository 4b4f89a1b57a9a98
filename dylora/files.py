"""Files and folders that are there as a whole or not at all, and the names that are shared."""

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dylora.errors import UserError

ADAPTER = "adapter.safetensors"  # in the folder of a run, and in checkpoints of a Trainer
CHECKSUMS = "checksums.json"  # in a folder of `make_folder`
NESTING = "dylora.json"  # in a folder of PEFT: how its adapter was nested

# What a disk says that is full, has a quota, is read-only or broken, or has a file for a folder.
REFUSALS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.EIO, errno.ENOTDIR, errno.EEXIST),
)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Within the block, which writes `path`, a disk that refuses becomes a UserError."""
    try:
        yield
    except Exception as error:
        number = _system_error(error)
        if number is None or number not in REFUSALS:
            raise
        there = next(folder for folder in path.absolute().parents if folder.is_dir())
        free = shutil.disk_usage(there).free / 1e6
        raise UserError(
            f"{path} cannot be written: {os.strerror(number)} ({free:,.1f} MB free there). Make "
            "room or allow writing there and type the command again: what is finished is kept. "
            "Or choose another folder, of a run by paths.results=FOLDER"
        ) from error


def _system_error(error: Exception) -> int | None:
    """The system's number for an error, which torch.save and libraries written in Rust hide."""
    if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError):
        error = error.__context__
    if isinstance(error, OSError):
        return error.errno
    in_rust = re.search(r"\(os error (\d+)\)", str(error))  # safetensors, tokenizers
    return int(in_rust[1]) if in_rust else None


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields another name to write to, which becomes `path` at the end of the block.

    Folders are made. A block that raises leaves what was at `path` before. Raises UserError saying
    what to do if the disk is full or may not be written.
    """
    unfinished = path.with_name(path.name + ".tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
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

    It keeps checksums of them: if one has changed since, that is said and the folder made anew.
    A call that fails leaves nothing; one that is killed outright leaves no `target`, at most a
    hidden folder beside it. Of two calls at once one wins. Raises UserError as `whole_file` does.
    """
    if target.is_dir():
        damaged = _damaged_file(target)
        if damaged is None:
            return target
        print(f"{damaged} is damaged: {target.name} is made anew")
        shutil.rmtree(target, ignore_errors=True)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _make(target, fill)
    return target


def _make(target: Path, fill: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as temporary:
        unfinished = Path(temporary) / target.name
        unfinished.mkdir()
        fill(unfinished)
        write_text(unfinished / CHECKSUMS, json.dumps(_checksums(unfinished), indent=1))
        try:
            unfinished.rename(target)
        except OSError:  # another call has made it meanwhile
            if not target.is_dir():
                raise


def _checksums(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder but that of the checksums."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.name != CHECKSUMS:
            with path.open("rb") as file:
                name = path.relative_to(folder).as_posix()
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _damaged_file(folder: Path) -> Path | None:
    """The first file that is not as `make_folder` left it; None too if that is not known."""
    listed = folder / CHECKSUMS
    if not listed.exists():  # made before there were checksums
        return None
    try:
        known = json.loads(listed.read_text(encoding="utf-8"))
    except ValueError:
        return listed
    now = _checksums(folder)
    return next((folder / name for name in known if known[name] != now.get(name)), None)
