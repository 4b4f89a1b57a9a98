"""What a backbone is before the first step."""

from pathlib import Path

import pytest
import torch
from small_run import config, make_home
from tiny import roberta

from dylora.errors import UserError
from dylora.training.models import load_backbone, start_bias


@pytest.mark.parametrize("dropout", [None, 0.0, 0.3])
def test_the_backbones_dropout_is_the_chosen_one_or_its_own(
    dropout: float | None, tmp_path: Path
) -> None:
    option = [] if dropout is None else [f"model.dropout={dropout}"]
    chosen = config(make_home(tmp_path), tmp_path, *option)
    model, _ = load_backbone(chosen.model, chosen.task, chosen.paths)
    found = {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}
    own = {0.0, 0.1} if dropout is None else {dropout}
    assert found <= own and found


def test_a_backbone_has_its_hub_id_wherever_it_was_found(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    chosen = config(home, tmp_path, "model.name_or_path=owner/model", f"paths.models={home}")
    model, _ = load_backbone(chosen.model, chosen.task, chosen.paths)
    assert model.config.name_or_path == "owner/model"


def test_a_regressions_bias_starts_at_the_mean_label() -> None:
    model = roberta(labels=1)
    weight = model.classifier.out_proj.weight.clone()
    start_bias(model, ["classifier"], [1.0, 2.0, 4.5])
    assert model.classifier.out_proj.bias.item() == 2.5
    assert torch.equal(model.classifier.out_proj.weight, weight)


def test_a_head_without_one_output_is_refused() -> None:
    with pytest.raises(UserError, match="bias_from_labels"):
        start_bias(roberta(labels=3), ["classifier"], [1.0])
