"""One process at a time runs a configuration."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from dylora.errors import UserError
from dylora.files import writing


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes off a run's folder inside the block.

    The lock is the kernel's, on a file in results/locks: it ends with the process that has it,
    however that ends. Raises UserError saying which process runs it now, or why none can.
    """
    path = folder.parents[1] / "locks" / folder.name
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab+", buffering=0)
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UserError(
                f"{folder} is being run by {file.read().decode()}: wait until it is done, or stop "
                "it and type the command again, which goes on where it stopped"
            ) from None
        started = datetime.now().isoformat(timespec="seconds")
        with writing(path):
            file.truncate(0)
            owner = f"process {os.getpid()} on {socket.gethostname()} since {started}"
            file.write(owner.encode())
        yield
