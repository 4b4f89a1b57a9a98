"""The rank in force: who holds it, and how a block of code changes it."""

import math
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, SupportsIndex

import torch
from torch import Tensor, nn

from dylora.beams import counting
from dylora.errors import UserError
from dylora.methods import Method

# One for all, one for each example (a LongTensor or a list, (batch,)), one for each layer by its
# name, or None for the bare backbone.
Rank = int | Tensor | Sequence[int] | Mapping[str, int] | None


def checked_rank(rank: object, max_rank: int, holder: str = "the adapter") -> int:
    """`rank` as an int; raises UserError unless it is a whole number from 1 to max_rank."""
    if isinstance(rank, Tensor) and rank.dim() == 0:
        rank = rank.item()
    if isinstance(rank, bool | Tensor) or not isinstance(rank, SupportsIndex):
        raise UserError(f"rank {rank!r} is no whole number; {holder} has 1..{max_rank}")
    number = rank.__index__()
    if not 1 <= number <= max_rank:
        raise UserError(f"rank {number} is outside 1..{max_rank}, what {holder} has")
    return number


def check_layers(rank: Mapping[str, int], layers: Collection[str]) -> None:
    """Raises UserError unless there is one rank for each of the adapted `layers`."""
    if wrong := sorted(rank.keys() ^ set(layers)):
        raise UserError(
            f"rank= must name each adapted layer once; {wrong[0]} is missing or unknown"
        )


@dataclass(frozen=True)
class _Own:
    """The rank that one thread has in force, and whether for a block of `at_rank` only."""

    rank: Rank
    in_block: bool


class RankState:
    """The rank in force in one model, shared by all of its low-rank modules.

    Each thread has its own. One that has set none, such as those that torch starts for the backward
    pass, uses the rank that was set last, anywhere.
    """

    def __init__(
        self, method: Method, max_rank: int, alpha: float, layers: Collection[str] = ()
    ) -> None:
        if isinstance(max_rank, bool) or not isinstance(max_rank, SupportsIndex) or max_rank < 1:
            raise UserError(f"max_rank is {max_rank}; it must be a whole number of at least 1")
        if not (0 < alpha < math.inf):
            raise UserError(f"alpha is {alpha}; it must be a number above 0, such as 16")
        self.method, self.max_rank, self.alpha = method, max_rank.__index__(), float(alpha)
        self.layers = set(layers)  # names of the adapted layers
        self._own: ContextVar[_Own | None] = ContextVar("rank", default=None)
        self._blocks: list[tuple[int, Rank]] = []  # of all threads: who, and what is in force
        self._lock = threading.Lock()
        self._merged = False
        self._base: Rank = None
        self._last: Rank = None
        self._device = torch.device("cpu")
        self.set(self.max_rank)

    def __repr__(self) -> str:
        rank: Any = self.rank.tolist() if isinstance(self.rank, Tensor) else self.rank
        rank = "by layer" if isinstance(rank, Mapping) else rank
        sizes = f"rank={rank}, max_rank={self.max_rank}, alpha={self.alpha:g}"
        return f"RankState(method={self.method.name}, {sizes})"

    def __deepcopy__(self, memo: dict[int, Any]) -> "RankState":
        copied = memo[id(self)] = RankState(self.method, self.max_rank, self.alpha, self.layers)
        copied.set(self.rank)
        return copied

    def __reduce__(self) -> tuple[Any, ...]:
        return RankState, (self.method, self.max_rank, self.alpha, self.layers)

    @property
    def rank(self) -> Rank:
        """The rank in force in this thread; None for the backbone alone, or with a rank merged."""
        if self._merged:
            return None
        own = self._own.get()
        return self._last if own is None else own.rank

    def bare(self) -> bool:
        """Whether there is only the backbone; a compiled graph does not ask: its weights are 0."""
        return not torch.compiler.is_compiling() and self.rank is None

    def set(self, rank: Rank, device: torch.device | None = None) -> None:
        """Put `rank` in force; raises UserError outside [1, max_rank].

        Ranks of single examples are checked where they are and then moved to `device`, so that
        ranks drawn on the CPU do not make the CPU wait for a GPU.
        """
        rank, own = self._checked(rank, device), self._own.get()
        in_block = own is not None and own.in_block
        self._own.set(_Own(rank, in_block))
        if not in_block:
            with self._lock:
                self._base, self._last = rank, self._blocks[-1][1] if self._blocks else rank
        self._keep_weights(device)

    @contextmanager
    def block(self, rank: Rank, device: torch.device | None = None) -> Iterator[None]:
        """`rank` in force inside the block; raises UserError outside [1, max_rank]."""
        rank, own = self._checked(rank, device), self._own.get()
        entry = (threading.get_ident(), rank)
        with self._lock:
            self._blocks.append(entry)
            self._last = rank
        self._own.set(_Own(rank, in_block=True))
        self._keep_weights(device)
        try:
            yield
        finally:
            self._own.set(own)
            with self._lock:
                self._blocks = [other for other in self._blocks if other is not entry]
                self._last = self._blocks[-1][1] if self._blocks else self._base
            self._keep_weights()

    @contextmanager
    def merged(self) -> Iterator[None]:
        """The weights hold a rank inside the block; UserError if that would disturb another."""
        with self._lock:
            if self._merged:
                raise UserError("a rank is merged already: leave that block of merged first")
            if any(thread != threading.get_ident() for thread, _ in self._blocks):
                raise UserError("another thread is inside at_rank: merge before or after it")
            self._merged = True
        self._keep_weights()
        try:
            yield
        finally:
            self._merged = False
            self._keep_weights()

    def _checked(self, rank: Rank, device: torch.device | None) -> Rank:
        if self._merged:
            raise UserError("a rank is merged into the weights: leave the block of merged first")
        if rank is None:
            return None
        if isinstance(rank, Mapping):
            check_layers(rank, self.layers)
            return {layer: checked_rank(b, self.max_rank) for layer, b in rank.items()}
        if isinstance(rank, list | tuple):
            rank = torch.tensor([checked_rank(b, self.max_rank) for b in rank])
        if not isinstance(rank, Tensor) or rank.dim() == 0:
            return checked_rank(rank, self.max_rank)
        if rank.dim() != 1 or rank.is_floating_point() or not len(rank):
            raise UserError("ranks of single examples are a list or a LongTensor (batch,)")
        for extreme in (rank.min(), rank.max()):
            checked_rank(extreme.item(), self.max_rank)
        return rank.to(device, non_blocking=True)

    def of(self, layer: str) -> int | Tensor:
        """The rank in force of a layer, or those of the examples; not for the bare backbone."""
        rank = self.rank
        if isinstance(rank, Mapping):
            return rank[layer]
        assert isinstance(rank, int | Tensor)
        return rank

    def weights(self, rank: int | Tensor, like: Tensor) -> float | Tensor:
        """The weights in use at `rank`, on the device and in the dtype of `like`.

        At an int rank (rank,), or one number if they are equal, which saves a tensor. With a rank
        per example (batch, max_rank), zero beyond each example's.
        """
        if isinstance(rank, Tensor):
            return self._table(like)[rank.to(like.device)]
        row = self.method.weights(rank, self.max_rank, self.alpha)
        return row[0] if len(set(row)) == 1 else self._table(like)[rank, :rank]

    def training_weights(self, like: Tensor) -> Tensor | None:
        """The weights (max_rank,) of a method with a rule of its own for training; else None."""
        return None if self.method.training_rule is None else self._table(like)[0]

    def compiled_weights(self, layer: str, training: bool) -> Tensor:
        """Of a layer, (max_rank,) or (batch, max_rank), zero beyond the rank that was set last."""
        if training and self.method.training_rule is not None:
            return self._training
        return self._rows[layer] if isinstance(self._rows, dict) else self._rows

    def _keep_weights(self, device: torch.device | None = None) -> None:  # that are in force now
        self._device, rank = device or self._device, self.rank
        with torch.inference_mode(False):  # training must be able to use them
            table = _table(self.method, self.max_rank, self.alpha, self._device, torch.float32)
            self._rows: Tensor | dict[str, Tensor] = torch.zeros_like(table[0])
            self._training = self._rows if rank is None else table[0]
            if isinstance(rank, Mapping):
                self._rows = {layer: table[b] for layer, b in rank.items()}
            elif isinstance(rank, Tensor):
                self._rows = table[rank.to(table.device)]
            elif isinstance(rank, int):  # an index that no device waits for
                self._rows = table[rank]

    def _table(self, like: Tensor) -> Tensor:
        return _table(self.method, self.max_rank, self.alpha, like.device, like.dtype)


@lru_cache(maxsize=64)
def _table(
    method: Method, max_rank: int, alpha: float, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Weights of every rank, (max_rank + 1, max_rank), zero-padded; row 0: those of training.

    Kept on the device, so that no step copies them there.
    """
    rows = [[0.0] * max_rank]
    if method.training_rule is not None:
        rows = [method.training_rule(max_rank, alpha)]
    for rank in range(1, max_rank + 1):
        rows.append(method.weights(rank, max_rank, alpha) + [0.0] * (max_rank - rank))
    with torch.inference_mode(False):  # training must be able to use what inference has made
        table = torch.tensor(rows, dtype=torch.float64, device="cpu")
        return table.to(dtype).to(device)


def rank_state(model: nn.Module) -> RankState:
    """The state shared by the adapters of `model`; raises UserError if it has none, or several."""
    states = {id(state): state for state in _states(model)}
    if len(states) > 1:
        raise UserError(
            "layers of this model have different ranks in force: some were copied into it with "
            "their adapters (copy layers first and call dylora.adapt afterwards), or it has "
            "several adapters of PEFT active (model.set_adapter(NAME) first)"
        )
    if not states:
        raise UserError(
            "this model has no adapter: call dylora.adapt(model, ...) first, or, if it is one of "
            "PEFT, dylora.nest(model)"
        )
    return next(iter(states.values()))


def has_adapter(model: nn.Module) -> bool:
    return any(True for _ in _states(model))


def _states(model: nn.Module) -> Iterator[RankState]:
    for module in model.modules():
        if "rank_state" in module.__dict__:
            yield module.__dict__["rank_state"]
        for layer in nested_layers(module):
            if layer.merged:
                raise UserError("PEFT has merged the adapter: model.unmerge_adapter() first")
            yield layer.rank_state


def nested_layers(module: nn.Module) -> list[Any]:
    """The `dylora.nested.NestedLayer` of each active adapter of a layer of PEFT; else none."""
    variants = module.__dict__.get("lora_variant", {})
    active: Any = module.active_adapters if variants else ()
    found = (variants.get(adapter) for adapter in active)
    return [layer for layer in found if isinstance(getattr(layer, "rank_state", None), RankState)]


def set_rank(model: nn.Module, rank: Rank) -> None:
    """Use `rank` from now on, in this thread and in those that set none themselves.

    Raises UserError outside [1, max_rank], and inside a block of `merged`.
    """
    rank_state(model).set(rank, next(model.parameters()).device)


@contextmanager
def at_rank(model: nn.Module, rank: Rank) -> Iterator[nn.Module]:
    """Use `rank` inside the block and the former one after it, also when the block raises.

    `rank` is an int for all examples and layers; a list or LongTensor (batch,) with one for each
    example, also in `generate`, whose beams have the rank of their example; one for each adapted
    layer by its name; or None for the bare backbone, which a model without adapters is already.
    Other threads keep their own ranks. Raises UserError outside 1..max_rank, if not all layers are
    named, and inside a block of `merged`.
    """
    if rank is None and not has_adapter(model):
        yield model
        return
    one_each = isinstance(rank, Sequence | Tensor)
    with (
        rank_state(model).block(rank, next(model.parameters()).device),
        counting(model) if one_each else nullcontext(),
    ):
        yield model
