"""AdaLoRA (arXiv 2303.10512) as PEFT has it: a reference, whose ranks training allots to layers.

It begins with components to spare and drops those that matter least, until each layer keeps
max_rank of them on average. What is left is one adapter of one size, not one of any rank.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from dylora.heads import whole_head
from dylora.suite.config import MethodConfig, ModelConfig
from dylora.targets import chosen_targets, target_layers
from dylora.training.step import Batch, Objective

SPARE = 1.5  # times max_rank, to begin with (its section 4)
# Shares of the steps before and after the ranks are cut, and the steps between two cuts: about
# what its appendix has for tasks of GLUE.
BEFORE, AFTER, EVERY = 0.15, 0.5, 10


def with_adalora(
    backbone: PreTrainedModel, model: ModelConfig, method: MethodConfig, steps: int
) -> PreTrainedModel:
    """PEFT's model around the backbone: the adapters and the head learn, in `steps` steps.

    Raises UserError, as `dylora.adapt` does, if a target names no layer.
    """
    from peft import AdaLoraConfig, get_peft_model  # optional, and checked before any run

    heads = whole_head(backbone, model.head)
    targets = chosen_targets(backbone, model.target_modules, heads)
    config = AdaLoraConfig(
        target_r=method.max_rank,
        init_r=round(SPARE * method.max_rank),
        lora_alpha=method.alpha,  # type: ignore[arg-type]  # which PEFT only multiplies by
        lora_dropout=method.dropout,
        target_modules=list(target_layers(backbone, targets, heads)),
        modules_to_save=heads or None,
        total_step=steps,
        tinit=int(BEFORE * steps),
        tfinal=int(AFTER * steps),
        deltaT=EVERY,
    )
    adapted: Any = get_peft_model(backbone, config)  # has all that a PreTrainedModel has
    return adapted


def with_penalty(objective: Objective) -> Objective:
    """The objective whose loss has AdaLoRA's penalty too, which keeps its A and B orthogonal."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return objective.loss(model, batch) + _penalty(model)

    return replace(objective, loss=loss)


def _penalty(model: Any) -> Tensor:
    """PEFT adds it to a loss that a model computes itself; ours is computed from logits."""
    distances = []
    for name, matrix in model.named_parameters():
        if ".lora_A." in name or ".lora_B." in name:
            rows = matrix if ".lora_A." in name else matrix.T
            distances.append(torch.dist(rows @ rows.T, torch.eye(len(rows), device=rows.device)))
    (config,) = model.peft_config.values()
    return config.orth_reg_weight * torch.stack(distances).mean()


class AllocatingAdamW(torch.optim.AdamW):
    """AdamW after whose steps AdaLoRA allots the ranks anew; its state holds what that needs."""

    def __init__(self, model: nn.Module, groups: list[dict[str, Any]], **settings: Any) -> None:
        super().__init__(groups, **settings)
        self.adalora: Any = model.base_model
        self.steps = 0

    def step(self, closure: Any = None) -> Any:
        """One step of AdamW, then AdaLoRA's, which looks at the same gradients."""
        loss = super().step(closure)
        self.adalora.update_and_allocate(self.steps)
        self.steps += 1
        return loss

    def state_dict(self) -> dict[str, Any]:
        """AdamW's state, and the running importance of each number of the adapters."""
        allocator = self.adalora.rankallocator
        state = {
            "steps": self.steps,
            "rank_pattern": allocator.peft_config.rank_pattern,
            "exp_avg_ipt": allocator.exp_avg_ipt,
            "exp_avg_unc": allocator.exp_avg_unc,
        }
        return {**super().state_dict(), "adalora": state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        state = state_dict["adalora"]
        allocator = self.adalora.rankallocator
        self.steps = state["steps"]
        allocator.peft_config.rank_pattern = state["rank_pattern"]
        allocator.exp_avg_ipt, allocator.exp_avg_unc = state["exp_avg_ipt"], state["exp_avg_unc"]
        allocator.ipt = dict.fromkeys(allocator.exp_avg_ipt)  # which it has seen before
        super().load_state_dict({k: v for k, v in state_dict.items() if k != "adalora"})
