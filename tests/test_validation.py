"""Options that would lead out of the results folder or are no numbers are refused by name."""

import ast
import json
from pathlib import Path

import pytest
from small_run import ROOT, compose_config

from dylora.errors import UserError
from dylora.suite.records import run_folder
from dylora.suite.validation import validate
from dylora.training.models import load_backbone

NUMBERS = (
    "train.learning_rate",
    "train.weight_decay",
    "train.warmup_ratio",
    "train.max_grad_norm",
    "train.label_smoothing",
    "method.alpha",
    "method.dropout",
    "method.geometric_p",
    "task.decode.length_penalty",
)


@pytest.mark.parametrize("value", ["inf", "-inf", "nan"])
@pytest.mark.parametrize("option", NUMBERS)
def test_options_that_are_no_finite_numbers_are_refused(option: str, value: str) -> None:
    with pytest.raises(UserError, match=rf"{option}=-?(inf|nan): must be a finite number"):
        compose_config(f"{option}={value}")


NAMES = ("../../x", "org/name", "..", ".hidden", "/etc/x", "a b", "a\\\\b", "x" * 65, "")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("option", ["task.name", "model.name"])
def test_names_that_lead_out_of_the_results_folder_are_refused(option: str, name: str) -> None:
    with pytest.raises(UserError, match=rf"{option}=.*must be a plain name"):
        compose_config(f"{option}='{name}'")


def test_a_split_that_leads_out_of_the_results_folder_is_refused() -> None:
    config = compose_config()
    config.task.files["../x"] = "a.tsv"
    with pytest.raises(UserError, match=r"the split \.\./x must be a plain name"):
        validate(config)


def test_a_class_named_twice_is_refused() -> None:
    with pytest.raises(UserError, match="names a class twice"):
        compose_config("task.labels=[a,b,a]")


def test_no_code_of_a_hub_repository_is_ever_run(tmp_path: Path) -> None:
    """A model whose configuration names code of its own is refused, and nobody is asked."""
    (tmp_path / "model").mkdir()
    code = {"AutoConfig": "evil.Evil", "AutoModelForSequenceClassification": "evil.Model"}
    config = {"model_type": "evil", "auto_map": code}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    ran = f"import pathlib; pathlib.Path({str(tmp_path / 'ran')!r}).touch()"
    (tmp_path / "model" / "evil.py").write_text(ran)
    chosen = compose_config(f"model.name_or_path={tmp_path / 'model'}", "model.toy=false")
    with pytest.raises(UserError, match="could not be loaded"):
        load_backbone(chosen.model, chosen.task, chosen.paths)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.name)
def test_examples_say_that_no_code_of_a_hub_repository_is_to_run(path: Path) -> None:
    """Without the option transformers asks on a terminal, and whoever says yes runs it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("Auto"):
            assert "trust_remote_code=False" in ast.unparse(node)


def test_every_run_is_inside_the_results_folder(tmp_path: Path) -> None:
    folder = run_folder(compose_config(f"paths.results={tmp_path}", "task.name=a.b-c_d+1"))
    assert folder.resolve().parent == tmp_path / "records"
