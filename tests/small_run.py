"""A whole run that takes a second: a table of made-up sentences and a tiny random model."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict
from tiny import save_roberta

from dylora.suite.config import Config
from dylora.suite.history import EpochScore, Step, read_epochs, read_steps
from dylora.suite.validation import validate

ROOT = Path(__file__).parents[1]
WORDS = ["cat", "dog", "sun", "moon", "red", "blue"]


def write_table(path: Path, rows: int, seed: int) -> None:
    """Sentences of the first three words are "good", of the others "bad"."""
    draw = random.Random(seed)
    lines = ["text,label"]
    for _ in range(rows):
        good = draw.random() < 0.5
        words = draw.choices(WORDS[:3] if good else WORDS[3:], k=draw.randint(2, 6))
        lines.append(f"{' '.join(words)},{'good' if good else 'bad'}")
    path.write_text("\n".join(lines) + "\n")


def make_home(folder: Path, train_rows: int = 60, validation_rows: int = 30) -> Path:
    """Data and model of the run that `options` names, in `folder`, which is returned."""
    (folder / "data").mkdir()
    write_table(folder / "data" / "train.csv", train_rows, seed=1)
    write_table(folder / "data" / "validation.csv", validation_rows, seed=2)
    save_roberta(folder / "model", [" ".join(WORDS)] * 3)
    return folder


def options(home: Path, results: Path) -> list[str]:
    return [
        "task=custom",
        "task.name=words",
        f"task.folder={home / 'data'}",
        "task.labels=[bad,good]",
        "model.name=tiny",
        f"model.name_or_path={home / 'model'}",
        "method.max_rank=3",
        "train.epochs=2",
        "train.batch_size=10",
        "train.select=mean",  # scores three ranks after each epoch
        f"paths.results={results}",
        "device=cpu",
    ]


def compose_config(*arguments: str) -> Config:
    """What `dylora run ARGUMENTS` hands to `experiment.run`."""
    ConfigStore.instance().store(name="schema", node=Config)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        composed = compose("config", list(arguments), return_hydra_config=True)
    with pytest.MonkeyPatch.context() as patch:
        # tracker=wandb reads from it
        patch.setattr(HydraConfig.instance(), "cfg", OmegaConf.masked_copy(composed, "hydra"))
        with open_dict(composed):
            del composed["hydra"]
        made = OmegaConf.to_object(composed)
    assert isinstance(made, Config)
    validate(made)
    return made


def config(home: Path, results: Path, *more: str) -> Config:
    return compose_config(*options(home, results), *more)


def record_of(results: Path) -> dict[str, Any]:
    (path,) = results.glob("records/*/record.json")
    return json.loads(path.read_text())


def steps_of(results: Path) -> list[Step]:
    (folder,) = results.glob("records/*")
    return read_steps(folder)


def epochs_of(results: Path) -> list[EpochScore]:
    (folder,) = results.glob("records/*")
    return read_epochs(folder)
