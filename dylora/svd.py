"""Sort a trained LoRA by singular values: an ordered adapter without training again.

The plain sort is the best cut of the weights at every rank (Frobenius norm). Weighted by the second
moments of a layer's inputs it is the best cut of the layer's outputs; weighted by those of the
gradients too, of the loss to second order (K-FAC's approximation, arXiv 1503.05671).
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dylora.adapted import low_rank_parts
from dylora.adapter import AdapterConfig, adapter_facts, adapter_state, read_adapter, write_adapter
from dylora.errors import UserError

DAMPING = 1e-3  # of a moment matrix's mean eigenvalue: directions that were never seen stay finite


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
    Young, 1936). What a DyLoRA learned for its lower ranks is lost. Raises UserError if there is no
    low-rank adapter.
    """
    if isinstance(source, nn.Module):
        tensors, facts = adapter_state(source), adapter_facts(source)
    else:
        tensors, facts = read_adapter(source, alpha)
    if "adapter" not in facts:
        raise UserError("only low-rank adapters can be sorted; this one was trained in full")
    config = AdapterConfig(**json.loads(facts["adapter"]))
    made = replace(config, method="lora", frozen=False)
    scaling = made.weights(made.max_rank)[0]
    ratios = [weight / scaling for weight in config.weights(config.max_rank)]
    values = {}
    for name in [name for name in tensors if name.endswith(".lora_A")]:
        layer = name.removesuffix(".lora_A")
        B = tensors[f"{layer}.lora_B"]
        A, B, singular = _sorted(tensors[name], B * B.new_tensor(ratios))
        tensors |= {name: A, f"{layer}.lora_B": B}
        values[layer] = scaling * singular
    write_adapter(tensors, {**facts, "adapter": json.dumps(asdict(made))}, path)
    return Spectrum(values)


@dataclass(frozen=True)
class Moments:
    """Second moments, summed over positions, of an adapted layer's inputs and of its gradients."""

    inputs: Tensor  # (in, in), of x
    gradients: Tensor  # (out, out), of the loss's gradient with respect to the layer's delta


@contextmanager
def recorded_moments(model: nn.Module) -> Iterator[dict[str, Moments]]:
    """Within the block, backward passes add to the moments of each adapted layer (or part).

    Run a few batches at the rank in force and call `backward` on each loss. The model's parameters
    collect gradients as usual; clear them afterwards.
    """
    found: dict[str, Moments] = {}
    handles = [
        part.register_forward_hook(partial(_record, found, name))
        for name, part in low_rank_parts(model).items()
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _record(
    found: dict[str, Moments], name: str, part: nn.Module, inputs: tuple[Tensor], delta: Tensor
) -> None:
    x = inputs[0].detach().flatten(0, -2).float()

    def add(gradient: Tensor) -> None:
        g = gradient.flatten(0, -2).float()
        before = found.get(name)
        of_inputs, of_gradients = x.T @ x, g.T @ g
        if before is not None:
            of_inputs, of_gradients = before.inputs + of_inputs, before.gradients + of_gradients
        found[name] = Moments(of_inputs, of_gradients)

    delta.register_hook(add)


@torch.no_grad()
def sort_components(
    model: nn.Module, moments: Mapping[str, Moments] | None = None, gradients: bool = True
) -> None:
    """Sort the adapters of `model` in place; its deltas at max_rank stay what they are.

    Row i of A and column i of B get equal lengths, so that training can go on from there.

    With `moments` of `recorded_moments` the order is that of the singular values of
    `G^1/2 B A C^1/2`, C the moments of the inputs and G those of the gradients; without
    `gradients` that of `B A C^1/2`. For adapters with one scaling at all ranks (method "lora").
    Raises UserError without adapters, and for a layer without moments.
    """
    parts = low_rank_parts(model)
    if not parts:
        raise UserError("this model has no low-rank adapter to sort")
    for name, part in parts.items():
        C = G = None
        if moments is not None:
            if name not in moments:
                raise UserError(f"there are no moments of {name}: run backward passes of its model")
            C, G = moments[name].inputs, moments[name].gradients if gradients else None
        A, B, _ = _sorted(part.lora_A, part.lora_B, C, G)
        part.lora_A.copy_(A)
        part.lora_B.copy_(B)
        _balance(part.lora_A, part.lora_B)


@contextmanager
def kept_adapter(model: nn.Module) -> Iterator[None]:
    """Restore all trained tensors at the end of the block, bit for bit."""
    before = {name: tensor.clone() for name, tensor in adapter_state(model).items()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, tensor in adapter_state(model).items():
                tensor.copy_(before[name])


def _sorted(
    A: Tensor, B: Tensor, C: Tensor | None = None, G: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """A' (r, in), B' (out, r) with B' A' = B A, and the singular values (r,), descending.

    The singular values are those of `G^1/2 B A C^1/2`, without C and G those of B A; then A' has
    orthonormal rows and B' orthogonal columns, as long as the singular values. No (out, in) matrix
    is formed: with G^1/2 B = Q R and (A C^1/2)^T = P S the singular values are those of R S^T.
    """
    rank = A.shape[0]
    left, left_inverse = _roots(G, B)
    right, right_inverse = _roots(C, A)
    Q, R = torch.linalg.qr(B.double() if G is None else left @ B.double())
    P, S = torch.linalg.qr(A.double().T if C is None else right @ A.double().T)
    U, values, Vh = torch.linalg.svd(R @ S.T, full_matrices=False)
    lacking = rank - len(values)  # where the rank is above the layer's own width
    new_A, new_B = Vh @ P.T, Q @ U * values
    if C is not None:
        new_A = new_A @ right_inverse
    if G is not None:
        new_B = left_inverse @ new_B
    sorted_A = F.pad(new_A, (0, 0, 0, lacking)).to(A.dtype)
    sorted_B = F.pad(new_B, (0, lacking)).to(B.dtype)
    return sorted_A, sorted_B, F.pad(values, (0, lacking))


def _balance(A: Tensor, B: Tensor) -> None:
    """Give row i of A and column i of B equal lengths, in place: AdamW steps are alike in both."""
    rows, columns = A.norm(dim=1), B.norm(dim=0)
    ratio = torch.where(rows * columns > 0, (columns / rows).sqrt(), 1.0)
    A.mul_(ratio[:, None])
    B.div_(ratio)


def _roots(moment: Tensor | None, like: Tensor) -> tuple[Tensor, Tensor]:
    """The symmetric root of a moment matrix and its inverse (float64), damped to be invertible."""
    if moment is None:
        return like, like
    values, vectors = torch.linalg.eigh(moment.double())
    damped = values.clamp_min(0) + DAMPING * values.mean().clamp_min(torch.finfo(like.dtype).tiny)
    return (vectors * damped.sqrt()) @ vectors.T, (vectors * damped.rsqrt()) @ vectors.T
