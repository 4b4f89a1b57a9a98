"""Fetch the original files of the data-to-text tasks, each checked against a known fingerprint.

  dylora prepare-data task=e2e                 into data/e2e/
  dylora prepare-data task=all paths.data=DIR  e2e, dart and webnlg into DIR
  dylora prepare-data task=dart mirror=URL     from a server with raw.github's paths

Files that are there and right are kept, so a broken run is simply repeated. Without a network the
script says which file to put where. GLUE needs nothing: it comes from the Hugging Face hub.
"""

import hashlib
import sys
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path

from omegaconf import OmegaConf
from tqdm import tqdm

from dylora.errors import UserError
from dylora.suite.cli import plain_errors

HOST = "https://raw.githubusercontent.com"
LORA = "microsoft/LoRA/c4593f060e6a368d7bb5af5273b8e42810cdef90/examples/NLG/data"
E2E = "tuetschek/e2e-dataset/2fcb23e9f43493ee395444b48b8f2cf84611e68c"
DART = "Yale-LILY/dart/34b3c872da4811523e334f1631e54ca8105dffab/data/v1.1.1"
SECONDS = 15  # to wait for an answer
CHUNK = 1 << 16


@dataclass(frozen=True)
class Original:
    """One published file: where it goes below paths.data, where it comes from, what it must be.

    `sha256` is the digest of the file. Where nobody has told us that, `blobs` has the first digits
    of the ids that git gives to the file's known versions, which its host shows.
    """

    path: str
    source: str
    sha256: str = ""
    blobs: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        return f"sha256 {self.sha256}" if self.sha256 else f"git blob {' or '.join(self.blobs)}..."

    def matches(self, file: Path) -> bool:
        """Whether the bytes of `file` are the published ones."""
        if self.sha256:
            digest = hashlib.sha256()
        else:  # git's object id: SHA-1 of a header with the size, then the content
            digest = hashlib.sha1(b"blob %d\0" % file.stat().st_size, usedforsecurity=False)
        with file.open("rb") as stream:
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
        found = digest.hexdigest()
        return found == self.sha256 if self.sha256 else found.startswith(self.blobs)


LICENSES = {
    "e2e": "CC BY-SA 4.0",
    "dart": "MIT; its WebNLG part CC BY-NC-SA 4.0, its E2E part CC BY-SA 4.0",
    "webnlg": "CC BY-NC-SA 4.0",
}
ORIGINALS = {
    "e2e": [
        Original(
            "e2e/lora_format/train.txt",
            f"{LORA}/e2e/train.txt",
            "eae319082237310913d9f37f6a891d48fb3f821f29d86870d2cb4f92ddd72c5a",
        ),
        Original(
            "e2e/lora_format/valid.txt",
            f"{LORA}/e2e/valid.txt",
            "ba963113c8401d3d26216c0dc0a6dae1ea6ea927de3bf830e32c41f65401c80d",
        ),
        Original(
            "e2e/lora_format/test.txt",
            f"{LORA}/e2e/test.txt",
            "81b1bcd40c4f12845ec4eb61a77bf43765d112483cd9b2f91ef10bfc1b3d8f13",
        ),
        Original(
            "e2e/trainset.csv",
            f"{E2E}/trainset.csv",
            "f27d48df45815288ab15619d47a79028c300fbb7f42e373668aba0b98c1d57c6",
        ),
        Original(
            "e2e/devset.csv",
            f"{E2E}/devset.csv",
            "fc26b78cdb849c80545f513b223d1e051138b43882eeb79e3eb153e689c864f9",
        ),
        Original(
            "e2e/testset_w_refs.csv",
            f"{E2E}/testset_w_refs.csv",
            "edc8db685e39bb9824d5bd70c18b1c9b0412d14b527aa960e2d1c8251ee15ccd",
        ),
    ],
    "dart": [  # two versions of train and test are in circulation that differ in encoding only
        Original(
            "dart/dart-v1.1.1-full-train.json",
            f"{LORA}/dart/dart-v1.1.1-full-train.json",
            blobs=("66d6ce4aeb", "773adb6db1"),
        ),
        Original(
            "dart/dart-v1.1.1-full-dev.json",
            f"{DART}/dart-v1.1.1-full-dev.json",
            "56606eac12baa7f0ddb81c61890f9f1a95bace4df8f8989852786358fe5d2b88",
        ),
        Original(
            "dart/dart-v1.1.1-full-test.json",
            f"{LORA}/dart/dart-v1.1.1-full-test.json",
            blobs=("c3de833701", "3b663ea2d2"),
        ),
    ],
    "webnlg": [
        Original(
            "webnlg_2017/json/train.json",
            f"{LORA}/webnlg_challenge_2017/train.json",
            "180edb6011360608c8548d4551366a9d55f140cbf9bc9397fbf4d97f6a89c639",
        ),
        Original(
            "webnlg_2017/json/dev.json",
            f"{LORA}/webnlg_challenge_2017/dev.json",
            "50f5a2c24d760bc84ba3e852707cd3b43b0cf2da035b425f87945a2440880488",
        ),
        Original(
            "webnlg_2017/json/test.json",
            f"{LORA}/webnlg_challenge_2017/test.json",
            "2574896b23b5959d1a0cd4bb501ffbeff1a11790a9996c4cb8efed289149ff4f",
        ),
    ],
}


@dataclass
class PathOptions:
    data: str = "data"


@dataclass
class Options:
    task: str = "all"  # e2e, dart, webnlg or all
    paths: PathOptions = field(default_factory=PathOptions)
    mirror: str = HOST  # a server with the same paths


class FetchError(Exception):
    """A file could not be fetched; the message says why."""


def main(arguments: Sequence[str]) -> int:
    """Fetch what `arguments` ask for; 0 if all files are there, 1 if some could not be had.

    Raises UserError for a wrong option, and for a file in the way that is not the original.
    """
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0
    options = OmegaConf.merge(OmegaConf.structured(Options), OmegaConf.from_dotlist([*arguments]))
    tasks = list(ORIGINALS) if options.task == "all" else [options.task]
    if not set(tasks) <= set(ORIGINALS):
        raise UserError(
            f"task={options.task}: only {', '.join(ORIGINALS)} have files to fetch (or all of "
            "them, task=all); GLUE tasks come from the Hugging Face hub by themselves"
        )
    if not options.mirror.startswith(("http://", "https://")):
        raise UserError(f"mirror={options.mirror}: give a URL, for example mirror={HOST}")
    data = Path(options.paths.data)
    wanted = [original for task in tasks for original in ORIGINALS[task]]
    missing = [original for original in wanted if not _is_there(original, data)]
    try:
        for original in missing:
            fetch(original, data, options.mirror.rstrip("/"))
    except FetchError as error:
        _explain(missing, data, str(error))
        return 1
    for task in tasks:
        print(f"{task}: ready in {data.resolve()}. License: {LICENSES[task]}")
    return 0


def _is_there(original: Original, data: Path) -> bool:
    target = data / original.path
    if target.exists() and not original.matches(target):
        raise UserError(
            f"{target} is not the published file ({original.fingerprint}); move it away, then "
            "run this again"
        )
    return target.exists()


def fetch(original: Original, data: Path, host: str) -> None:
    """Download one file; it appears under its name only if complete and right.

    Raises FetchError if the server cannot be reached, has no such file or sends other bytes.
    """
    target = data / original.path
    unfinished = target.with_name(target.name + ".part")
    url = f"{host}/{original.source}"
    try:
        _download(url, unfinished)
        if not original.matches(unfinished):
            raise FetchError(f"{url} sent bytes that are not the file ({original.fingerprint})")
        unfinished.replace(target)
    except (OSError, HTTPException) as error:  # URLError is an OSError
        reason = getattr(error, "reason", None) or error
        raise FetchError(f"cannot fetch {url} into {target}: {reason}") from None
    finally:
        with suppress(OSError):  # it, or even its folder, may never have come to be
            unfinished.unlink()


def _download(url: str, file: Path) -> None:
    with urllib.request.urlopen(url, timeout=SECONDS) as answer:
        file.parent.mkdir(parents=True, exist_ok=True)
        size = int(answer.headers.get("Content-Length", 0)) or None
        with (
            file.open("wb") as stream,
            tqdm(total=size, desc=file.stem, unit="B", unit_scale=True) as progress,
        ):
            while chunk := answer.read(CHUNK):
                stream.write(chunk)
                progress.update(len(chunk))


def _explain(missing: Sequence[Original], data: Path, reason: str) -> None:
    print(f"error: {reason}\n\nPut these files there by hand and run this again:", file=sys.stderr)
    for original in missing:
        target = data.resolve() / original.path
        if not target.exists():
            print(f"\n  {target}", file=sys.stderr)
            print(f"    from {HOST}/{original.source}", file=sys.stderr)
            print(f"    {original.fingerprint}", file=sys.stderr)


if __name__ == "__main__":
    with plain_errors():
        sys.exit(main(sys.argv[1:]))
