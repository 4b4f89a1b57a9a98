"""What a method is: its name, what it trains, and how it weighs an adapter's components.

The rows of `METHODS` are all that tells methods apart; a new one is a new row. No torch here.
"""

from collections.abc import Callable
from dataclasses import dataclass

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
