"""BLEU and NIST as the official scripts compute them, and the words they count."""

import math
from pathlib import Path

import pytest

pytest.importorskip("sacrebleu")

from scorer_examples import e2e_baseline, e2e_example, webnlg_participant

from dylora.metrics import METRICS
from dylora.metrics.bleu import Script, mteval, multi_bleu, multi_bleu_detok
from dylora.metrics.nist import nist
from dylora.metrics.words import java_words, nltk_words, nonword_split, one_line, perl_words


def test_the_official_figures_of_the_e2e_baseline(shared_data: Path) -> None:
    references, outputs = e2e_baseline(shared_data)
    assert len(references) == 630
    assert round(mteval(references, outputs), 2) == 65.93
    assert nist(references, outputs) == pytest.approx(8.5923, abs=1e-4)


def test_the_official_figures_of_the_e2e_example(shared_data: Path) -> None:
    references, outputs = e2e_example(shared_data)
    assert mteval(references, outputs) == pytest.approx(72.0292849, abs=1e-6)
    assert nist(references, outputs) == pytest.approx(7.789, abs=5e-4)


@pytest.mark.parametrize("script", [mteval, multi_bleu, multi_bleu_detok])
def test_the_sums_over_the_inputs_give_the_bleu_of_the_corpus(
    script: Script, shared_data: Path
) -> None:
    """So that a paired test can resample inputs; one reference is missing, one output is empty."""
    references, outputs = e2e_baseline(shared_data)
    references[3], outputs[5] = [*references[3], ""], ""
    counts = script.counts(references, outputs)
    sums = METRICS["BLEU"].sums
    assert sums is not None and counts.shape == (630, 10)
    assert float(sums.score(counts.sum(axis=0))) == pytest.approx(script(references, outputs))
    few = counts[:2].sum(axis=0)
    few[5] = 0  # no common four words
    assert sums.score(few) == 0


def test_nltk_has_another_nist(shared_data: Path) -> None:
    """Why NIST is not taken from nltk: the official figure is 7.789, its figure about 6."""
    nltk_nist = pytest.importorskip("nltk.translate.nist_score")
    references, outputs = e2e_example(shared_data)
    words = [[text.lower().split() for text in group] for group in references]
    theirs = nltk_nist.corpus_nist(words, [text.lower().split() for text in outputs])
    assert theirs < nist(references, outputs) - 1


@pytest.mark.parametrize(("part", "bleu"), [("all", 38.65), ("old", 40.88), ("new", 35.70)])
def test_the_official_bleu_of_a_webnlg_participant(
    part: str, bleu: float, shared_data: Path
) -> None:
    assert round(multi_bleu(*webnlg_participant(shared_data, part)), 2) == bleu


def test_an_empty_reference_has_length_0_and_can_be_the_closest() -> None:
    """Four words are nearer to none than to nine, so no brevity penalty is left."""
    long, output = "a b c d e f g h i", "a b c d"
    assert multi_bleu([[long]], [output]) == pytest.approx(100 * math.exp(1 - 9 / 4))
    for scorer in (multi_bleu, multi_bleu_detok):
        assert scorer([[long, ""]], [output]) == pytest.approx(100)


def test_of_two_equally_close_lengths_the_shorter_counts() -> None:
    assert multi_bleu([["a b c d x y", "a b c d"]], ["a b c d e"]) == pytest.approx(
        100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
    )


def test_moses_scripts_do_not_smooth_and_mteval_does() -> None:
    references, output = [["a b c x e f"]], ["a b c d"]
    assert multi_bleu(references, output) == multi_bleu_detok(references, output) == 0
    assert mteval(references, output) > 0


def test_case_and_tokens_of_each_script() -> None:
    assert mteval([["The CAFÉ, near it."]], ["the café , near it ."]) == pytest.approx(100)
    assert multi_bleu([["The pub , near it ."]], ["the PUB , near it ."]) == pytest.approx(100)
    assert multi_bleu([["the pub, near it all"]], ["the pub , near it all"]) < 60
    assert multi_bleu_detok([["a pub, near it"]], ["a pub , near it"]) == pytest.approx(100)
    assert multi_bleu_detok([["a b c d e"]], ["A b c d e"]) < 100


def test_an_empty_output_shortens_the_corpus() -> None:
    references = [["a b c d"], ["e f g h"]]
    for scorer in (mteval, multi_bleu, multi_bleu_detok):
        assert scorer(references, ["a b c d", ""]) == pytest.approx(100 * math.exp(-1))
        assert scorer(references, ["", ""]) == 0
    assert nist(references, ["", ""]) == 0
    assert 0 < nist(references, ["a b c d", ""]) < nist(references, ["a b c d", "e f g h"])


def test_nist_by_hand() -> None:
    # Three words seen once each: log2(3) bits; "a b" always follows "a": none.
    assert nist([["a b c"]], ["a b c"]) == pytest.approx(math.log2(3))
    # Two thirds of the length: penalty one half.
    assert nist([["a b c"]], ["a b"]) == pytest.approx(0.5 * math.log2(3))


def test_nist_clips_by_the_highest_count_in_any_reference() -> None:
    # Words: a 3, b 1, of 4. "a a" comes twice among the references' 3 times "a".
    references = [["a a", "a b"]]
    one, two = math.log2(4 / 3), math.log2(3 / 1)
    assert nist(references, ["a a"]) == pytest.approx(one + two)
    assert nist(references, ["a a a a"]) == pytest.approx(2 * one / 4 + two / 3)


def test_perl_reads_bytes_and_java_characters() -> None:
    assert perl_words("É A\u00a0B  c\t") == ["É", f"a{chr(0xF00A0)}b", "c"]
    assert java_words("É A\u00a0B  c\t") == ["é", f"a{chr(0xF00A0)}b", "c"]


def test_nonword_split_keeps_words_digits_and_underscores() -> None:
    assert nonword_split("It's 3.5m (São_Paulo)") == "it ' s 3 . 5m ( são_paulo )"


def test_nltk_words_need_no_sentence_model() -> None:
    """Splitting sentences first changes nothing on text that is split at non-word characters."""
    pytest.importorskip("nltk")
    from nltk.tokenize.punkt import PunktSentenceTokenizer

    text = nonword_split('He said: "No. 5 cannot go." U.S. troops ("A.") wanna? \'Yes\'... it\'s')
    sentences = PunktSentenceTokenizer().tokenize(text)
    assert len(sentences) > 2
    assert nltk_words(text) == [word for each in sentences for word in nltk_words(each)]
    assert {"can", "not", "``"} <= set(nltk_words(text))


def test_one_line_has_no_line_end_that_a_tool_knows() -> None:
    assert one_line(" a\r\nb\x0bc\u2028d\x0c ") == "a b c d"
