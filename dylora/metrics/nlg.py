"""Which scorer, on which words, makes a number of E2E, WebNLG and DART: one protocol per table.

`challenge` is the organizers' scoring: for E2E tuetschek/e2e-metrics (-p), for WebNLG 2017 and DART
multi-bleu.perl -lc, METEOR 1.5 and tercom 0.7.25 on text as given and at most three references.
`generation_eval` is the scoring of WebNLG and DART in the tables of LoRA and DyLoRA: text
lower-cased and split at every non-word character, at most six references, then eval.py of
WebNLG/GenerationEval.

An empty output is scored, not refused: it matches nothing, shortens the corpus for the length
penalty of BLEU and NIST, scores 0 in METEOR, ROUGE-L and CIDEr, and costs TER every word of the
reference.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from dylora.errors import UserError
from dylora.metrics import bleu, java, rouge_cider, ter
from dylora.metrics.nist import nist
from dylora.metrics.words import java_words, nltk_words, nonword_split, one_line


@dataclass(frozen=True)
class Score:
    """One metric's value, or None (a dash in tables) with the reason, and how it was computed.

    In the unit that `dylora.metrics.METRICS` gives: NIST and CIDEr raw, the others in percent.
    """

    value: float | None
    signature: str
    reason: str | None = None


def score(
    task: str,
    references: Sequence[Sequence[str]],
    predictions: Sequence[str],
    protocol: str | None = None,
    metrics: Sequence[str] | None = None,
) -> dict[str, Score]:
    """Scores of one corpus by metric name, in the protocol's order or that of `metrics`.

    references[i] are the references of input i, predictions[i] its output. Protocol None is
    `challenge`; metrics None are the protocol's own. A reference that does not exist may be left
    out or be ''. challenge BLEU counts both as a reference of length 0 (the empty line of the
    official files). generation_eval passes over one left out, which equals repeating the first one
    as LoRA's decoder does, and takes '' as eval.py takes an empty line: length 0, TER 1. (It does
    not, as eval.py does, count what follows the last line end of the files as one more output.)
    Without Java, METEOR, ROUGE_L and CIDEr are None.
    Raises UserError on unknown names and on mismatched or missing texts.
    """
    chosen = _protocol(task, protocol)
    corpus = _corpus(references, predictions, chosen)
    scores = {}
    for name in _names(chosen, metrics):
        scorer = chosen.metrics[name]
        signature = f"{name}|protocol:{task}.{chosen.name}|nrefs:{corpus.nrefs}|{scorer.details()}"
        try:
            scores[name] = Score(scorer.compute(corpus), signature)
        except java.ToolError as error:
            scores[name] = Score(None, signature, str(error))
        except ModuleNotFoundError as error:
            raise UserError(
                f"{name} needs the package {error.name}: type `pip install 'dylora[nlg]'`"
            ) from error
    return scores


def counts(
    task: str,
    references: Sequence[Sequence[str]],
    predictions: Sequence[str],
    protocol: str | None = None,
) -> dict[str, np.ndarray]:
    """The features (inputs, features) whose sums give a metric, by metric, where there are such.

    Arguments as in `score`; `dylora.metrics.sums` makes a score of the sums.
    """
    chosen = _protocol(task, protocol)
    corpus = _corpus(references, predictions, chosen)
    scorers = chosen.metrics.items()
    return {name: s.counts(corpus) for name, s in scorers if s.counts is not None}


@dataclass(frozen=True)
class Corpus:
    """The texts of one scoring, each on one line, cut into words at most once."""

    groups: list[list[str]]  # the references as given; '' is a missing one
    outputs: list[str]

    @cached_property
    def existing(self) -> list[list[str]]:
        return [[text for text in group if text] for group in self.groups]

    @cached_property
    def padded(self) -> list[list[str]]:
        """As many references for each input, with '' for a missing one: the official files."""
        most = max(map(len, self.groups))
        return [group + [""] * (most - len(group)) for group in self.groups]

    @cached_property
    def ptb(self) -> "Corpus":
        lines = iter(java.ptb_tokenize([text for group in self.existing for text in group]))
        groups = [[next(lines) for _ in group] for group in self.existing]
        return Corpus(groups, java.ptb_tokenize(self.outputs))

    @cached_property
    def nonword(self) -> "Corpus":
        return self._map(nonword_split)

    @cached_property
    def nltk(self) -> "Corpus":
        return self.nonword._map(lambda text: " ".join(nltk_words(text)))

    @property
    def nrefs(self) -> str:
        counts = sorted(map(len, self.existing))
        return f"{counts[0]}" if counts[0] == counts[-1] else f"{counts[0]}-{counts[-1]}"

    def _map(self, change: Callable[[str], str]) -> "Corpus":
        groups = [[change(text) for text in group] for group in self.groups]
        return Corpus(groups, [change(text) for text in self.outputs])


@dataclass(frozen=True)
class Scorer:
    """How a protocol computes one metric; `settings` and `package` go into the signature."""

    compute: Callable[[Corpus], float]
    settings: str
    package: str | None = None
    default: bool = True  # False: not among the protocol's figures, only on request
    counts: Callable[[Corpus], np.ndarray] | None = None  # (inputs, features), for paired tests

    def details(self) -> str:
        if self.package is None:
            return self.settings
        try:
            return f"{self.settings}|{self.package}:{version(self.package)}"
        except PackageNotFoundError:
            return f"{self.settings}|{self.package}:absent"


@dataclass(frozen=True)
class Scoring:
    """How a protocol scores texts: on how many references, by which metrics."""

    name: str
    most_references: int | None
    metrics: dict[str, Scorer]


def _bleu(
    script: bleu.Script, texts: Callable[[Corpus], tuple[list[list[str]], list[str]]], settings: str
) -> Scorer:
    return Scorer(
        lambda corpus: script(*texts(corpus)),
        settings,
        "sacrebleu",
        counts=lambda corpus: script.counts(*texts(corpus)),
    )


def _tercom(corpus: Corpus) -> float:
    groups = [[java_words(text) for text in group] for group in corpus.existing]
    return ter.tercom(groups, [java_words(text) for text in corpus.outputs])


def _pyter(corpus: Corpus) -> float:
    groups = [[text.split() for text in group] for group in corpus.nltk.groups]
    return ter.pyter(groups, [text.split() for text in corpus.nltk.outputs])


_TERCOM = "case:lc|tok:none|norm:no|like:tercom-0.7.25"
_E2E = Scoring(
    "challenge",
    None,
    {
        "BLEU": _bleu(
            bleu.mteval,
            lambda corpus: (corpus.existing, corpus.outputs),
            "case:lc|tok:13a|smooth:exp",
        ),
        "NIST": Scorer(
            lambda corpus: nist(corpus.existing, corpus.outputs),
            "case:lc|tok:13a|like:pymteval",
            "sacrebleu",
        ),
        "METEOR": Scorer(
            lambda corpus: java.meteor(corpus.ptb.groups, corpus.ptb.outputs),
            "case:lc|tok:ptb-3.4.1-nopunct|norm:yes|meteor:1.5",
        ),
        "ROUGE_L": Scorer(
            lambda corpus: rouge_cider.rouge_l(corpus.ptb.groups, corpus.ptb.outputs),
            "case:lc|tok:ptb-3.4.1-nopunct|beta:1.2",
            "pycocoevalcap",
        ),
        "CIDEr": Scorer(
            lambda corpus: rouge_cider.cider(corpus.ptb.groups, corpus.ptb.outputs),
            "case:lc|tok:ptb-3.4.1-nopunct|n:4|sigma:6",
            "pycocoevalcap",
        ),
        "TER": Scorer(_tercom, _TERCOM, default=False),
    },
)
_CHALLENGE = Scoring(
    "challenge",
    3,
    {
        "BLEU": _bleu(
            bleu.multi_bleu,
            lambda corpus: (corpus.padded, corpus.outputs),
            "case:lc|tok:none|missing:length-0|like:multi-bleu.perl",
        ),
        "METEOR": Scorer(
            lambda corpus: java.meteor(corpus.groups, corpus.outputs),
            "case:lc|tok:none|norm:yes|meteor:1.5",
        ),
        "TER": Scorer(_tercom, _TERCOM),
    },
)
_GENERATION_EVAL = Scoring(
    "generation_eval",
    6,
    {
        "BLEU": _bleu(
            bleu.multi_bleu_detok,
            lambda corpus: (corpus.nonword.groups, corpus.nonword.outputs),
            "case:lc|tok:nonword-13a|like:multi-bleu-detok.perl",
        ),
        "METEOR": Scorer(
            lambda corpus: java.meteor(corpus.nltk.groups, corpus.nltk.outputs),
            "case:lc|tok:nonword-nltk|norm:yes|meteor:1.5",
            "nltk",
        ),
        "TER": Scorer(_pyter, "case:lc|tok:nonword-nltk|mean:sentence|like:pyter3-0.3", "nltk"),
    },
)
PROTOCOLS: dict[str, list[Scoring]] = {
    "e2e": [_E2E],
    "webnlg": [_CHALLENGE, _GENERATION_EVAL],
    "dart": [_CHALLENGE, _GENERATION_EVAL],
}


def _unknown(kind: str, given: str, known: Sequence[str]) -> UserError:
    near = get_close_matches(given.lower(), {name.lower(): name for name in known}, n=1)
    hint = f"; did you mean {next(n for n in known if n.lower() == near[0])}?" if near else ""
    return UserError(f"unknown {kind} '{given}': choose from {', '.join(known)}{hint}")


def _protocol(task: str, name: str | None) -> Scoring:
    if task not in PROTOCOLS:
        raise _unknown("task", task, list(PROTOCOLS))
    for protocol in PROTOCOLS[task]:
        if name in (None, protocol.name):
            return protocol
    names = [protocol.name for protocol in PROTOCOLS[task]]
    raise _unknown(f"protocol for task {task}", str(name), names)


def _names(protocol: Scoring, wanted: Sequence[str] | None) -> list[str]:
    known = {name.lower(): name for name in protocol.metrics}
    if wanted is None:
        return [name for name, scorer in protocol.metrics.items() if scorer.default]
    for name in wanted:
        if name.lower() not in known:
            raise _unknown(f"metric of protocol {protocol.name}", name, list(protocol.metrics))
    return [known[name.lower()] for name in wanted]


def _corpus(
    references: Sequence[Sequence[str]], predictions: Sequence[str], protocol: Scoring
) -> Corpus:
    if len(references) != len(predictions):
        raise UserError(
            f"{len(predictions)} outputs for {len(references)} inputs with references: "
            "give one output per input, in the same order"
        )
    if not predictions:
        raise UserError("nothing to score: no outputs were given")
    groups = [[one_line(text) for text in group] for group in references]
    groups = [group[: protocol.most_references] for group in groups]
    for index, group in enumerate(groups, start=1):
        if not any(group):
            raise UserError(
                f"input {index} has no reference among its first {protocol.most_references}"
                if protocol.most_references
                else f"input {index} has no reference"
            )
    return Corpus(groups, [one_line(text) for text in predictions])
