# `make help` lists the targets. Everything runs in .venv, made by `make env`.
PYTHON ?= python3.11
BIN := .venv/bin

PARALLEL := --numprocesses auto --dist loadfile # a process for each core, whole files
EXPERIMENTS := $(sort $(basename $(notdir $(wildcard experiments/*.yaml))))

.PHONY: help env bench bench-gpu demo docs tables figures report report-md status test test-fast faults audit lint format clean $(EXPERIMENTS)
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z][a-z0-9_-]*:.*## ' $(MAKEFILE_LIST) | sort | \
		awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'
	@echo "  make NAME         all runs of an experiment, more options in ARGS='...'; NAME is one of"
	@echo "                    $(EXPERIMENTS)"

env: .venv/ready ## make .venv and install the project with all that demo and tests need

PIP := $(BIN)/pip install --disable-pip-version-check --progress-bar on --constraint constraints.txt

.venv/ready: pyproject.toml constraints.txt
	@echo "making .venv: 2.5 GB and some minutes; more where torch comes with CUDA"
	$(PYTHON) -m venv .venv
	$(PIP) torch
	$(PIP) --editable '.[suite,nlg,minilm,parallel,report,slurm,trackers,quantization,docs,dev]'
	@touch $@

demo: env ## LoRA and DyLoRA on toy tasks, every rank side by side; offline, 4 minutes
	$(BIN)/dylora demo

$(filter-out table8 claims,$(EXPERIMENTS)): env
	$(BIN)/dylora run experiments=$@ $(ARGS)

table8 claims: tables # made from conf/ and from the runs of the others, without runs of their own

tables: env ## the paper's tables from the records, beside the published numbers
	$(BIN)/dylora tables $(ARGS)

figures: env ## score against rank, time against ranks, singular values
	$(BIN)/dylora figures $(ARGS)

report: env ## one HTML page of all results
	$(BIN)/dylora report $(ARGS)

report-md: env ## results/REPORT.md, what the records say, and the README's first screen
	$(BIN)/dylora report-md readme=README.md $(ARGS)

docs: env ## the documentation site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

status: env ## what is done, running, failed and missing of every experiment
	$(BIN)/dylora status $(ARGS)

bench: env ## this project beside others, in turns: results/bench/, docs/benchmarks.md; 10 minutes
	$(PIP) --quiet --editable '.[bench]'
	$(BIN)/python -m benchmarks $(ARGS)

bench-gpu: env ## the same on a GPU; without one it says so and ends
	$(PIP) --quiet --editable '.[bench]'
	$(BIN)/python -m benchmarks device=cuda $(ARGS)

test: env ## all tests
	$(BIN)/python -m pytest $(PARALLEL)

test-fast: env ## the tests that take seconds
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow"

faults: env ## kill tiny runs 200 times, at every file operation and at random: equal results
	OMP_NUM_THREADS=1 $(BIN)/python tests/kill_runs.py

audit: ## known vulnerabilities of the pinned packages; needs the network: it asks PyPI of each
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/pip install --disable-pip-version-check --quiet pip-audit
	.venv-audit/bin/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

lint: env ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: env ## let ruff rewrite the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the environment and caches; results stay
	rm -rf .venv .venv-audit site .pytest_cache .mypy_cache .ruff_cache build *.egg-info
