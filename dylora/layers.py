"""The low-rank path and the two wrappers that add it to a layer of the backbone.

Shapes: `in` and `out` are the layer's features, r is max_rank, b the rank in force.
"""

import math
from collections.abc import Mapping
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from dylora.beams import ranks_of_rows
from dylora.rank import RankState

FUSED_PARTS = ("q", "k", "v")  # the thirds of GPT-2's c_attn, in order


class LowRank(nn.Module):
    """The delta `B diag(w) A drop(x)` with lora_A (r, in), lora_B (out, r) and the state's w.

    At an int rank b only A[:b] and B[:, :b] are read (paper Eq. 5 and 7); with one rank per example
    w is zero beyond it, which gives the same numbers. With `frozen` the forward is unchanged, but
    only row and column b receive a gradient (paper Eq. 10). In training mode a method with a
    training rule uses all components, weighted by it. A starts kaiming-uniform, B at zero.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank_state: RankState,
        dropout: float = 0.0,
        frozen: bool = False,
        name: str = "",
    ) -> None:
        super().__init__()
        self.name = name  # of the adapted layer, by which it may have a rank of its own
        self.rank_state = rank_state
        rank_state.layers.add(name)
        self.frozen = frozen
        self.dropout = nn.Dropout(dropout)
        self.lora_A = nn.Parameter(torch.empty(rank_state.max_rank, in_features))
        self.lora_B = nn.Parameter(torch.zeros(out_features, rank_state.max_rank))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """x (batch, ..., in) to the delta (batch, ..., out), at the rank in force."""
        x = self.dropout(x.to(self.lora_A.dtype))
        state = self.rank_state
        if torch.compiler.is_compiling():
            return self._weighted(x, state.compiled_weights(self.name, self.training))
        if self.training and (weights := state.training_weights(x)) is not None:
            return F.linear(F.linear(x, self.lora_A) * weights, self.lora_B)
        rank = state.of(self.name)
        if isinstance(rank, Tensor):
            return self._per_sample(x, rank)
        lora_A, lora_B = self._truncated(rank)
        return F.linear(F.linear(x, lora_A) * state.weights(rank, x), lora_B)

    def extra_repr(self) -> str:
        frozen = ", frozen" * self.frozen
        return f"{self.rank_state!r}{frozen}"

    def _truncated(self, b: int) -> tuple[Tensor, Tensor]:
        """A[:b] and B[:, :b]; with `frozen` all but the last component are detached."""
        if not self.frozen:
            return self.lora_A[:b], self.lora_B[:, :b]
        fixed_A, fixed_B = self.lora_A.detach(), self.lora_B.detach()
        return (
            torch.cat([fixed_A[: b - 1], self.lora_A[b - 1 : b]]),
            torch.cat([fixed_B[:, : b - 1], self.lora_B[:, b - 1 : b]], dim=1),
        )

    def _per_sample(self, x: Tensor, ranks: Tensor) -> Tensor:
        weights = self.rank_state.weights(ranks_of_rows(ranks, len(x)), x)
        assert isinstance(weights, Tensor)
        return self._weighted(x, weights)

    def _weighted(self, x: Tensor, weights: Tensor) -> Tensor:
        """At weights (max_rank,) or, of each example, (batch, max_rank), zero beyond the rank."""
        if weights.dim() == 2:
            weights = weights.view(len(x), *[1] * (x.dim() - 2), self.rank_state.max_rank)
        weights = weights.to(x)
        if not self.frozen:
            return F.linear(F.linear(x, self.lora_A) * weights, self.lora_B)
        # Two paths of equal value, one without gradient; the last component in use takes the first.
        used = (weights != 0).to(x.dtype)
        learns = used - F.pad(used[..., 1:], (0, 1))
        hidden = F.linear(x, self.lora_A) * (weights * learns)
        fixed = F.linear(x, self.lora_A.detach()) * (weights * (1 - learns))
        return F.linear(hidden, self.lora_B) + F.linear(fixed, self.lora_B.detach())

    def delta(self) -> Tensor:
        """The delta's matrix (out, in) in use at the layer's rank in force, without dropout."""
        b = self.rank_state.of(self.name)
        assert isinstance(b, int)
        return (self.lora_B[:, :b] * self.rank_state.weights(b, self.lora_B)) @ self.lora_A[:b]


class AdaptedLayer(Protocol):
    """A layer of the backbone with its low-rank path, of ours or of PEFT (dylora.nested)."""

    base: nn.Linear | Conv1D

    def delta(self) -> Tensor:
        """What the adapter adds to `base.weight` at the int rank in force, in its shape."""


class LoRALinear(nn.Module):
    """A linear layer (`nn.Linear` or transformers' `Conv1D`) plus a low-rank path."""

    def __init__(self, base: nn.Linear | Conv1D, low_rank: LowRank) -> None:
        super().__init__()
        self.base = base
        self.low_rank = low_rank

    @property
    def weight(self) -> Tensor:
        """The backbone's: models such as T5 read its dtype before they call the layer."""
        return self.base.weight

    @property
    def bias(self) -> Tensor | None:
        return self.base.bias

    def forward(self, x: Tensor) -> Tensor:
        out = self.base(x)
        if self.low_rank.rank_state.bare():
            return out
        return out + self.low_rank(x).to(out.dtype)

    def delta(self) -> Tensor:
        """What the adapter adds to `base.weight`, in that weight's shape."""
        delta = self.low_rank.delta()
        return delta.T if isinstance(self.base, Conv1D) else delta


class LoRAFused(nn.Module):
    """GPT-2's fused `c_attn` (a Conv1D to q, k and v side by side) with a path for some parts.

    Quantized, `base` is a linear layer in its place.
    `parts` maps names out of "q", "k", "v" to their own LowRank; the slices of the others are the
    backbone's, untouched. All parts see the input under one mask of `dropout`, as in LoRA's code.
    """

    def __init__(
        self, base: nn.Linear | Conv1D, parts: Mapping[str, LowRank], dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.base = base
        self.dropout = nn.Dropout(dropout)
        self.parts = nn.ModuleDict(dict(parts))
        self.rank_state = next(iter(parts.values())).rank_state

    def forward(self, x: Tensor) -> Tensor:
        out = self.base(x)
        if self.rank_state.bare():
            return out
        slices = out.chunk(len(FUSED_PARTS), dim=-1)
        x = self.dropout(x)
        return torch.cat(
            [
                piece + self.parts[name](x).to(piece.dtype) if name in self.parts else piece
                for name, piece in zip(FUSED_PARTS, slices, strict=True)
            ],
            dim=-1,
        )

    def delta(self) -> Tensor:
        """What the adapter adds to `base.weight` (in, 3 x width), zero outside its parts."""
        width = self.base.weight.shape[1] // len(FUSED_PARTS)
        delta = torch.zeros_like(self.base.weight)
        for name, part in self.parts.items():
            assert isinstance(part, LowRank)
            start = FUSED_PARTS.index(name) * width
            delta[:, start : start + width] = part.delta().T
        return delta
