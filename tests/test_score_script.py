"""scripts/score.py: its inputs, outputs, errors and exit codes."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("sacrebleu")

SCRIPT = Path(__file__).parents[1] / "scripts" / "score.py"
FAST = "metrics=BLEU,NIST"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("score_script", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two inputs with two references and one, in every form that is read."""
    texts = {
        "refs.csv": 'mr,ref\na[1],"The Mill, a pub."\nb[2],Aromi is near.\na[1],A pub: The Mill.\n',
        "refs.tsv": "MR\tref\na\tThe Mill, a pub.\nb\tAromi is near.\na\tA pub: The Mill.\n",
        "out.tsv": "MR\toutput\nb\tAromi is near.\na\tThe Mill is a pub.\n",
        "blocks.txt": "The Mill, a pub.\nA pub: The Mill.\n\nAromi is near.\n",
        "ref0": "The Mill, a pub.\nAromi is near.\n",
        "ref1": "A pub: The Mill.\n\n",
        "out.txt": "The Mill is a pub.\nAromi is near.\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def scores(
    script: ModuleType, files: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., dict[str, float | None]]:
    def call(*arguments: str) -> dict[str, float | None]:
        assert script.main([*arguments, "format=json"]) == 0
        result = json.loads(capsys.readouterr().out)
        assert isinstance(result, dict)
        return result

    return call


@pytest.fixture
def error(
    script: ModuleType, files: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    def call(*arguments: str) -> str:
        assert script.main(list(arguments)) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.count("\n") == 1
        return printed.err

    return call


def test_every_form_of_references_gives_the_same(scores: Callable[..., dict]) -> None:
    expected = scores("task=e2e", "references=refs.csv", "predictions=out.txt", FAST)
    assert list(expected) == ["BLEU", "NIST"]
    for form in ("refs.tsv", "blocks.txt", "ref0,ref1", "[ref0,ref1]", "ref?"):
        assert scores("task=e2e", f"references={form}", "predictions=out.txt", FAST) == expected


def test_a_table_of_outputs_is_joined_to_the_references_by_input(
    scores: Callable[..., dict], error: Callable[..., str], files: Path
) -> None:
    expected = scores("task=e2e", "references=refs.csv", "predictions=out.txt", FAST)
    told = ("task=e2e", "references=refs.tsv", "predictions=out.tsv")
    assert scores(*told, FAST) == expected
    (files / "out.tsv").write_text("mr\toutput\na\tone\na\ttwo\n")
    assert "has several outputs for a:" in error(*told)
    (files / "out.tsv").write_text("mr\toutput\na\tone\nc\ttwo\n")
    assert "has not the inputs of refs.tsv" in error(*told)


def test_a_glob_sorts_numbers_by_value(script: ModuleType, tmp_path: Path) -> None:
    for number in (10, 9, 0):
        (tmp_path / f"reference{number}.lex").touch()
    found = script.parse(["task=dart", f"references={tmp_path}/*.lex", "predictions=x"]).references
    assert [path.stem for path in found] == ["reference0", "reference9", "reference10"]


def test_a_leading_star_and_a_comma_in_a_name_are_taken_literally(
    script: ModuleType, files: Path
) -> None:
    (files / "a,b.lex").touch()
    for value, names in (("*.lex", ["a,b.lex"]), ("a,b.lex", ["a,b.lex"])):
        options = script.parse(["task=dart", f"references={value}", "predictions=out.txt"])
        assert [path.name for path in options.references] == names


def test_one_file_without_blank_lines_has_one_reference_per_output(
    scores: Callable[..., dict],
) -> None:
    arguments = ("task=webnlg", "references=ref0", "predictions=out.txt", "metrics=TER")
    # is for the comma, and one word more: 2 edits in 7 words.
    assert scores(*arguments)["TER"] == pytest.approx(100 * 2 / 7, abs=1e-4)


def test_an_empty_line_is_an_empty_output(files: Path, scores: Callable[..., dict]) -> None:
    (files / "out.txt").write_text("\nAromi is near.\n")
    arguments = ("task=dart", "references=ref0", "predictions=out.txt", "metrics=TER")
    assert scores(*arguments)["TER"] == pytest.approx(100 * 4 / 7, abs=1e-4)


def test_byte_order_mark_and_crlf_change_nothing(files: Path, scores: Callable[..., dict]) -> None:
    arguments = ("task=e2e", "references=refs.csv", "predictions=out.txt", FAST)
    expected = scores(*arguments)
    for name in ("refs.csv", "out.txt"):
        text = (files / name).read_text(encoding="utf-8")
        (files / name).write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert scores(*arguments) == expected


def test_json_has_null_for_a_dash_and_standard_error_the_reason(
    script: ModuleType,
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", str(files))
    arguments = ["task=webnlg", "references=ref0,ref1", "predictions=out.txt", "format=json"]
    assert script.main(arguments) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert list(result) == ["BLEU", "METEOR", "TER"]
    assert result["METEOR"] is None and result["BLEU"] is not None
    assert "METEOR: - (Java is not on the PATH" in printed.err


def test_the_table_has_value_and_signature(
    script: ModuleType, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(["task=e2e", "references=refs.csv", "predictions=out.txt", FAST]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    name, value, signature = lines[1].split()
    assert (name, signature.split("|")[1]) == ("BLEU", "protocol:e2e.challenge")
    assert value == f"{float(value):.2f}"


def test_help_answers_and_nothing_asks_for_it(
    script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (["--help"], []):
        assert script.main(arguments) == 0
        assert "references=" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("task=e2e predictions=out.txt", "references=... is missing"),
        ("task=e2e refrences=ref0 predictions=out.txt", "did you mean references=...?"),
        ("task=e2e --format=json", "did you mean format=...?"),
        ("task=e2e references=ref0 predictions=out.txt format=xml", "type format=table or"),
        ("task=e2e references=ref0 predictions=out.txt,ref0", "predictions= takes one value"),
        ("task=e3e references=ref0 predictions=out.txt", "did you mean e2e?"),
        ("task=dart references=ref0 predictions=out.txt metrics=BLUE", "did you mean BLEU?"),
        ("task=dart references=ref0 predictions=out.txt protocol=lora", "generation_eval"),
        ("task=e2e references=ref0 predictions=none.txt", "none.txt: cannot be read: No such"),
        ("task=e2e references=none.csv predictions=out.txt", "none.csv: cannot be read: No such"),
        ("task=e2e references=none* predictions=out.txt", "no file matches"),
        ("task=e2e references=. predictions=out.txt", "cannot be read: Is a directory"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_type(
    arguments: str, message: str, error: Callable[..., str]
) -> None:
    assert message in error(*arguments.split())


def test_wrong_numbers_of_lines_name_files_and_counts(
    files: Path, error: Callable[..., str]
) -> None:
    (files / "three.txt").write_text("a\nb\nc\n")
    line = error("task=e2e", "references=refs.csv", "predictions=three.txt")
    assert "three.txt has 3 lines, but refs.csv have references for 2 inputs" in line
    line = error("task=dart", "references=ref0,three.txt", "predictions=out.txt")
    assert "(ref0: 2, three.txt: 3)" in line


def test_bytes_that_are_not_utf8_name_file_and_line(files: Path, error: Callable[..., str]) -> None:
    (files / "out.txt").write_bytes("The Mill\nCafé\n".encode("latin-1"))
    line = error("task=e2e", "references=refs.csv", "predictions=out.txt")
    assert "out.txt: line 2 is not UTF-8" in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("meaning,text\na,b\n", "must name the columns mr and ref, not meaning, text"),
        ("", "must name the columns mr and ref, not nothing"),
        ("mr,ref\na,b,c\n", "line 2 has not the columns of line 1"),
        ("mr,ref\na,b\nc\n", "line 3 has not the columns of line 1"),
        ('mr,ref\na,"b\n', "is not CSV"),
    ],
)
def test_a_broken_csv_names_the_line(
    text: str, message: str, files: Path, error: Callable[..., str]
) -> None:
    (files / "broken.csv").write_text(text)
    line = error("task=e2e", "references=broken.csv", "predictions=out.txt")
    assert "broken.csv" in line and message in line


def test_exit_codes_and_no_traceback(files: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, cwd=files
        )

    good = run("task=e2e", "references=refs.csv", "predictions=out.txt", FAST, "format=json")
    assert (good.returncode, good.stderr) == (0, "")
    assert set(json.loads(good.stdout)) == {"BLEU", "NIST"}
    bad = run("task=e2e", "references=refs.csv", "predictions=no.txt")
    assert bad.returncode == 2
    assert bad.stderr.startswith("error: no.txt") and "Traceback" not in bad.stderr
