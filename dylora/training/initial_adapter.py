"""Which file `init_adapter` means."""

from pathlib import Path

from dylora.errors import UserError
from dylora.files import ADAPTER
from dylora.suite.config import Config
from dylora.suite.records import read_record


def find_adapter(config: Config) -> Path:
    """What `init_adapter` means: a file, the folder of a run or of PEFT, or a task run before.

    For a task's name it is that of the finished run with the same model, method and max_rank, with
    the same seed if there is one. Raises UserError naming the run that is missing.
    """
    wanted = str(config.init_adapter)
    path = Path(wanted)
    for file in (path, path / ADAPTER):
        if file.is_file():
            return file
    if (path / "adapter_config.json").is_file():  # PEFT's
        return path
    if path.name != wanted:  # a path, which no task's name is
        raise UserError(f"init_adapter={wanted}: {_no_adapter(path)}")
    method, model = config.method, config.model.name
    fitting = []
    for folder in sorted((Path(config.paths.results) / "records").glob(f"{wanted}-*")):
        record = read_record(folder)
        if record is not None and record["status"] == "done" and (folder / ADAPTER).is_file():
            settings = record["config"]["method"]
            same = (record["task"], record["model"], record["method"], settings["max_rank"])
            if same == (wanted, model, method.name, method.max_rank):
                fitting.append((record["seed"] != config.seed, folder))
    if not fitting:
        raise UserError(
            f"init_adapter={wanted}: {_no_adapter(path)}, and no finished run of task {wanted} "
            f"with model={model} method={method.name} method.max_rank={method.max_rank} in "
            f"{Path(config.paths.results) / 'records'}; make it with\n"
            f"  dylora run task={wanted} model={model} method={method.name} "
            f"method.max_rank={method.max_rank} seed={config.seed}"
        )
    return min(fitting)[1] / ADAPTER


def _no_adapter(path: Path) -> str:
    if not path.is_dir():
        return "no such file or folder"
    return f"the folder has neither {ADAPTER} (a run) nor adapter_config.json (PEFT)"
