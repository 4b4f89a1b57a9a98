"""What a backbone is before the first step."""

import pytest
import torch
from tiny import roberta

from dylora.errors import UserError
from dylora.training.models import start_bias


def test_a_regressions_bias_starts_at_the_mean_label() -> None:
    model = roberta(labels=1)
    weight = model.classifier.out_proj.weight.clone()
    start_bias(model, ["classifier"], [1.0, 2.0, 4.5])
    assert model.classifier.out_proj.bias.item() == 2.5
    assert torch.equal(model.classifier.out_proj.weight, weight)


def test_a_head_without_one_output_is_refused() -> None:
    with pytest.raises(UserError, match="bias_from_labels"):
        start_bias(roberta(labels=3), ["classifier"], [1.0])
