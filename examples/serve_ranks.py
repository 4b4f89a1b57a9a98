"""Serve one adapter over HTTP, each request at the rank that it asks for.

  python examples/serve_ranks.py model=FOLDER_OR_HUB_ID adapter=adapter.safetensors
  curl localhost:8000 -d '{"prompt": "name[Alimentum], food[French]", "rank": 4}'

Requests that come within a moment are answered as one batch, whatever their ranks.
"""

import json
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Empty, Queue
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import dylora
from dylora.errors import UserError
from dylora.rank import checked_rank
from dylora.suite.cli import options, plain_errors


@dataclass
class Options:
    model: str = "gpt2"  # folder or hub id of a causal language model
    adapter: str = "dylora-example/adapter.safetensors"  # such as examples/trl_sft.py writes
    port: int = 8000
    batch: int = 8  # requests in one batch at most
    wait: float = 0.02  # seconds that the first of them waits for others
    new_tokens: int = 40  # of an answer


class Batcher(threading.Thread):
    """The one thread that runs the model."""

    def __init__(self, model: Any, tokenizer: Any, chosen: Options) -> None:
        super().__init__(daemon=True)
        self.model, self.tokenizer, self.chosen = model, tokenizer, chosen
        self.max_rank = dylora.summary(model).max_rank
        self.room = model.config.max_position_embeddings - chosen.new_tokens
        self.waiting: Queue[tuple[str, int, Future[str]]] = Queue()

    def ask(self, prompt: str, rank: object) -> str:
        """The answer; raises UserError for a rank that the adapter does not have."""
        answer: Future[str] = Future()
        self.waiting.put((prompt, checked_rank(rank, self.max_rank), answer))
        return answer.result()

    def run(self) -> None:
        while True:
            batch = [self.waiting.get()]
            try:
                while len(batch) < self.chosen.batch:
                    batch.append(self.waiting.get(timeout=self.chosen.wait))
            except Empty:
                pass  # nobody else came
            prompts, ranks, answers = zip(*batch, strict=True)
            try:
                texts = self.generate(list(prompts), list(ranks))
                for answer, text in zip(answers, texts, strict=True):
                    answer.set_result(text)
            except Exception as error:  # goes to those who asked; the server lives on
                for answer in answers:
                    answer.set_exception(error)

    def generate(self, prompts: list[str], ranks: list[int]) -> list[str]:
        inputs = self.tokenizer(
            prompts, padding=True, truncation=True, max_length=self.room, return_tensors="pt"
        ).to(self.model.device)
        with dylora.at_rank(self.model, ranks):  # a rank for each row
            made = self.model.generate(**inputs, max_new_tokens=self.chosen.new_tokens)
        new = made[:, inputs["input_ids"].shape[1] :]
        return self.tokenizer.batch_decode(new, skip_special_tokens=True)


def handler(batcher: Batcher) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            try:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                prompt, rank = str(asked["prompt"]), asked["rank"]
                status, reply = 200, {"rank": rank, "text": batcher.ask(prompt, rank)}
            except UserError as error:
                status, reply = 400, {"error": str(error)}
            except (ValueError, TypeError, KeyError):
                status, reply = 400, {"error": 'send {"prompt": "...", "rank": 4}'}
            body = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


def server(chosen: Options) -> ThreadingHTTPServer:
    """The server, ready for `serve_forever`; it listens on this machine alone."""
    tokenizer = AutoTokenizer.from_pretrained(
        chosen.model, padding_side="left", trust_remote_code=False
    )
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(
        chosen.model, trust_remote_code=False, dtype=torch.float32
    )
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    batcher = Batcher(dylora.load_adapter(model, chosen.adapter).eval(), tokenizer, chosen)
    batcher.start()
    return ThreadingHTTPServer(("127.0.0.1", chosen.port), handler(batcher))


def main() -> None:
    with server(options(Options, __doc__)) as running:
        print(f"listening on http://127.0.0.1:{running.server_port}", flush=True)
        running.serve_forever()


if __name__ == "__main__":
    with plain_errors(OSError):  # of a model that is not there
        main()
