"""BLEU as the three official scripts compute it, all through sacrebleu.

mteval-v13a (E2E), multi-bleu.perl -lc (WebNLG challenge) and multi-bleu-detok.perl (GenerationEval)
share clipping and the closest reference length (the shorter one of two equally close); they differ
in tokenization, in case and in what an n-gram order without any match does.

All take references[i], the references of input i, and predictions[i]; an empty string among the
references is one of length 0, which can be the closest in length.
"""

from collections.abc import Sequence
from typing import Any

from dylora.metrics.words import perl_words

References = Sequence[Sequence[str]]


def mteval(references: References, predictions: Sequence[str]) -> float:
    """BLEU of mteval-v13a on lower-cased text, in percent, with its exponential smoothing."""
    return _corpus_bleu(references, predictions, tokenize="13a", lowercase=True)


def multi_bleu(references: References, predictions: Sequence[str]) -> float:
    """BLEU of multi-bleu.perl -lc on white-space tokens as given, in percent, not smoothed."""
    return _corpus_bleu(
        [[" ".join(perl_words(reference)) for reference in group] for group in references],
        [" ".join(perl_words(prediction)) for prediction in predictions],
        tokenize="none",
        smooth_method="none",
    )


def multi_bleu_detok(references: References, predictions: Sequence[str]) -> float:
    """BLEU of multi-bleu-detok.perl (13a tokens, case as given), in percent, not smoothed."""
    return _corpus_bleu(references, predictions, tokenize="13a", smooth_method="none")


def _corpus_bleu(references: References, predictions: Sequence[str], **settings: Any) -> float:
    from sacrebleu.metrics import BLEU

    # sacrebleu wants a list per reference number, with None for a reference that does not exist.
    columns: list[Any] = [
        [group[number] if number < len(group) else None for group in references]
        for number in range(max(map(len, references)))
    ]
    # force: no warning that the text looks tokenized.
    bleu = BLEU(force=True, **settings)
    return float(bleu.corpus_score(list(predictions), columns).score)
