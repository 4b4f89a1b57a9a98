"""One process at a time runs a configuration."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from dylora.errors import UserError


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes off a run's folder inside the block.

    The lock is the kernel's, on a file in results/locks: it ends with the process that has it,
    however that ends. Raises UserError saying which process runs it now.
    """
    path = folder.parents[1] / "locks" / folder.name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UserError(
                f"{folder} is being run by {file.read()}: wait until it is done, or stop it and "
                "type the command again, which goes on where it stopped"
            ) from None
        file.truncate(0)
        started = datetime.now().isoformat(timespec="seconds")
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {started}")
        file.flush()
        yield
