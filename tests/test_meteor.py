"""METEOR as one process: its values, how often it is started, and how it ends."""

import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_java import use_fake_java

pytest.importorskip("pycocoevalcap")

from dylora.metrics.java import ToolError, _java, meteor, one_meteor

needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="no Java on the PATH")

CORPUS = ([["a pub", "an inn"], ["a mill"]], ["a pub", "a mill"])


@needs_java
@pytest.mark.slow
def test_one_process_gives_the_values_of_the_official_command_bit_for_bit(tmp_path: Path) -> None:
    references = [
        ["The Mill is a pub by the river.", "There is a riverside pub, 'The Mill'."],
        ["", "le café costs £1,200.50 – isn't it?"],
        ["x ||| y|||||z", "U.S. food...", "nothing alike"],
        ["Aromi serves Italian food."],
        ["only", "two words"],
    ]
    outputs = ["The Mill, a riverside pub.", "The café costs £1,200.50", "x | y||||z", "", "zzz"]
    most = max(map(len, references))
    lines = [line for group in references for line in group + [""] * (most - len(group))]
    for name, texts in (("outputs", outputs), ("references", lines)):
        (tmp_path / name).write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    files = (str(tmp_path / "outputs"), str(tmp_path / "references"))
    command = _java("meteor/meteor-1.5.jar", "Meteor", *files, "-l", "en", "-norm", "-r", f"{most}")
    official = subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout
    scores = re.findall(r"(?:Segment \d+|Final) score:\s+(\S+)", official)
    with one_meteor():
        inputs = list(zip(references, outputs, strict=True))
        found = [meteor([group], [output]) for group, output in inputs]
        assert found == [100 * float(score) for score in scores[:-1]]
        assert meteor(references, outputs) == 100 * float(scores[-1])


def test_a_process_that_died_gives_its_message_and_the_next_score_a_new_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = use_fake_java(monkeypatch, tmp_path, answers=3)
    with one_meteor():
        assert meteor(*CORPUS) == 50
        with pytest.raises(ToolError, match="Meteor ended with code 1: no such memory"):
            meteor([["another"]], ["text"])
        assert meteor([["another"]], ["text"]) == 50
    assert len(log.read_text().splitlines()) == 2


def test_nothing_is_left_running_when_scoring_is_interrupted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_fake_java(monkeypatch, tmp_path)
    with pytest.raises(KeyboardInterrupt), one_meteor() as running:
        meteor(*CORPUS)
        process = running._process
        assert process is not None and process.poll() is None
        raise KeyboardInterrupt
    assert process.poll() == -signal.SIGKILL


def test_the_process_ends_when_python_is_killed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = use_fake_java(monkeypatch, tmp_path)
    program = (
        "import os, signal\n"
        "from dylora.metrics.java import meteor, one_meteor\n"
        "with one_meteor():\n"
        "    print(meteor([['a']], ['a']), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert (killed.stdout, killed.returncode) == ("50.0\n", -signal.SIGKILL)
    for _ in range(1000):
        if log.read_text().endswith("ended\n"):
            return
        time.sleep(0.1)
    pytest.fail("it runs on")
