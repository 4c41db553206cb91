# AnyCANN: the two commands are `make demo` and `make test`; `make help` lists the rest.
# The work is done by CMake presets and small scripts; this file only names them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

JOBS ?= $(shell nproc)
TOOLKIT := $(CURDIR)/build/toolkit
ANYCANN := $(TOOLKIT)/bin/anycann
PYTHON := .venv/bin/python
PREFIX ?= /usr/local/anycann
CASES ?= 10000000
SEED ?= 1

.PHONY: help
help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

.PHONY: system
system: ## Install the Debian packages that are missing (asks for root rights only then)
	@tools/setup/system.sh

.PHONY: venv
venv: .venv/.complete ## The Python environment with the client wheels (.venv)
.venv/.complete: tools/setup/requirements.txt
	@tools/setup/venv.sh

.PHONY: toolkit
toolkit: system ## Build and assemble the toolkit: build/toolkit
	@mkdir -p build
	@cmake --preset release -DANYCANN_TOOLKIT=$(TOOLKIT) > build/configure.log 2>&1 || { cat build/configure.log; exit 1; }
	@cmake --build build/release -j $(JOBS)

.PHONY: demo
demo: toolkit venv ## Train on real digits and real text with unmodified torch and torch-npu, beside the CPU device
	@$(ANYCANN) run $(PYTHON) examples/demo.py --out build/demo

.PHONY: test
test: toolkit venv ## Build and run every test, sanitizers included
	@tools/test.sh

.PHONY: sweep
sweep: toolkit venv ## PyTorch's operators at every type, wrong calls, modules and optimisers on npu against the CPU device
	@$(ANYCANN) run $(PYTHON) tests/sweep/sweep.py --all --quiet --json build/sweep

.PHONY: accuracy
accuracy: toolkit venv ## Measure the operators' errors again: rewrites docs/accuracy.tsv and docs/coverage.md
	@tools/docs/accuracy.sh

.PHONY: fuzz
fuzz: system ## Random arguments for every operator under sanitizers: make fuzz CASES=10000000 SEED=1
	@mkdir -p build
	@cmake --preset asan > build/configure.log 2>&1 || { cat build/configure.log; exit 1; }
	@cmake --build build/asan -j $(JOBS) --target fuzz
	@UBSAN_OPTIONS=print_stacktrace=1 build/asan/tests/fuzz --cases $(CASES) --seed $(SEED)

.PHONY: bench
bench: toolkit venv ## Ratios against torch's CPU device in the same run: table and JSON under build/bench
	@$(ANYCANN) run $(PYTHON) bench/bench.py --out build/bench

.PHONY: models
models: toolkit venv ## Real models (ResNet-50, BERT, GPT-2, ...) trained on npu beside torch's CPU device: numbers, time, fallbacks
	@$(ANYCANN) run $(PYTHON) tests/models/run.py --out build/models

.PHONY: llama
llama: toolkit venv ## llama.cpp's CANN backend, unmodified, from PyPI: its own operator and model tests, settings, server, embeddings, llama-bench
	@$(PYTHON) tests/llama/llama.py ops archs models server sentences bench --jobs $(JOBS)

.PHONY: llm
llm: toolkit venv ## Language models on npu beside torch's CPU device: generate() token for token, two decoders plain and fused, a short training
	@$(ANYCANN) run $(PYTHON) tests/llm/run.py
	@$(ANYCANN) run $(PYTHON) examples/train_gpt.py --minutes 1 --compare 10 --out build/llm

.PHONY: dev
dev: system ## Quick build for this machine's instruction set: build/dev, unit tests included
	@cmake --preset dev > /dev/null
	@cmake --build build/dev -j $(JOBS)

.PHONY: symbols
symbols: toolkit ## Rewrite abi/*.symbols from what the libraries export (review the difference)
	@cmake --build build/release --target symbols

.PHONY: install
install: toolkit ## Install the toolkit: make install PREFIX=/usr/local/anycann
	@cmake --install build/release --prefix $(PREFIX)

.PHONY: format
format: ## clang-format every C++ file
	@git ls-files '*.cc' '*.h' | xargs clang-format -i

.PHONY: clean
clean: ## Remove build/ (keeps .venv)
	@rm -rf build
