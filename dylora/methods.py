"""What a method is: its name, what it trains, and how it weighs an adapter's components.

The rows of `METHODS` are all that tells methods apart; a new one is a new row. No torch here.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

from dylora.errors import UserError

LORA = """@inproceedings{hu2022lora,
  title = {{LoRA}: Low-Rank Adaptation of Large Language Models},
  author = {Hu, Edward J. and Shen, Yelong and Wallis, Phillip and Allen-Zhu, Zeyuan and
            Li, Yuanzhi and Wang, Shean and Wang, Lu and Chen, Weizhu},
  booktitle = {ICLR},
  year = {2022},
  eprint = {2106.09685},
  archivePrefix = {arXiv}
}"""
DYLORA = """@inproceedings{valipour2023dylora,
  title = {{DyLoRA}: Parameter-Efficient Tuning of Pre-trained Models using Dynamic Search-Free
           Low-Rank Adaptation},
  author = {Valipour, Mojtaba and Rezagholizadeh, Mehdi and Kobyzev, Ivan and Ghodsi, Ali},
  booktitle = {EACL},
  year = {2023},
  eprint = {2210.07558},
  archivePrefix = {arXiv}
}"""
ADALORA = """@inproceedings{zhang2023adalora,
  title = {Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning},
  author = {Zhang, Qingru and Chen, Minshuo and Bukharin, Alexander and Karampatziakis, Nikos and
            He, Pengcheng and Cheng, Yu and Chen, Weizhu and Zhao, Tuo},
  booktitle = {ICLR},
  year = {2023},
  eprint = {2303.10512},
  archivePrefix = {arXiv}
}"""
RSLORA = """@misc{kalajdzievski2023rslora,
  title = {A Rank Stabilization Scaling Factor for Fine-Tuning with {LoRA}},
  author = {Kalajdzievski, Damjan},
  year = {2023},
  eprint = {2312.03732},
  archivePrefix = {arXiv}
}"""
SLIMMABLE = """@inproceedings{yu2019slimmable,
  title = {Universally Slimmable Networks and Improved Training Techniques},
  author = {Yu, Jiahui and Huang, Thomas},
  booktitle = {ICCV},
  year = {2019},
  eprint = {1903.05134},
  archivePrefix = {arXiv}
}"""
MATRYOSHKA = """@misc{matryoshkalora2026,
  title = {{MatryoshkaLoRA}},
  year = {2026},
  eprint = {2605.07850},
  archivePrefix = {arXiv}
}"""


@dataclass(frozen=True)
class Method:
    """One way to adapt a backbone.

    With low-rank adapters the delta is `B diag(w) A x`. `rule(rank, max_rank, alpha)` gives the
    weights w_1..w_rank in use at a rank. Where training differs, `training_rule(max_rank, alpha)`
    gives the w_1..w_max_rank of every training step, whatever rank is in force; such a method
    draws no ranks. Without a `rule` there are no adapters.
    """

    name: str  # as in method=NAME
    label: str  # as figures and texts write it
    citation: tuple[str, ...] = ()  # BibTeX entries, all that a user should cite
    rule: Callable[[int, int, float], list[float]] | None = None
    formula: str = ""  # the rule in words, such as "alpha / rank"
    training_rule: Callable[[int, float], list[float]] | None = None
    draws_ranks: bool = False  # in training, for each step or, with rank_scope=sample, example
    trains_backbone: bool = False  # all weights learn; otherwise the adapters and the head
    allocates: bool = False  # PEFT's AdaLoRA: training allots ranks, there is no choice afterwards

    @property
    def has_ranks(self) -> bool:
        """Whether there are low-rank adapters, which can be scored at every rank."""
        return self.rule is not None

    @property
    def trains_every_rank(self) -> bool:
        """Whether all ranks are trained at once, by drawing them or by a rule for training."""
        return self.draws_ranks or self.training_rule is not None

    @property
    def truncates(self) -> bool:
        """Whether an adapter at a rank below max_rank is a truncation that training did not see."""
        return self.has_ranks and not self.trains_every_rank

    def weights(self, rank: int, max_rank: int, alpha: float) -> list[float]:
        """The weights (rank,) of the components in use at `rank`, of a method with adapters."""
        assert self.rule is not None
        return self.rule(rank, max_rank, alpha)


def _of_max_rank(rank: int, max_rank: int, alpha: float) -> list[float]:
    """The scaling LoRA was trained with, also when truncated (arXiv 2106.09685, section 4.1)."""
    return [alpha / max_rank] * rank


def _of_rank(rank: int, max_rank: int, alpha: float) -> list[float]:
    """The scaling of the rank in use (arXiv 2210.07558, Eq. 7)."""
    return [alpha / rank] * rank


def _of_root(rank: int, max_rank: int, alpha: float) -> list[float]:
    """RsLoRA's scaling (arXiv 2312.03732), equal to LoRA's at max_rank."""
    return [alpha / math.sqrt(max_rank * rank)] * rank


def _of_root_of_max_rank(rank: int, max_rank: int, alpha: float) -> list[float]:
    """RsLoRA's scaling (arXiv 2312.03732), kept when truncated, as LoRA's is."""
    return [alpha / math.sqrt(max_rank)] * rank


SCALINGS = {  # of MatryoshkaLoRA, s_r; alpha stands for its own factor
    "": (_of_rank, "alpha / rank"),
    "_sqrt": (_of_root, "alpha / sqrt(max_rank * rank)"),
    "_constant": (_of_max_rank, "alpha / max_rank"),
}


def _matryoshka(scaling: str, powers: bool, mean: bool) -> Method:
    """MatryoshkaLoRA (arXiv 2605.07850): one fixed diagonal trains all its ranks at once.

    The weight of component i in training is the sum of s_r over the trained ranks r >= i (its
    Algorithm 1), or that sum divided by the number of ranks. Trained are all ranks, or the powers
    of two and max_rank.
    """
    rule, formula = SCALINGS[scaling]

    def diagonal(max_rank: int, alpha: float) -> list[float]:
        ranks = [
            rank
            for rank in range(1, max_rank + 1)
            if not powers or rank.bit_count() == 1 or rank == max_rank
        ]
        share = 1 / len(ranks) if mean else 1.0
        used = {rank: share * rule(rank, max_rank, alpha)[0] for rank in ranks}
        return [sum(s for r, s in used.items() if r >= i) for i in range(1, max_rank + 1)]

    details = [f"s = {formula}", *["powers of two"] * powers, *["averaged"] * mean]
    plain = not (scaling or powers or mean)
    return Method(
        name="matryoshka" + scaling + "_powers" * powers + "_mean" * mean,
        label="MatryoshkaLoRA" + ("" if plain else f" ({', '.join(details)})"),
        citation=(MATRYOSHKA, LORA),
        rule=rule,
        formula=formula,
        training_rule=diagonal,
    )


METHODS = {
    method.name: method
    for method in (
        Method(
            name="dylora",
            label="DyLoRA",
            citation=(DYLORA, LORA),
            rule=_of_rank,
            formula="alpha / rank",
            draws_ranks=True,
        ),
        Method(
            name="lora",
            label="LoRA",
            citation=(LORA,),
            rule=_of_max_rank,
            formula="alpha / max_rank",
        ),
        Method(
            name="rslora",
            label="rsLoRA",
            citation=(RSLORA, LORA),
            rule=_of_root_of_max_rank,
            formula="alpha / sqrt(max_rank)",
        ),
        Method(
            name="dylora_sqrt",
            label="DyLoRA, scaled by 1/sqrt(rank)",
            citation=(DYLORA, RSLORA, LORA),
            rule=_of_root,
            formula="alpha / sqrt(max_rank * rank)",
            draws_ranks=True,
        ),
        Method(
            name="dylora_constant",
            label="DyLoRA, constant scaling",
            citation=(DYLORA, LORA),
            rule=_of_max_rank,
            formula="alpha / max_rank",
            draws_ranks=True,
        ),
        Method(  # with ranks drawn by RankSampler's distribution of the same name
            name="dylora_sandwich",
            label="DyLoRA, sandwich",
            citation=(DYLORA, SLIMMABLE, LORA),
            rule=_of_max_rank,
            formula="alpha / max_rank",
            draws_ranks=True,
        ),
        *(_matryoshka(*choice) for choice in product(SCALINGS, (False, True), (False, True))),
        Method(name="adalora", label="AdaLoRA", citation=(ADALORA,), allocates=True),
        Method(name="full", label="Full fine-tuning", trains_backbone=True),
        Method(name="head_only", label="Head only"),
    )
}


def adapter_method(name: str) -> Method:
    """The method of this name; raises UserError unless it is one with low-rank adapters."""
    method = METHODS.get(name)
    if method is None or not method.has_ranks:
        known = ", ".join(each.name for each in METHODS.values() if each.has_ranks)
        raise UserError(f"method={name!r} is no method of low-rank adapters: use {known}")
    return method
