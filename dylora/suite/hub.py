"""Whether a model or data set can be had: on this machine, or from the Hugging Face hub."""

from importlib.util import find_spec
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from dylora.suite.config import Config, ModelConfig, PathsConfig

PROBE_SECONDS = 10.0


def why_unreachable(repository: str, kind: str) -> str | None:
    """Why a "model" or "dataset" cannot be had from the hub now; None if it can be tried.

    One quick request: the libraries themselves retry for about 25 s before they give up.
    """
    try:
        HfApi().repo_info(repository, repo_type=kind, timeout=PROBE_SECONDS)
    except RepositoryNotFoundError:
        return f"no such {kind}, or no access to it"
    except HfHubHTTPError:
        return None  # the hub is there; what it says is for the loading library to tell
    except Exception as error:  # the type belongs to the HTTP library, which changes between hubs
        return f"no connection: {error}"
    return None


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
