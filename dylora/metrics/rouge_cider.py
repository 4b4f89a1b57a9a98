"""ROUGE-L and CIDEr of the COCO caption scripts, as tuetschek/e2e-metrics calls them.

Both take PTB-tokenized text (`dylora.metrics.java.ptb_tokenize`): references[i] are those of input
i, predictions[i] is its output. An empty output scores 0 in both.
"""

from collections.abc import Sequence

References = Sequence[Sequence[str]]


def rouge_l(references: References, predictions: Sequence[str]) -> float:
    """Mean ROUGE-L in percent: F (beta 1.2) of the best precision and the best recall per input."""
    from pycocoevalcap.rouge.rouge import Rouge

    return 100 * float(Rouge().compute_score(*_by_id(references, predictions))[0])


def cider(references: References, predictions: Sequence[str]) -> float:
    """CIDEr-D (clipped, length penalty sigma 6), document frequencies from these references."""
    from pycocoevalcap.cider.cider import Cider

    return float(Cider().compute_score(*_by_id(references, predictions))[0])


def _by_id(
    references: References, predictions: Sequence[str]
) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    groups = {index: list(group) for index, group in enumerate(references)}
    return groups, {index: [text] for index, text in enumerate(predictions)}
