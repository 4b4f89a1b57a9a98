"""Hand a trained adapter to other tools: one folder per rank, which PEFT and transformers load.

  dylora export results/records/NAME rank=4
  dylora export results/records/NAME rank=[1,4,8]      or rank=all
  dylora export results/records/NAME rank=auto tolerance=0.5
  dylora export results/records/NAME rank=4 merged=true
  dylora export results/records/NAME rank=4 push=true repo=USER/NAME dry_run=true

A folder is a plain PEFT adapter, or with merged=true a full model with its tokenizer; its README.md
says how it was trained, how every rank scored and how to load it; beside several folders ranks.json
lists them with sizes and scores. rank=auto takes the smallest rank
that is good enough, as choose_rank.py does. push=true also sends the folder to the Hugging Face
hub; with dry_run=true it only says what would be sent, and needs neither network nor token.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token
from safetensors import safe_open

import dylora
from dylora.errors import UserError
from dylora.files import ADAPTER, write_text, writing
from dylora.metrics import metric_named
from dylora.results.card import model_card
from dylora.results.deploy import (
    Backbone,
    adapter_file,
    backbone_of,
    is_repository,
    named_run,
    wanted_ranks,
)
from dylora.results.runs import Run
from dylora.suite.cli import options, plain_errors
from dylora.suite.config import Architecture, Kind, ModelConfig, PathsConfig, TaskConfig

CARD_LINES = 12  # of a card's beginning in a dry run


@dataclass
class Options:
    record: str | None = None  # a run's folder or its record.json; may be given without "record="
    rank: Any = None  # 4, [1,4,8], all, or auto: the smallest that is good enough
    tolerance: float = 0.5  # of rank=auto, in points of the metric
    metric: str | None = None  # of rank=auto; null: the task's own
    merged: bool = False  # a full model instead of an adapter
    output: str | None = None  # gets a folder per rank, such as r4; null: export/ beside the record
    base_model: str | None = None  # hub id or folder of the backbone; null: as the run had it
    license: str | None = None  # for the model card, such as mit
    push: bool = False  # also send the folder to the Hugging Face hub
    repo: str | None = None  # where to: USER/NAME
    private: bool = True  # of a repository that is new
    dry_run: bool = False  # with push=true: print what would be sent, send nothing


def main() -> None:
    """Export what the command line says. Raises UserError for a run or option that does not fit."""
    chosen = options(Options, __doc__, first="record")
    run = named_run(chosen.record)
    if chosen.rank is None:
        raise UserError("say which rank: rank=4, rank=[1,4], rank=all or rank=auto")
    ranks = wanted_ranks(run, chosen.rank, chosen.tolerance, chosen.metric)
    adapter_file(run)  # or an error
    loaded_from = _place_of_backbone(run)
    backbone = backbone_of(run, loaded_from, chosen.base_model)
    _check_push(chosen, ranks, backbone)
    ending = "-merged" if chosen.merged else ""
    parent = Path(chosen.output) if chosen.output else run.folder / "export"
    folders = {rank: parent / f"r{rank}{ending}" for rank in ranks}
    for folder in folders.values():
        _check_free(folder, "config.json" if chosen.merged else "adapter_config.json")
    if chosen.merged:
        _write_merged(run, folders, chosen.base_model or loaded_from)
    else:
        _write_adapters(run, folders, backbone)
        if len(folders) > 1:
            _write_index(run, folders, backbone)
    for rank, folder in folders.items():
        address = chosen.repo or folder.as_posix()
        card = model_card(run, rank, backbone, address, chosen.merged, chosen.license)
        write_text(folder / "README.md", card)
        known = {k: v for k, v in run.scores.get(rank, {}).items() if v is not None}
        scores = ", ".join(
            f"{name} {metric_named(name).printed(value):.2f}" for name, value in known.items()
        )
        print(f"{folder}: {scores or 'not scored at this rank'}")
    if chosen.push:
        _push(folders[ranks[0]], chosen)


def _place_of_backbone(run: Run) -> str:
    """Where the run's backbone is found from here: a folder, or its id on the hub."""
    from dylora.training.models import locate  # loads torch: only for a run that can be exported

    return locate(_backbone_settings(run), PathsConfig())


def _backbone_settings(run: Run) -> ModelConfig:
    names = ("name", "name_or_path", "revision", "package", "toy")
    options = {name: run.option(f"model.{name}") for name in names}
    return ModelConfig(architecture=Architecture(run.option("model.architecture")), **options)


def _check_push(chosen: Options, ranks: list[int], backbone: Backbone) -> None:
    """Refuse what could not be pushed, or would be of no use there, before anything is written."""
    if not chosen.push:
        if chosen.repo is not None or chosen.dry_run:
            raise UserError("repo= and dry_run= are options of push=true; add it")
        return
    if chosen.repo is None or "/" not in chosen.repo or not is_repository(chosen.repo):
        raise UserError(f"push=true needs repo=USER/NAME, where to send it; it is {chosen.repo}")
    if len(ranks) > 1:
        raise UserError("push=true sends one rank to one repository; give one, such as rank=4")
    if not backbone.on_hub and not chosen.merged:
        raise UserError(
            f"the backbone {backbone.name} is a folder of this machine, so that nobody else could "
            "use the adapter: push merged=true, or name a copy on the hub by base_model=OWNER/NAME"
        )
    if get_token() is None and not chosen.dry_run:
        raise UserError(
            "no token for the hub: run `hf auth login` or set HF_TOKEN (dry_run=true needs none)"
        )


def _check_free(folder: Path, own: str) -> None:
    """Refuse to mix an export, known by its file `own`, with other files."""
    if folder.exists() and any(folder.iterdir()) and not (folder / own).is_file():
        raise UserError(f"{folder}: has other files in it; name another place by output=FOLDER")


def _write_adapters(run: Run, folders: Mapping[int, Path], backbone: Backbone) -> None:
    facts = {"base_model": backbone.name}
    if backbone.on_hub and run.option("model.revision"):
        facts["revision"] = run.option("model.revision")
    for rank, folder in folders.items():
        dylora.export_peft(run.folder / ADAPTER, folder, rank, **facts)


def _write_index(run: Run, folders: Mapping[int, Path], backbone: Backbone) -> None:
    """ranks.json beside the folders: what a server, or who configures it, needs to know of each."""
    ranks = []
    for rank, folder in folders.items():
        file = folder / "adapter_model.safetensors"
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        with safe_open(file, "numpy") as tensors:
            shapes = [tensors.get_slice(name).get_shape() for name in tensors.keys()]  # noqa: SIM118
        ranks.append(
            {
                "rank": rank,
                "name": folder.name,
                "r": config["r"],
                "parameters": sum(math.prod(shape) for shape in shapes),
                "bytes": file.stat().st_size,
                "scores": run.scores.get(rank, {}),
            }
        )
    largest = max(entry["r"] for entry in ranks)
    index = {"base_model": backbone.name, "max_lora_rank": largest, "ranks": ranks}
    parent = next(iter(folders.values())).parent
    write_text(parent / "ranks.json", json.dumps(index, indent=2) + "\n")


def _write_merged(run: Run, folders: Mapping[int, Path], source: str) -> None:
    """Load the backbone from `source` in float32 and write it merged, with the tokenizer."""
    from dylora.training.experiment import quiet_libraries
    from dylora.training.models import load_backbone

    quiet_libraries()
    task = TaskConfig(
        name=run.task, kind=Kind(run.option("task.kind")), labels=run.option("task.labels")
    )
    settings = replace(_backbone_settings(run), name_or_path=source, toy=False)
    try:
        model, tokenizer = load_backbone(settings, task, PathsConfig())
    except UserError as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{reason}\nname a folder that has it by base_model=FOLDER") from error
    if task.labels:
        model.config.id2label = dict(enumerate(task.labels))
        model.config.label2id = {label: number for number, label in enumerate(task.labels)}
    dylora.load_adapter(model, run.folder / ADAPTER)
    for rank, folder in folders.items():
        dylora.export_merged(model, folder, rank)
        with writing(folder):
            tokenizer.save_pretrained(folder)


def _push(folder: Path, chosen: Options) -> None:
    """Send the files of `folder` to the hub in one commit, or say what that would send."""
    assert chosen.repo is not None
    files = sorted(path for path in folder.iterdir() if path.is_file())
    if chosen.dry_run:
        private = "private" if chosen.private else "public"
        print(
            f"\ndry run: nothing is sent to {constants.ENDPOINT}/{chosen.repo} ({private} if new)"
        )
        for path in files:
            print(f"{path.stat().st_size:>12} bytes  {path.name}")
        card = (folder / "README.md").read_text(encoding="utf-8").splitlines()
        print("\nREADME.md begins:", *card[:CARD_LINES], sep="\n")
        return
    api = HfApi()
    try:
        api.create_repo(chosen.repo, private=chosen.private, exist_ok=True)
        operations = [CommitOperationAdd(path.name, path) for path in files]
        made = api.create_commit(chosen.repo, operations, commit_message=f"Add {folder.name}")
    except Exception as error:  # the type belongs to the HTTP library, which changes between hubs
        raise UserError(
            f"{folder} was written but not sent to {constants.ENDPOINT}/{chosen.repo}: "
            f"{str(error).strip() or type(error).__name__}\nrepeat the command to try again"
        ) from error
    print(f"sent: {made.commit_url}")


if __name__ == "__main__":
    with plain_errors():
        main()
