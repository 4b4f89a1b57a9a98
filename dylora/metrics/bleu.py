"""BLEU as the three official scripts compute it, all through sacrebleu.

mteval-v13a (E2E), multi-bleu.perl -lc (WebNLG challenge) and multi-bleu-detok.perl (GenerationEval)
share clipping and the closest reference length (the shorter one of two equally close); they differ
in tokenization, in case and in what an n-gram order without any match does.

All take references[i], the references of input i, and predictions[i]; an empty string among the
references is one of length 0, which can be the closest in length.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dylora.metrics.words import perl_words

References = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Script:
    """BLEU in percent as one of the scripts computes it, on what `words` makes of each text."""

    settings: Mapping[str, Any]  # of sacrebleu
    words: Callable[[str], str] = str

    def __call__(self, references: References, predictions: Sequence[str]) -> float:
        groups, outputs = self._changed(references, predictions)
        # sacrebleu wants a list per reference number, with None for one that does not exist.
        columns: list[Any] = [
            [group[number] if number < len(group) else None for group in groups]
            for number in range(max(map(len, groups)))
        ]
        return float(self._scorer().corpus_score(outputs, columns).score)

    def counts(self, references: References, predictions: Sequence[str]) -> np.ndarray:
        """What is summed over the inputs, (inputs, 10): see `dylora.metrics.sums.BLEU`."""
        groups, outputs = self._changed(references, predictions)
        scorer = self._scorer(effective_order=True)  # or it warns of short sentences
        found = [scorer.sentence_score(*pair) for pair in zip(outputs, groups, strict=True)]
        return np.array([[s.sys_len, s.ref_len, *s.counts, *s.totals] for s in found])

    def _changed(
        self, references: References, predictions: Sequence[str]
    ) -> tuple[list[list[str]], list[str]]:
        groups = [[self.words(text) for text in group] for group in references]
        return groups, [self.words(text) for text in predictions]

    def _scorer(self, **more: Any) -> Any:
        from sacrebleu.metrics import BLEU

        # force: no warning that the text looks tokenized.
        return BLEU(force=True, **self.settings, **more)


# mteval-v13a on lower-cased text, with its exponential smoothing
mteval = Script({"tokenize": "13a", "lowercase": True})
# multi-bleu.perl -lc on white-space tokens as given, not smoothed
multi_bleu = Script(
    {"tokenize": "none", "smooth_method": "none"}, lambda text: " ".join(perl_words(text))
)
# multi-bleu-detok.perl: 13a tokens, case as given, not smoothed
multi_bleu_detok = Script({"tokenize": "13a", "smooth_method": "none"})
