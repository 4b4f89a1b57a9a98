"""Protocols, signatures and official figures of `dylora.metrics.nlg.score`."""

import shutil
import time
from pathlib import Path

import pytest

pytest.importorskip("sacrebleu")

from scorer_examples import e2e_baseline, webnlg_participant

from dylora.errors import UserError
from dylora.metrics.java import ToolError, meteor, one_meteor, ptb_tokenize
from dylora.metrics.nlg import Score, score

needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="no Java on the PATH")

REFERENCES = [
    ["The Mill is a pub by the river.", "By the river there is a pub, The Mill."],
    ["Aromi serves Italian food."],
]
OUTPUTS = ["The Mill is a riverside pub.", "Aromi serves Italian food."]


def values(scores: dict[str, Score]) -> dict[str, float | None]:
    return {name: result.value for name, result in scores.items()}


@pytest.fixture
def no_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


@needs_java
@pytest.mark.slow
def test_the_official_figures_of_the_e2e_baseline(shared_data: Path) -> None:
    result = values(score("e2e", *e2e_baseline(shared_data)))
    assert list(result) == ["BLEU", "NIST", "METEOR", "ROUGE_L", "CIDEr"]
    assert result["BLEU"] == pytest.approx(65.93, abs=0.005)
    assert result["NIST"] == pytest.approx(8.5923, abs=0.001)
    assert result["METEOR"] == pytest.approx(44.83, abs=0.005)
    assert result["ROUGE_L"] == pytest.approx(68.50, abs=0.005)
    assert result["CIDEr"] == pytest.approx(2.2338, abs=0.0001)


@pytest.mark.slow
def test_the_e2e_test_set_takes_under_15_seconds_of_one_core(shared_data: Path) -> None:
    """All but Java's part: METEOR and the PTB tokenizer run in processes of their own."""
    start = time.process_time()
    score("e2e", *e2e_baseline(shared_data), metrics=["BLEU", "NIST", "ROUGE_L", "CIDEr"])
    assert time.process_time() - start < 15


@needs_java
@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "official"),
    [
        ("old", {"BLEU": 40.88, "METEOR": 40.59, "TER": 55.91}),
        ("new", {"BLEU": 35.70, "METEOR": 37.36, "TER": 55.96}),
    ],
)
def test_the_official_figures_of_a_webnlg_participant(
    part: str, official: dict[str, float], shared_data: Path
) -> None:
    result = values(score("webnlg", *webnlg_participant(shared_data, part)))
    assert result == pytest.approx(official, abs=0.0051)


def test_a_reference_left_out_is_the_empty_line_of_the_official_files() -> None:
    """challenge: as many references for each input, those that do not exist with length 0."""
    outputs = ["a b c d", "x y z w"]
    ragged = score("webnlg", [["a b c d e f g h i"], ["x y z w", "v"]], outputs, metrics=["BLEU"])
    filled = [["a b c d e f g h i", ""], ["x y z w", "v"]]
    assert ragged == {**score("webnlg", filled, outputs, metrics=["BLEU"])}
    assert ragged["BLEU"].value == pytest.approx(100)
    single = score("webnlg", [["a b c d e f g h i"], ["x y z w"]], outputs, metrics=["BLEU"])
    assert single["BLEU"].value != pytest.approx(100)


def test_challenge_scores_text_as_given_with_three_references() -> None:
    references = [["a, b c d", "e", "f", "a , b c d"]]
    result = score("dart", references, ["A , b c d"], metrics=["BLEU", "TER"])
    assert result["BLEU"].value == 0 and result["TER"].value == pytest.approx(100)
    assert "nrefs:3" in result["BLEU"].signature


def test_generation_eval_splits_at_non_word_characters_and_takes_six_references() -> None:
    references = [["x", "y", "z", "v", "w", "a, b-c d", "A , b"]]
    result = score("dart", references, ["A ,b - c d"], "generation_eval", ["BLEU", "TER"])
    assert values(result) == pytest.approx({"BLEU": 100, "TER": 0})
    assert "nrefs:6" in result["TER"].signature


def test_generation_eval_passes_over_a_reference_left_out_and_counts_a_given_empty_one() -> None:
    outputs, metrics = ["a b c d", "x y z w v"], ["BLEU", "TER"]
    ragged = score("dart", [["a b c d"], ["x", "y"]], outputs, "generation_eval", metrics)
    repeated = score("dart", [["a b c d"] * 2, ["x", "y"]], outputs, "generation_eval", metrics)
    assert values(ragged) == values(repeated)
    assert ragged["TER"].value == pytest.approx(100 * (0 + 4) / 2)
    given = score("dart", [["a b c d"], ["x", ""]], outputs, "generation_eval", metrics)
    assert given["TER"].value == pytest.approx(100 * (0 + 1) / 2)


@pytest.mark.parametrize("protocol", ["challenge", "generation_eval"])
def test_an_empty_output_is_scored(protocol: str) -> None:
    """It adds no words for BLEU and costs TER the words of the reference; it is no error."""
    references = [["a b c d"], ["e f g h"]]
    result = score("webnlg", references, ["a b c d", ""], protocol, ["BLEU", "TER"])
    assert result["BLEU"].value == pytest.approx(100 * 2.718281828**-1)
    assert result["TER"].value == pytest.approx(50)
    assert score("webnlg", references, [" ", ""], protocol, ["BLEU"])["BLEU"].value == 0


@needs_java
def test_an_empty_output_scores_0_in_rouge_and_cider() -> None:
    whole = values(score("e2e", REFERENCES, OUTPUTS, metrics=["ROUGE_L", "CIDEr"]))
    half = values(score("e2e", REFERENCES, ["", OUTPUTS[1]], metrics=["ROUGE_L", "CIDEr"]))
    none = values(score("e2e", REFERENCES, ["", ""], metrics=["ROUGE_L", "CIDEr"]))
    assert half["ROUGE_L"] == pytest.approx(50)
    assert none == {"ROUGE_L": 0, "CIDEr": 0}
    assert 0 < float(half["CIDEr"] or 0) < float(whole["CIDEr"] or 0)


@needs_java
@pytest.mark.slow
def test_meteor_of_empty_missing_and_odd_texts() -> None:
    references = [["a pub", "x y"], ["a mill"], ["x", "le café"], ["a ||| b"]]
    outputs = ["a pub", "a mill", "le café", "a ||| b"]
    with one_meteor():
        assert meteor(references, outputs) == pytest.approx(100)
        assert 0 < meteor(references, [*outputs[:3], ""]) < 90
        assert meteor([["a pub"]], [""]) == 0


@needs_java
def test_ptb_tokens_keep_the_lines_and_drop_punctuation() -> None:
    """But brackets, as in the official scorer, which looks for -LRB- in lower-cased text."""
    lines = ["The café (pub) costs £20, isn't it?", "", "OK.", "", ""]
    expected = ["the café -lrb- pub -rrb- costs # 20 is n't it", "", "ok", "", ""]
    assert ptb_tokenize(lines) == expected


@needs_java
def test_line_ends_within_a_text_do_not_shift_the_others() -> None:
    odd = ["The Mill is a\nriverside\u2028pub.", "Aromi\r\nserves\x0bItalian\x0cfood."]
    metrics = ["BLEU", "NIST", "ROUGE_L", "CIDEr"]
    expected = values(score("e2e", REFERENCES, OUTPUTS, metrics=metrics))
    assert values(score("e2e", REFERENCES, odd, metrics=metrics)) == expected


def test_without_java_there_is_a_dash_and_never_another_number(no_java: None) -> None:
    result = score("e2e", REFERENCES, OUTPUTS)
    assert [name for name, each in result.items() if each.value is None] == [
        "METEOR",
        "ROUGE_L",
        "CIDEr",
    ]
    assert result["BLEU"].value and result["NIST"].value
    assert result["BLEU"].reason is None
    assert "Java is not on the PATH: install" in str(result["METEOR"].reason)


def test_a_java_that_fails_gives_its_message_as_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'no such memory' >&2\nexit 3\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(ToolError, match="ended with code 3: no such memory"):
        ptb_tokenize(["a"])
    result = score("webnlg", [["a"]], ["a"], metrics=["METEOR"])["METEOR"]
    assert result.value is None and "no such memory" in str(result.reason)


def test_signatures_name_metric_protocol_references_and_version() -> None:
    result = score("webnlg", REFERENCES, OUTPUTS, metrics=["ter", "BLEU"])
    assert list(result) == ["TER", "BLEU"]
    assert result["BLEU"].signature.startswith(
        "BLEU|protocol:webnlg.challenge|nrefs:1-2|case:lc|tok:none|missing:length-0|"
    )
    assert result["BLEU"].signature.split("|")[-1].startswith("sacrebleu:2.")
    other = score("webnlg", REFERENCES, OUTPUTS, "generation_eval", ["BLEU"])
    assert "protocol:webnlg.generation_eval" in other["BLEU"].signature


def test_ter_of_e2e_only_on_request(no_java: None) -> None:
    assert "TER" not in score("e2e", REFERENCES, OUTPUTS)
    assert list(score("e2e", REFERENCES, OUTPUTS, metrics=["BLEU", "TER"])) == ["BLEU", "TER"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("e2f", REFERENCES, OUTPUTS), "unknown task 'e2f': .*did you mean e2e"),
        (("e2e", REFERENCES, OUTPUTS, "generation_eval"), "choose from challenge"),
        (("dart", REFERENCES, OUTPUTS, "chalenge"), "did you mean challenge"),
        (("dart", REFERENCES, OUTPUTS, None, ["CIDEr"]), "choose from BLEU, METEOR, TER"),
        (("e2e", REFERENCES, OUTPUTS[:1]), "1 outputs for 2 inputs"),
        (("e2e", [], []), "nothing to score"),
        (("e2e", [["a"], ["", " "]], OUTPUTS), "input 2 has no reference"),
        (("webnlg", [["", "", "", "a"]], ["a"]), "no reference among its first 3"),
    ],
)
def test_what_cannot_be_scored_is_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(UserError, match=message):
        score(*arguments)
