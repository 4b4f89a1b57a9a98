"""The low-rank path against the paper's formula, written out here a second time."""

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from dylora.layers import LoRAFused, LoRALinear, LowRank
from dylora.methods import METHODS, Method
from dylora.rank import Rank, RankState

IN, OUT, MAX_RANK, ALPHA = 7, 5, 4, 6.0


def make(frozen: bool = False, method: str = "dylora") -> LowRank:
    torch.manual_seed(3)
    part = LowRank(IN, OUT, RankState(METHODS[method], MAX_RANK, ALPHA), frozen=frozen).double()
    nn.init.normal_(part.lora_B)
    return part


def paper(part: LowRank, x: Tensor, b: int) -> Tensor:
    """(alpha/b) W_up|b W_dw|b x (Eq. 7), one example at a time."""
    down, up = part.lora_A.detach()[:b], part.lora_B.detach()[:, :b]
    return torch.stack([(ALPHA / b) * up @ (down @ row) for row in x])


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("b", range(1, MAX_RANK + 1))
def test_forward_is_the_papers_formula_at_every_rank(b: int, frozen: bool) -> None:
    part, x = make(frozen), torch.randn(3, IN, dtype=torch.float64)
    part.rank_state.set(b)
    torch.testing.assert_close(part(x), paper(part, x, b), rtol=1e-12, atol=1e-12)
    if b > 1:  # the neighbor's scaling or truncation would be noticed
        assert not torch.allclose(part(x), paper(part, x, b - 1), rtol=1e-3)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("b", range(1, MAX_RANK + 1))
def test_gradients_are_those_of_the_papers_formula(b: int, frozen: bool) -> None:
    part = make(frozen)
    x = torch.randn(3, IN, dtype=torch.float64, requires_grad=True)
    part.rank_state.set(b)
    (part(x) ** 2).sum().backward()

    down = part.lora_A.detach().clone().requires_grad_()
    up = part.lora_B.detach().clone().requires_grad_()
    twin = x.detach().clone().requires_grad_()
    (((ALPHA / b) * twin @ down[:b].T @ up[:, :b].T) ** 2).sum().backward()
    learns = torch.zeros(MAX_RANK, dtype=torch.bool)
    learns[b - 1 if frozen else slice(0, b)] = True  # Eq. 10 against Eq. 9
    torch.testing.assert_close(part.lora_A.grad[learns], down.grad[learns])
    torch.testing.assert_close(part.lora_B.grad[:, learns], up.grad[:, learns])
    assert (part.lora_A.grad[~learns] == 0).all()
    assert (part.lora_B.grad[:, ~learns] == 0).all()
    torch.testing.assert_close(x.grad, twin.grad)  # frozen or not, the input learns from all rows
    assert x.grad.abs().min() > 0


def test_rank_1_reads_exactly_one_row_and_column() -> None:
    part, x = make(), torch.randn(3, IN, dtype=torch.float64)
    part.rank_state.set(1)
    before = part(x)
    with torch.no_grad():
        part.lora_A[1:] = torch.nan
        part.lora_B[:, 1:] = torch.nan
    assert torch.equal(part(x), before)


def test_truncated_lora_keeps_the_scaling_it_was_trained_with() -> None:
    part, x = make(method="lora"), torch.randn(3, IN, dtype=torch.float64)
    part.rank_state.set(2)
    torch.testing.assert_close(part(x), paper(part, x, 2) * 2 / MAX_RANK)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("method", ["lora", "dylora"])
def test_one_rank_per_example_gives_the_numbers_of_each_rank_alone(
    frozen: bool, method: str
) -> None:
    part = make(frozen, method)
    x = torch.randn(MAX_RANK, 2, IN, dtype=torch.float64)
    ranks = torch.tensor([3, 1, 4, 2])

    def outputs_and_gradients() -> tuple[Tensor, Tensor, Tensor]:
        part.zero_grad()
        if together:
            part.rank_state.set(ranks)
            out = part(x)
        else:
            parts = []
            for row, rank in zip(x, ranks.tolist(), strict=True):
                part.rank_state.set(rank)
                parts.append(part(row[None]))
            out = torch.cat(parts)
        (out**2).sum().backward()
        return out.detach(), part.lora_A.grad.clone(), part.lora_B.grad.clone()

    together = True
    at_once = outputs_and_gradients()
    together = False
    one_by_one = outputs_and_gradients()
    for a, b in zip(at_once, one_by_one, strict=True):
        torch.testing.assert_close(a, b)


def test_ranks_must_match_the_batch() -> None:
    part = make()
    part.rank_state.set(torch.tensor([1, 2]))
    with pytest.raises(ValueError, match="2 ranks for a batch of 3"):
        part(torch.randn(3, IN, dtype=torch.float64))


def test_a_new_adapter_changes_nothing() -> None:
    base = nn.Linear(IN, OUT)
    layer = LoRALinear(base, LowRank(IN, OUT, RankState(METHODS["dylora"], MAX_RANK, ALPHA)))
    x = torch.randn(3, IN)
    assert torch.equal(layer(x), base(x))
    nn.init.normal_(layer.low_rank.lora_B)
    assert not torch.allclose(layer(x), base(x))


def test_the_delta_has_the_dtype_of_the_backbone() -> None:
    base = nn.Linear(IN, OUT).bfloat16()
    layer = LoRALinear(base, LowRank(IN, OUT, RankState(METHODS["dylora"], MAX_RANK, ALPHA)))
    assert layer(torch.randn(3, IN).bfloat16()).dtype == torch.bfloat16
    assert layer.low_rank.lora_A.dtype == torch.float32


@pytest.mark.parametrize("base", [nn.Linear(IN, OUT), Conv1D(OUT, IN)], ids=["Linear", "Conv1D"])
def test_delta_of_the_weight_gives_the_same_outputs(base: nn.Module) -> None:
    layer = LoRALinear(base.double(), make())
    layer.low_rank.rank_state.set(3)
    x = torch.randn(2, 3, IN, dtype=torch.float64)
    expected = layer(x)
    layer.low_rank.rank_state.set(None)
    assert not torch.allclose(layer(x), expected)
    layer.low_rank.rank_state.set(3)
    delta = layer.delta()
    layer.low_rank.rank_state.set(None)
    with torch.no_grad():
        base.weight += delta
    torch.testing.assert_close(layer(x), expected)


def fused(dropout: float = 0.0) -> LoRAFused:
    torch.manual_seed(0)
    state = RankState(METHODS["dylora"], MAX_RANK, ALPHA)
    parts = {part: LowRank(IN, OUT, state) for part in ("q", "v")}
    layer = LoRAFused(Conv1D(3 * OUT, IN), parts, dropout).double()
    for part in layer.parts.values():
        nn.init.normal_(part.lora_B)
    return layer


def test_fused_parts_reach_their_own_slice_and_leave_k_untouched() -> None:
    layer, x = fused(), torch.randn(2, 3, IN, dtype=torch.float64)
    layer.rank_state.set(2)
    q, k, v = (layer(x) - layer.base(x)).chunk(3, dim=-1)
    torch.testing.assert_close(q, layer.parts["q"](x))
    torch.testing.assert_close(v, layer.parts["v"](x))
    assert torch.equal(layer(x)[..., OUT : 2 * OUT], layer.base(x)[..., OUT : 2 * OUT])
    assert (k == 0).all() and (q != 0).any() and not torch.allclose(q, v)


def test_fused_parts_share_one_dropout_mask() -> None:
    layer, x = fused(dropout=0.5), torch.randn(2, 3, IN, dtype=torch.float64)
    layer.parts["v"].load_state_dict(layer.parts["q"].state_dict())
    q, k, v = (layer.train()(x) - layer.base(x)).chunk(3, dim=-1)
    torch.testing.assert_close(q, v)
    assert (k == 0).all() and not torch.allclose(q, layer.parts["q"](x)), "there is a mask"


def test_fused_delta_gives_the_same_outputs() -> None:
    layer, x = fused(), torch.randn(2, 3, IN, dtype=torch.float64)
    layer.rank_state.set(3)
    expected, delta = layer(x), layer.delta()
    assert (delta[:, OUT : 2 * OUT] == 0).all()
    layer.rank_state.set(None)
    with torch.no_grad():
        layer.base.weight += delta
    torch.testing.assert_close(layer(x), expected)


def falling(rank: int, max_rank: int, alpha: float) -> list[float]:
    return [alpha / (1 + i) / rank for i in range(rank)]


OWN = Method(
    name="own",
    label="Own",
    rule=falling,
    training_rule=lambda max_rank, alpha: [alpha * (i + 1) for i in range(max_rank)],
)


def own_part(device: str = "cpu") -> LowRank:
    torch.manual_seed(3)
    part = LowRank(IN, OUT, RankState(OWN, MAX_RANK, ALPHA))
    nn.init.normal_(part.lora_B)
    return part.to(device).eval()


def weighted(part: LowRank, x: Tensor, weights: list[float]) -> Tensor:
    b = len(weights)
    return x @ part.lora_A[:b].T @ torch.diag(torch.tensor(weights)) @ part.lora_B[:, :b].T


def test_unequal_weights_are_those_of_the_rule_at_every_rank_and_for_each_example() -> None:
    part, x = own_part(), torch.randn(MAX_RANK, IN)
    expected = []
    for b in range(1, MAX_RANK + 1):
        part.rank_state.set(b)
        expected.append(weighted(part, x, falling(b, MAX_RANK, ALPHA)))
        torch.testing.assert_close(part(x), expected[-1])
        torch.testing.assert_close(x @ part.delta().T, expected[-1])
    ranks = torch.tensor([3, 1, 4, 2])
    part.rank_state.set(ranks)
    torch.testing.assert_close(
        part(x), torch.stack([expected[b - 1][row] for row, b in enumerate(ranks)])
    )


@pytest.mark.parametrize("rank", [1, MAX_RANK, torch.tensor([1, 4, 2])], ids=["1", "4", "each"])
def test_a_training_rule_weighs_all_components_in_training_mode_alone(rank: Rank) -> None:
    part, x = own_part(), torch.randn(3, IN)
    part.rank_state.set(rank)
    in_use = part(x)
    expected = weighted(part, x, [ALPHA * (i + 1) for i in range(MAX_RANK)])
    torch.testing.assert_close(part.train()(x), expected)
    assert torch.equal(part.eval()(x), in_use) and not torch.allclose(in_use, expected)


def test_weights_follow_the_model_to_its_device_once() -> None:
    part, x = own_part("meta"), torch.randn(3, IN, device="meta")
    part.rank_state.set(torch.tensor([1, 4, 2]), x.device)  # drawn on the CPU
    assert part(x).is_meta and part.train()(x).is_meta
    part.eval().rank_state.set(3)
    weights = part.rank_state.weights(3, x)
    assert isinstance(weights, Tensor) and weights.is_meta and part(x).is_meta
    again = part.rank_state.weights(3, x)
    assert isinstance(again, Tensor) and again._base is weights._base, "copied there again"


def test_training_can_use_the_weights_that_inference_mode_made() -> None:
    part, x = own_part(), torch.randn(3, IN)
    part.rank_state.alpha = 5.0  # of no other test: nothing is made yet
    with torch.inference_mode():
        part.train()(x)
    part(x).sum().backward()
    assert part.lora_A.grad is not None
