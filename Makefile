# Vitrine: every target is a thin line over python -m training, python -m serving or python -m gateway.
PYTHON ?= python3
PRESET ?= best
VENV := .venv
PEERS := .venv-peers
BIN := $(VENV)/bin
export PYTHONPATH := $(CURDIR)

.DEFAULT_GOAL := help
.PHONY: help up test test-serving fuzz train evaluate bench bench-training lint docker-up clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: $(VENV)/runtime ## start everything on http://127.0.0.1:8080 (Ctrl-C stops it)
	@$(BIN)/python -m gateway credentials
	@exec $(BIN)/python -m serving up

test: $(VENV)/tests ## run the whole test suite
	$(BIN)/python tests/prepare.py
	$(BIN)/python -m pytest $(ARGS)

test-serving: $(VENV)/tests ## the contract tests against the real TensorFlow Serving (in Docker, or where SERVING_REST_URL and SERVING_GRPC say)
	@$(BIN)/python tests/serving/contract/real.py $(ARGS)

fuzz: $(VENV)/tests ## 20,000 bent requests to the model server, every answer checked (ARGS="--count N --seed N")
	$(BIN)/python tests/serving/embedded/fuzz.py --count 20000 $(ARGS)

train: $(VENV)/runtime ## train, export, evaluate and publish the next version (PRESET=best|fast|photos|finetune|distil|smoke)
	$(BIN)/python -m training --preset $(PRESET) $(ARGS)

evaluate: $(VENV)/runtime ## a report on the newest version, with pictures, in reports/ (ARGS="--version N --against M", --quick: 2 minutes)
	$(BIN)/python -m training.evaluate $(ARGS)

bench: $(VENV)/runtime $(PEERS)/installed ## throughput and latency beside other ways to serve (needs wrk and h2load)
	$(BIN)/python -m serving.benchmark --peers $(PEERS) $(ARGS)

bench-training: $(VENV)/runtime ## how long training takes to 94 %, growing resolution against the served one (half an hour and more)
	$(BIN)/python -m training.benchmark $(ARGS)

lint: $(VENV)/tests ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/mypy

docker-up: ## the same in containers (Docker and its compose plugin)
	@$(PYTHON) -m gateway containers

clean: ## remove what was built, trained and measured here (not .env, not published versions)
	rm -rf $(VENV) $(PEERS) runs reports explanations tests/artifacts .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# uv installs in seconds what pip takes minutes for; it comes from PyPI like the rest.
$(VENV)/bin/uv:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else "error: Python 3.11 to 3.13 is needed, $(PYTHON) is %d.%d; name another: make PYTHON=python3.12 $(MAKECMDGOALS)" % v)'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "error: $(PYTHON) cannot make a virtual environment; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.5,<1'

$(VENV)/runtime: requirements.txt | $(VENV)/bin/uv
	@echo "installing what requirements.txt lists (first use; a minute or two)"
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.txt
	@touch $@

$(VENV)/tests: tests/requirements.txt $(VENV)/runtime
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -r tests/requirements.txt
	@touch $@

$(PEERS)/installed: serving/benchmark/peers/requirements.txt | $(VENV)/bin/uv
	@echo "installing the servers to compare with (first use)"
	@$(PYTHON) -m venv $(PEERS)
	@$(BIN)/uv pip install --quiet --python $(PEERS)/bin/python -r $<
	@touch $@
