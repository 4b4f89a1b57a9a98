"""A compiled model serves every rank with the graphs that the first one made."""

from typing import Any

import pytest
import torch
from tiny import inputs, randomize, roberta
from torch._dynamo.testing import CompileCounter

import dylora


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"frozen": True}, {"method": "matryoshka"}])
@pytest.mark.parametrize("training", [False, True])
def test_eight_ranks_and_the_bare_backbone_are_one_graph(
    training: bool, options: dict[str, Any]
) -> None:
    model = dylora.adapt(roberta(), ["query", "value"], max_rank=8, **options).train(training)
    randomize(model)
    rows = inputs(4)
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(model, backend=counter)
    layer = model.get_submodule("roberta.encoder.layer.0.attention.self.query.low_rank")
    for rank in (*range(1, 9), None):
        with dylora.at_rank(model, rank):
            outputs, gradients = [], []
            for each in (model, compiled):
                outputs.append(each(rows).logits)
                gradient = torch.autograd.grad(outputs[-1].sum(), layer.lora_A, allow_unused=True)
                gradients.append(torch.zeros(8, 32) if gradient[0] is None else gradient[0])
            torch.testing.assert_close(*outputs)
            torch.testing.assert_close(*gradients)
    assert counter.frame_count == 1
