"""The two official tools that exist only in Java: METEOR 1.5 and Stanford's PTBTokenizer.

Both jars come with pycocoevalcap. Its own wrappers are not used: they write into site-packages and
to the terminal, and fail with a traceback where Java is missing.
"""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

from dylora.errors import UserError


class ToolError(Exception):
    """Java or a jar is missing or has failed; the message is the reason shown beside a dash."""


def ptb_tokenize(lines: Sequence[str]) -> list[str]:
    """Lower-cased Penn Treebank tokens without punctuation, joined by spaces, for each line.

    The tokenizer looks at the next line to judge a full stop at the end of one, so the official
    order matters: first the references of all inputs, then, in a call of its own, all outputs.
    """
    tokenizer = "edu.stanford.nlp.process.PTBTokenizer"
    output = _run_java(
        "tokenizer/stanford-corenlp-3.4.1.jar",
        [tokenizer, "-preserveLines", "-lowerCase"],
        "\n".join(lines),
    )
    tokenized = output.split("\n")
    if len(tokenized) != len(lines):
        raise ToolError(f"PTBTokenizer made {len(tokenized)} lines out of {len(lines)}")
    from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS

    dropped = set(PUNCTUATIONS)
    return [
        " ".join(word for word in line.rstrip().split(" ") if word not in dropped)
        for line in tokenized
    ]


def meteor(references: Sequence[Sequence[str]], predictions: Sequence[str]) -> float:
    """METEOR 1.5 (-l en -norm -r N) in percent; one Java process for the whole corpus.

    references[i] are those of input i; METEOR takes the best one of each and sums the statistics.
    """
    most = max(map(len, references))
    # N lines for each input; an empty one scores 0, so it is never the best.
    lines = [line for group in references for line in [*group, *[""] * (most - len(group))]]
    with _temporary_files(predictions, lines) as files:
        arguments = ["Meteor", *files, "-l", "en", "-norm", "-r", str(most)]
        output = _run_java("meteor/meteor-1.5.jar", arguments)
    final = re.search(r"^Final score:\s+(\S+)", output, re.MULTILINE)
    if final is None:
        raise ToolError(f"METEOR printed no final score but: {output[-200:]}")
    return 100 * float(final[1])


@contextmanager
def _temporary_files(*texts: Sequence[str]) -> Iterator[list[str]]:
    """The names of files that hold these lines."""
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            paths = [Path(folder, str(number)) for number in range(len(texts))]
            for path, lines in zip(paths, texts, strict=True):
                path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"METEOR's temporary files cannot be written: {error.strerror}. Make room, or set "
                "TMPDIR=FOLDER before the command, and type it again"
            ) from error
        yield list(map(str, paths))


def _run_java(jar: str, arguments: list[str], text: str = "") -> str:
    """Standard output of a main class in one of pycocoevalcap's jars; ToolError where it fails."""
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
    run = subprocess.run(
        # METEOR wants 2 GB for its paraphrase table, which it finds beside its jar.
        [java, "-Xmx2G", "-Dfile.encoding=UTF-8", "-cp", str(path), *arguments],
        input=text,
        capture_output=True,
        encoding="utf-8",
    )
    if run.returncode:
        last = (run.stderr.strip().splitlines() or ["no message"])[-1]
        raise ToolError(f"{arguments[0]} ended with code {run.returncode}: {last}")
    return run.stdout
