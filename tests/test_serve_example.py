"""examples/serve_ranks.py: answers of a real server, each at the rank that was asked for."""

import importlib.util
import json
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import Any

import pytest
from conftest import ROOT
from decoders import byte_tokenizer, decoder
from tiny import randomize

import dylora

PROMPTS = ["name[Alimentum]", "food[French], area[riverside]", "price[low]"]
Ask = Callable[[Any], tuple[int, dict[str, Any]]]


def example() -> Any:
    spec = importlib.util.spec_from_file_location("serve", ROOT / "examples" / "serve_ranks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["serve"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any, list[list[int]]]]:
    """The running server, the example's module, and the ranks of each batch it has generated."""
    folder = tmp_path_factory.mktemp("served")
    decoder().save_pretrained(folder / "model")
    byte_tokenizer().save_pretrained(folder / "model")
    model = dylora.adapt(decoder(), ["c_attn:q,v"], max_rank=8)
    randomize(model)
    dylora.save_adapter(model, folder / "adapter.safetensors")

    module = example()
    batches: list[list[int]] = []
    generate = module.Batcher.generate

    def spy(self: Any, prompts: list[str], ranks: list[int]) -> list[str]:
        batches.append(ranks)
        made: list[str] = generate(self, prompts, ranks)
        return made

    module.Batcher.generate = spy
    options = module.Options(
        model=str(folder / "model"),
        adapter=str(folder / "adapter.safetensors"),
        port=0,  # any that is free
        wait=0.5,
        new_tokens=6,
    )
    with module.server(options) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server, module, batches
        server.shutdown()


@pytest.fixture
def ask(served: Any) -> Ask:
    def asked(body: Any) -> tuple[int, dict[str, Any]]:
        connection = HTTPConnection("127.0.0.1", served[0].server_port, timeout=60)
        connection.request("POST", "/", json.dumps(body))
        response = connection.getresponse()
        return response.status, json.loads(response.read())

    return asked


def test_requests_of_one_batch_are_answered_as_each_would_be_alone(served: Any, ask: Ask) -> None:
    batches = served[2]
    requests = [
        {"prompt": prompt, "rank": rank} for prompt, rank in zip(PROMPTS, (1, 8, 4), strict=True)
    ]
    alone = [ask(request) for request in requests]
    assert batches[-3:] == [[1], [8], [4]]
    with ThreadPoolExecutor(3) as clients:
        together = list(clients.map(ask, requests))
    assert sorted(batches[-1]) == [1, 4, 8]
    assert together == alone
    assert [reply["rank"] for _, reply in alone] == [1, 8, 4]
    texts = {ask({"prompt": PROMPTS[0], "rank": rank})[1]["text"] for rank in range(1, 9)}
    assert len(texts) > 1, "else a wrong rank would go unnoticed"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"prompt": "a", "rank": 9}, "rank 9 is outside 1..8"),
        ({"prompt": "a", "rank": "4"}, "no whole number"),
        ({"prompt": "a", "rank": [1, 2]}, "no whole number"),
        ({"prompt": "a"}, "send"),
        ([1], "send"),
    ],
)
def test_a_wrong_request_fails_alone_and_says_why(ask: Ask, body: Any, message: str) -> None:
    status, reply = ask(body)
    assert status == 400 and message in reply["error"]
    assert ask({"prompt": PROMPTS[0], "rank": 2})[0] == 200
