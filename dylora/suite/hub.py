"""Whether a model or data set can be had: on this machine, or from the Hugging Face hub."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread, Timer

from huggingface_hub import HfApi, constants, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from dylora.suite.config import Config, ModelConfig, PathsConfig

PROBE_SECONDS = 10.0  # in which the hub must answer
PATIENCE_SECONDS = 15.0  # of loading from the hub before the user is told what else there is
FIRST_FILE = {"model": "config.json", "dataset": "README.md"}
BUSY = (429, 500, 502, 503, 504)


def why_unreachable(repository: str, kind: str) -> str | None:
    """Why a "model" or "dataset" cannot be had from the hub now; None if it can be tried.

    Known within PROBE_SECONDS: the libraries themselves retry for minutes, and a server that sends
    a byte at a time keeps them waiting for ever. So another thread asks, and may be left behind.
    """
    answer: SimpleQueue[str | None] = SimpleQueue()
    Thread(target=lambda: answer.put(_ask(repository, kind)), daemon=True).start()
    try:
        return answer.get(timeout=PROBE_SECONDS)
    except Empty:
        return f"no answer within {PROBE_SECONDS:g} s"


def _ask(repository: str, kind: str, tries: int = 3) -> str | None:
    """Ask for the repository, then for the head of a file: the two may come from other servers."""
    ends = 2 * PROBE_SECONDS  # of the thread; nobody waits for it so long
    try:
        hub = HfApi()
        hub.repo_info(repository, repo_type=kind, timeout=ends)
        file = hf_hub_url(repository, FIRST_FILE[kind], repo_type=kind)
        hub.get_hf_file_metadata(url=file, timeout=ends)
    except RepositoryNotFoundError:
        return f"no such {kind}, or no access to it"
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status not in BUSY:
            return None  # the hub is there; what it says is for the loading library to tell
        if tries == 1:
            return f"the hub is busy or broken: {status} {error.response.reason_phrase}"
        time.sleep(1)
        return _ask(repository, kind, tries - 1)
    except Exception as error:  # the type belongs to the HTTP library, which changes between hubs
        return f"no connection: {error}"
    return None


@contextmanager
def offline() -> Iterator[None]:
    """Within the block no request is made: for what is on this machine, or cannot be had.

    transformers asks the hub about a tokenizer even where it may use local files only, and would
    wait for ever for one that is silent.
    """
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextmanager
def patience(what: str, remedy: str) -> Iterator[None]:
    """Within the block, which loads `what` from the hub, say what else there is if it takes long.

    A hub that falls silent half-way is retried by the libraries for minutes, without a word.
    """
    said = (
        f"{what} is still being loaded from the hub. Ctrl-C ends that. {remedy}, or, if it was "
        "loaded before, type HF_HUB_OFFLINE=1 before the command, and the hub is not asked"
    )
    timer = Timer(PATIENCE_SECONDS, print, [said], {"file": sys.stderr, "flush": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def local_model(model: ModelConfig, paths: PathsConfig) -> Path | None:
    """The folder on this machine that has the weights; None if the hub must be asked.

    In this order: `name_or_path` as a folder, below `paths.models` by the id's last part, in the
    package `model.package` if it is installed.
    """
    below = Path(paths.models) / Path(model.name_or_path).name
    for folder in (Path(model.name_or_path), below):
        if (folder / "config.json").is_file():
            return folder
    if model.package is not None and (spec := find_spec(model.package)) is not None:
        assert spec.origin is not None
        return Path(spec.origin).parent / "model"
    return None


def why_no_model(config: Config) -> str | None:
    """Why the run's model cannot be had; None if it can, as toy models, which are made here."""
    if config.model.toy or local_model(config.model, config.paths):
        return None
    reason = why_unreachable(config.model.name_or_path, "model")
    return reason and f"not in {config.paths.models}, and from the hub: {reason}"
