"""A stand-in for the `java` command: PTBTokenizer changes nothing, METEOR gives 0.5."""

import sys
from pathlib import Path

import pytest

PROGRAM = """\
import sys
if not any(word.endswith("PTBTokenizer") for word in sys.argv):
    log = open({log!r}, "a", buffering=1)
    log.write("started\\n")
    for number, line in enumerate(sys.stdin):
        if number == {answers}:
            sys.exit("no such memory")
        parts = line.split(" ||| ")
        # EVAL: a score for each input, then that of all
        print("0.5\\n" * len(parts) if parts[0] == "EVAL" else "1.0 2.0\\n", end="", flush=True)
    log.write("ended\\n")
else:
    print(sys.stdin.read(), end="")
"""


def use_fake_java(patch: pytest.MonkeyPatch, folder: Path, answers: int = -1) -> Path:
    """Make it the only program on the PATH; METEOR fails after these `answers`.

    Returns the file that has a line for each start of METEOR, and each end of its input.
    """
    log = folder / "started"
    log.touch()
    program = folder / "java"
    program.write_text(f"#!{sys.executable} -S\n{PROGRAM.format(log=str(log), answers=answers)}")
    program.chmod(0o755)
    patch.setenv("PATH", str(folder))
    return log
