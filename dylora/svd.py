"""Sort a trained LoRA by singular values: an ordered adapter without training again."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dylora.adapter import (
    AdapterConfig,
    adapter_facts,
    adapter_state,
    read_adapter,
    write_adapter,
)
from dylora.errors import UserError


@dataclass(frozen=True)
class Spectrum:
    """Singular values of the deltas at max_rank, scaling included, by layer (or part of one).

    The energy of a matrix is the sum of its squared singular values, its squared Frobenius norm.
    """

    values: Mapping[str, Tensor]  # layer -> (max_rank,) float64, descending

    def kept_of(self, layer: str) -> list[float]:
        """The fraction of a layer's energy that ranks 1..max_rank keep; 1 if it has none."""
        return _kept(self.values[layer].square())

    @property
    def kept(self) -> list[float]:
        """The fraction of the energy of all layers together that ranks 1..max_rank keep."""
        return _kept(torch.stack([values.square() for values in self.values.values()]).sum(dim=0))


def _kept(energy: Tensor) -> list[float]:
    total = energy.sum()
    return (energy.cumsum(0) / total if total > 0 else torch.ones_like(energy)).tolist()


def sort_by_svd(
    source: nn.Module | str | Path, path: str | Path, alpha: float | None = None
) -> Spectrum:
    """Write the adapter of `source` with each layer's components in order of their singular values.

    `source` is a model with an adapter, or a path as `dylora.load_adapter` takes it (with `alpha`
    for a file of loralib). The file at `path` is an adapter of method "lora", of the same max_rank
    and alpha. At max_rank its deltas are the source's; at rank b, with LoRA's constant scaling
    alpha/max_rank, each is the best approximation of rank b in the Frobenius norm (Eckart and
    Young, 1936). What a DyLoRA learnt for its lower ranks is lost. Raises UserError if there is no
    low-rank adapter.
    """
    if isinstance(source, nn.Module):
        tensors, facts = adapter_state(source), adapter_facts(source)
    else:
        tensors, facts = read_adapter(source, alpha)
    if "adapter" not in facts:
        raise UserError("only low-rank adapters can be sorted; this one was trained in full")
    config = AdapterConfig(**json.loads(facts["adapter"]))
    scaling = config.alpha / config.max_rank
    values = {}
    for name in [name for name in tensors if name.endswith(".lora_A")]:
        layer = name.removesuffix(".lora_A")
        A, B, singular = _sorted(tensors[name], tensors[f"{layer}.lora_B"])
        tensors |= {name: A, f"{layer}.lora_B": B}
        values[layer] = scaling * singular
    made = replace(config, method="lora", frozen=False)
    write_adapter(tensors, {**facts, "adapter": json.dumps(asdict(made))}, path)
    return Spectrum(values)


def _sorted(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A' (r, in), B' (out, r) with B' A' = B A, and the singular values (r,) of B A, descending.

    A' has orthonormal rows and B' orthogonal columns, as long as the singular values. B A itself
    (out, in) is never formed: with B = Q R and A^T = P S its singular values are those of R S^T.
    """
    rank = A.shape[0]
    Q, R = torch.linalg.qr(B.double())
    P, S = torch.linalg.qr(A.double().T)
    U, values, Vh = torch.linalg.svd(R @ S.T, full_matrices=False)
    lacking = rank - len(values)  # where the rank is above the layer's own width
    sorted_A = F.pad(Vh @ P.T, (0, 0, 0, lacking)).to(A.dtype)
    sorted_B = F.pad(Q @ U * values, (0, lacking)).to(B.dtype)
    return sorted_A, sorted_B, F.pad(values, (0, lacking))
