"""Whether the Hugging Face hub can be reached, asked once and quickly."""

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

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
