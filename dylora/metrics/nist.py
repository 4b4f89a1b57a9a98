"""NIST, equal to the Python port of mteval in tuetschek/e2e-metrics (its option -p).

nltk's corpus_nist is another number (6.0 against 7.8 on that repository's example): per input and
order it counts only the matches with the best single reference, and compares lengths with that
one. Here, as in mteval, matches are clipped by the highest count in any reference, and the length
penalty compares with the mean reference length. LoRA's E2E tables use the port. The challenge's own
table used the Perl script, which treats a varying number of references otherwise (TGen: 8.6094
against the port's 8.5923).
"""

import math
from collections import Counter
from collections.abc import Sequence

from dylora.metrics.words import mteval_words

MAX_ORDER = 5
# The penalty is 0.5 where the output has two thirds of the references' length.
BETA = math.log(0.5) / math.log(1.5) ** 2

NGram = tuple[str, ...]


def nist(references: Sequence[Sequence[str]], predictions: Sequence[str]) -> float:
    """NIST-5: sum over n of the information of matched n-grams per n-gram of the output.

    references[i] are those of input i. Times exp(beta log^2(min(1, L_sys / L_ref)))
    (Doddington 2002). As in the port, an empty text is one empty token.
    """
    groups = [[mteval_words(text) or [""] for text in group] for group in references]
    outputs = [mteval_words(text) or [""] for text in predictions]
    information = _information(groups)
    score = 0.0
    for order in range(1, MAX_ORDER + 1):
        gained, total = 0.0, 0
        for group, words in zip(groups, outputs, strict=True):
            # As in the port, an output shorter than the order lowers the number of n-grams.
            total += len(words) - order + 1
            allowed: Counter[NGram] = Counter()
            for reference in group:
                allowed |= _ngrams(reference, order)
            matches = _ngrams(words, order) & allowed
            gained += sum(information[ngram] * count for ngram, count in matches.items())
        score += gained / total if total else 0.0
    mean_lengths = sum(sum(map(len, group)) / len(group) for group in groups)
    ratio = min(1.0, sum(map(len, outputs)) / mean_lengths)
    return score * math.exp(BETA * math.log(ratio) ** 2)


def _ngrams(words: list[str], order: int) -> Counter[NGram]:
    return Counter(zip(*(words[start:] for start in range(order)), strict=False))


def _information(groups: list[list[list[str]]]) -> dict[NGram, float]:
    """log2 of (count of the n-gram without its last word / count of the n-gram), all references."""
    counts: Counter[NGram] = Counter()
    for words in (words for group in groups for words in group):
        counts[()] += len(words)
        for order in range(1, MAX_ORDER + 1):
            counts.update(_ngrams(words, order))
    return {ngram: math.log2(counts[ngram[:-1]] / n) for ngram, n in counts.items() if ngram}
