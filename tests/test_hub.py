"""The hub path, over HTTP against a local stand-in: models, datasets, and a run that needs both.

Every program runs in its own process, as the libraries read HF_ENDPOINT and HF_HOME at import.
"""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub import Hub, folder_files, serve
from huggingface_hub import HfApi
from huggingface_hub.hf_api import RepoFile
from small_run import make_home, options
from tiny import save_roberta

ROOT = Path(__file__).parents[1]
NOBODY = "http://127.0.0.1:9"  # the discard port: connections are refused at once
CARD = """---
configs:
- config_name: mrpc
  data_files:
  - {split: train, path: mrpc/train-*}
  - {split: validation, path: mrpc/validation-*}
dataset_info:
- config_name: mrpc
  features:
  - {name: sentence1, dtype: string}
  - {name: sentence2, dtype: string}
  - name: label
    dtype:
      class_label:
        names: {'0': not_equivalent, '1': equivalent}
  - {name: idx, dtype: int32}
---
"""
LOAD_MRPC = """
from pathlib import Path
from task_yaml import task_config
from dylora.errors import UserError
from dylora.tasks.glue import load_glue
try:
    splits = load_glue(task_config("mrpc"), Path("no_such_folder"))
    print({name: split[:] for name, split in splits.items()})
except UserError as error:
    print("UserError:", error)
"""


def parquet(rows: int) -> bytes:
    """A split of MRPC's columns with made-up sentence pairs."""
    columns = {
        "sentence1": [f"the cat number {row} sat on the mat" for row in range(rows)],
        "sentence2": [f"a dog sat on mat {row % 2}" for row in range(rows)],
        "label": pa.array([row % 2 for row in range(rows)], pa.int64()),
        "idx": pa.array(range(rows), pa.int32()),
    }
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    folder = tmp_path_factory.mktemp("roberta")
    save_roberta(folder, ["the cat sat on the mat"] * 3)
    return {
        "models/FacebookAI/roberta-base": folder_files(folder),
        "datasets/nyu-mll/glue": {
            "README.md": CARD.encode(),
            "mrpc/train-00000-of-00001.parquet": parquet(24),
            "mrpc/validation-00000-of-00001.parquet": parquet(6),
        },
    }


@pytest.fixture
def hub(repositories: dict[str, dict[str, bytes]]) -> Iterator[Hub]:
    with serve(repositories) as running:
        yield running


def run(
    command: list[str], home: Path, endpoint: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Runs Python in the project's folder with its own Hugging Face home and hub."""
    settings = environment(home, endpoint, **variables)
    return subprocess.run([sys.executable, *command], **settings, capture_output=True, timeout=600)


def environment(home: Path, endpoint: str, **variables: str) -> dict[str, Any]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    env |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1"} | variables
    env["PYTHONPATH"] = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    return {"env": env, "cwd": ROOT, "text": True}


def test_stand_in_lists_files_as_the_hub_does(hub: Hub) -> None:
    api = HfApi(hub.url)
    assert api.dataset_info("nyu-mll/glue").sha == api.model_info("FacebookAI/roberta-base").sha
    tree = [entry.path for entry in api.list_repo_tree("nyu-mll/glue", repo_type="dataset")]
    assert tree == ["README.md", "mrpc"]
    asked = ["mrpc/train-00000-of-00001.parquet", "absent"]
    (file,) = api.get_paths_info("nyu-mll/glue", asked, repo_type="dataset")
    assert isinstance(file, RepoFile)
    assert file.size == len(parquet(24))
    assert not api.repo_exists("nyu-mll/other", repo_type="dataset")
    assert not api.file_exists("nyu-mll/glue", "absent", repo_type="dataset")
    assert api.file_exists("FacebookAI/roberta-base", "config.json")


@pytest.mark.slow
def test_transformers_loads_from_the_stand_in(hub: Hub, tmp_path: Path) -> None:
    code = (
        "from transformers import AutoModelForSequenceClassification as Model, AutoTokenizer\n"
        "tokenizer = AutoTokenizer.from_pretrained('FacebookAI/roberta-base')\n"
        "model = Model.from_pretrained('FacebookAI/roberta-base')\n"
        "print(model(**tokenizer('the cat', 'a mat', return_tensors='pt')).logits.shape)"
    )
    loaded = run(["-c", code], tmp_path, hub.url)
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout == "torch.Size([1, 2])\n"
    assert any(asked.endswith("/model.safetensors") for asked in hub.requests)


@pytest.mark.slow
def test_datasets_loads_from_the_stand_in(hub: Hub, tmp_path: Path) -> None:
    code = (
        "from datasets import load_dataset\n"
        "data = load_dataset('nyu-mll/glue', 'mrpc')\n"
        "print(data.num_rows, data['train'].features['label'].names)"
    )
    loaded = run(["-c", code], tmp_path, hub.url)
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout == "{'train': 24, 'validation': 6} ['not_equivalent', 'equivalent']\n"


@pytest.mark.slow
def test_load_glue_from_the_hub_and_then_from_its_cache(hub: Hub, tmp_path: Path) -> None:
    """What was loaded once is found again without network, with HF_HUB_OFFLINE set or not."""
    online = run(["-c", LOAD_MRPC], tmp_path, hub.url)
    assert online.returncode == 0, online.stderr
    assert "'text_b': ['a dog sat on mat 0', 'a dog sat on mat 1'" in online.stdout
    assert online.stdout.count("'label': [0, 1, 0, 1, 0, 1") == 2
    for variables in ({}, {"HF_HUB_OFFLINE": "1"}):
        cached = run(["-c", LOAD_MRPC], tmp_path, NOBODY, **variables)
        assert cached.stdout == online.stdout, cached.stderr


@pytest.mark.slow
@pytest.mark.parametrize("variables", [{}, {"HF_HUB_OFFLINE": "1"}], ids=["refused", "offline"])
def test_no_network_and_no_folder(tmp_path: Path, variables: dict[str, str]) -> None:
    """One message at once: the libraries' own retries take 25 seconds."""
    loaded = run(["-c", LOAD_MRPC], tmp_path, NOBODY, **variables)
    assert loaded.stdout.startswith("UserError: task mrpc: the hub's dataset 'nyu-mll/glue'")
    assert "no connection" in loaded.stdout
    assert f"no folder {ROOT}/no_such_folder/glue/MRPC" in loaded.stdout
    assert "set paths.data=FOLDER" in loaded.stdout
    assert "`dylora run` without arguments (the toy task) needs neither" in loaded.stdout
    assert "Retry" not in loaded.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "fault", "reason"),
    [
        ("/", "silent", "no answer within 10 s"),
        ("/", "drip", "no answer within 10 s"),
        ("/resolve/", "drip", "no answer within 10 s"),
        ("/resolve/", "503", "the hub is busy or broken: 503"),
    ],
)
def test_a_hub_that_does_not_answer_is_given_up(
    hub: Hub, tmp_path: Path, part: str, fault: str, reason: str
) -> None:
    """The libraries by themselves would wait for minutes, and for ever for one that drips."""
    hub.faults[part] = fault
    loaded = run(["-c", LOAD_MRPC], tmp_path, hub.url)
    assert loaded.stdout.startswith("UserError: task mrpc: the hub's dataset"), loaded.stderr
    assert f"could not be loaded ({reason}" in loaded.stdout
    assert "set paths.data=FOLDER" in loaded.stdout
    assert len(hub.requests) < 10


@pytest.mark.slow
def test_a_model_of_a_silent_hub_can_come_from_a_folder(hub: Hub, tmp_path: Path) -> None:
    home = make_home(tmp_path)
    hub.faults["/"] = "silent"
    given = [*options(home, tmp_path / "results"), "model=roberta_base"]
    given = [option for option in given if not option.startswith("model.")]
    stopped = run(["run.py", *given], tmp_path / "home", hub.url)
    assert stopped.returncode == 2
    assert "roberta-base (no answer within 10 s)" in stopped.stderr
    assert "model.name_or_path= to a folder that has them" in stopped.stderr
    hub.requests.clear()
    done = run(["run.py", *options(home, tmp_path / "results")], tmp_path / "home", hub.url)
    assert done.returncode == 0, done.stderr
    assert not hub.requests, "a run with local files asks nobody"


@pytest.mark.slow
def test_a_hub_that_falls_silent_half_way_is_told_of(hub: Hub, tmp_path: Path) -> None:
    hub.faults[".parquet"] = "silent"
    program = [sys.executable, "-c", LOAD_MRPC]
    with subprocess.Popen(
        program, **environment(tmp_path, hub.url), stderr=subprocess.PIPE
    ) as load:
        assert load.stderr is not None
        said = next((line for line in load.stderr if "is still being loaded" in line), "")
        load.kill()
    assert "dataset nyu-mll/glue is still being loaded from the hub. Ctrl-C ends that" in said
    assert "paths.data=FOLDER" in said and "HF_HUB_OFFLINE=1" in said


@pytest.mark.slow
def test_dataset_that_is_not_on_the_hub(hub: Hub, tmp_path: Path) -> None:
    hub.repositories = {}
    loaded = run(["-c", LOAD_MRPC], tmp_path, hub.url)
    assert "could not be loaded (no such dataset" in loaded.stdout, loaded.stderr


@pytest.mark.slow
def test_run_takes_model_and_data_from_the_hub(hub: Hub, tmp_path: Path) -> None:
    """`dylora run task=mrpc method=dylora` picks RoBERTa by itself and scores every rank."""
    options = ["task=mrpc", "method=dylora", "train.max_steps=4"]
    folders = [f"paths.{name}={tmp_path / name}" for name in ("data", "models", "results")]
    finished = run(["run.py", *options, *folders], tmp_path / "home", hub.url)
    assert finished.returncode == 0, finished.stderr
    (file,) = (tmp_path / "results").glob("records/*/record.json")
    record = json.loads(file.read_text())
    assert record["status"] == "done"
    assert (record["task"], record["model"], record["method"]) == ("mrpc", "roberta_base", "dylora")
    assert list(record["scores"]) == [str(rank) for rank in range(1, 9)]
    assert any("glue/resolve" in asked for asked in hub.requests)
    assert any("roberta-base/resolve" in asked for asked in hub.requests)


@pytest.mark.slow
def test_run_without_network_ends_with_one_message(tmp_path: Path) -> None:
    folders = [f"paths.{name}={tmp_path / name}" for name in ("data", "models", "results")]
    finished = run(["run.py", "task=mrpc", *folders], tmp_path / "home", NOBODY)
    assert finished.returncode != 0
    assert "Traceback" not in finished.stderr and "Retry" not in finished.stderr
    assert "paths.data=" in finished.stderr
    assert not (tmp_path / "results" / "records").exists()
