"""The two official tools that exist only in Java: METEOR 1.5 and Stanford's PTBTokenizer.

Both jars come with pycocoevalcap. Its own wrappers are not used: they write into site-packages and
to the terminal, and fail with a traceback where Java is missing.
"""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from importlib.util import find_spec
from pathlib import Path


class ToolError(Exception):
    """Java or a jar is missing or has failed; the message is the reason shown beside a dash."""


def ptb_tokenize(lines: Sequence[str]) -> list[str]:
    """Lower-cased Penn Treebank tokens without punctuation, joined by spaces, for each line.

    The tokenizer looks at the next line to judge a full stop at the end of one, so the official
    order matters: first the references of all inputs, then, in a call of its own, all outputs.
    """
    tokenizer = "edu.stanford.nlp.process.PTBTokenizer"
    run = subprocess.run(
        _java("tokenizer/stanford-corenlp-3.4.1.jar", tokenizer, "-preserveLines", "-lowerCase"),
        input="\n".join(lines),
        capture_output=True,
        encoding="utf-8",
    )
    if run.returncode:
        raise _ended(tokenizer, run.returncode, run.stderr)
    tokenized = run.stdout.split("\n")
    if len(tokenized) != len(lines):
        raise ToolError(f"PTBTokenizer made {len(tokenized)} lines out of {len(lines)}")
    from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS

    dropped = set(PUNCTUATIONS)
    return [
        " ".join(word for word in line.rstrip().split(" ") if word not in dropped)
        for line in tokenized
    ]


def meteor(references: Sequence[Sequence[str]], predictions: Sequence[str]) -> float:
    """METEOR 1.5 (-l en -norm) in percent, by the process of `one_meteor` or one of its own.

    references[i] are those of input i; METEOR takes the best one of each and sums the statistics.
    """
    with one_meteor() as running:
        return 100 * running.score(references, predictions)


class Meteor:
    """METEOR as a process that answers lines; it starts with the first, and anew if it has died.

    To start takes it longer than to score some hundred texts.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._statistics: dict[str, str] = {}  # what was asked for -> the answer

    def score(self, references: Sequence[Sequence[str]], predictions: Sequence[str]) -> float:
        """The score of a corpus, 0 to 1. Raises ToolError."""
        lines = [
            # METEOR sets a bar within a text apart too; three in a row would end the text.
            " ||| ".join(["SCORE", *(text.replace("|", " | ") for text in [*group, output])])
            for group, output in zip(references, predictions, strict=True)
        ]
        for line in lines:
            if line not in self._statistics:  # parts and ranks have texts in common
                self._statistics[line] = self._ask(line)[0]
        statistics = [self._statistics[line] for line in lines]
        scores = self._ask(" ||| ".join(["EVAL", *statistics]), answers=len(lines) + 1)
        return float(scores[-1])  # after those of the inputs

    def close(self) -> None:
        """End the process, which has nothing to finish."""
        if self._process is not None:
            self._process.kill()
            with suppress(BrokenPipeError), self._process:  # closes the pipes and waits
                self._process = None

    def _ask(self, line: str, answers: int = 1) -> list[str]:
        process = self._process = self._process or _start_meteor()
        assert process.stdin and process.stdout and process.stderr
        with suppress(BrokenPipeError):  # it has died; its answer is missing then
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
        found = [process.stdout.readline() for _ in range(answers)]
        if found[-1]:
            return [answer.strip() for answer in found]
        message = process.stderr.read()
        self.close()
        raise _ended("Meteor", process.returncode, message)


_running: ContextVar[Meteor | None] = ContextVar("_running", default=None)


@contextmanager
def one_meteor() -> Iterator[Meteor]:
    """Within the block METEOR is one process, started when it is needed and ended with the block.

    A block within another has the outer one's. Should Python be killed, METEOR reads the end of its
    input and ends too.
    """
    if (outer := _running.get()) is not None:
        yield outer
        return
    own = Meteor()
    token = _running.set(own)
    try:
        yield own
    finally:
        _running.reset(token)
        own.close()


def _start_meteor() -> "subprocess.Popen[str]":
    pipe = subprocess.PIPE
    return subprocess.Popen(
        _java("meteor/meteor-1.5.jar", "Meteor", "-", "-", "-l", "en", "-norm", "-stdio"),
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        encoding="utf-8",
    )


def _java(jar: str, *arguments: str) -> list[str]:
    """The command of a main class in a jar of pycocoevalcap. Raises ToolError if one is missing."""
    java = shutil.which("java")
    if java is None:
        raise ToolError(
            "Java is not on the PATH: install a Java runtime, version 8 or later "
            "(`apt install default-jre-headless` or `conda install openjdk`)"
        )
    package = find_spec("pycocoevalcap")
    if package is None or not package.submodule_search_locations:
        raise ToolError("pycocoevalcap is not installed: `pip install pycocoevalcap`")
    path = Path(next(iter(package.submodule_search_locations))) / jar
    if not path.is_file():
        raise ToolError(f"{path} is missing: `pip install --force-reinstall pycocoevalcap`")
    # METEOR wants 2 GB for its paraphrase table, which it finds beside its jar, and reads numbers
    # as the user's language writes them.
    options = ["-Xmx2G", "-Dfile.encoding=UTF-8", "-Duser.language=en", "-Duser.country=US"]
    return [java, *options, "-cp", str(path), *arguments]


def _ended(program: str, code: int, message: str) -> ToolError:
    last = (message.strip().splitlines() or ["no message"])[-1]
    return ToolError(f"{program} ended with code {code}: {last}")
