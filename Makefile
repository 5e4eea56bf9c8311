# What people do here; `make` alone lists it. Everything but `setup` needs nothing installed first: it sets up on its own.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MOTO := $(VENV)/moto
BUNDLE ?= artifacts/bundle
PORT ?= 3000
PEERS_PYTHON ?= /usr/bin/python3
RECIPE ?=
LABELS ?=
PYTEST = PATH="$(CURDIR)/$(BIN):$$PATH" SEGUE_S3_SERVER="$(CURDIR)/$(MOTO)/bin/moto_server" $(BIN)/python -m pytest

export BENTOML_DO_NOT_TRACK := true

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-audio test test-long check package serve bench peers figures lock clean

help:  ## List these targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

setup: $(VENV)/done  ## Create the virtual environment and install everything into it

$(VENV)/done: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Segue needs Python 3.11 or newer; set PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[cpu,train,cluster,dev]'
	@touch $@

$(MOTO)/done: $(VENV)/done  # A server for the tests of S3. It wants older libraries than ours, so it has its own environment.
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(MOTO)
	$(BIN)/uv pip install --quiet --python $(MOTO)/bin/python 'moto[server]==5.2.5'
	@touch $@

demo: setup  ## Train, export, serve, classify and score, end to end (RECIPE=file to choose; SEGUE_SONGS=folder for real songs)
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m segue.export.demo $(RECIPE)

demo-audio: setup  ## Train on the audio files in MUSIC (one folder a genre, or LABELS=table), and serve the bundle on PORT
	@test -d "$(MUSIC)" || { echo "say where the music is: make demo-audio MUSIC=folder"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[audio]'
	$(BIN)/segue songs "$(MUSIC)" --out artifacts/audio/songs.arrow $(if $(LABELS),--labels "$(LABELS)")
	$(BIN)/segue train-teacher artifacts/audio/songs.arrow --out artifacts/audio/teacher --epochs 40 --batch-songs 32
	$(BIN)/segue train-student artifacts/audio/songs.arrow --teacher artifacts/audio/teacher --out artifacts/audio/student --epochs 60 --batch-songs 32
	$(BIN)/segue export artifacts/audio/student --out artifacts/audio/bundle
	SEGUE_AUDIO=true $(BIN)/segue serve artifacts/audio/bundle --port $(PORT)

test: setup $(MOTO)/done  ## Run the tests, but for the long ones
	$(PYTEST) -n $$($(BIN)/python -c 'import os; print((os.cpu_count() or 1) * 3 // 2)') --dist loadfile  # Many wait for servers.

test-long: setup $(MOTO)/done  ## Run the long tests: simulations, fuzz, whole chains
	$(PYTEST) -m long

check: setup  ## Check format, lint, types and the floors
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

package: setup  ## Build sdist and wheel, install the wheel elsewhere and use it, with BUNDLE
	.ci/package $(BUNDLE)

serve: setup  ## Serve BUNDLE on PORT
	$(BIN)/segue serve $(BUNDLE) --port $(PORT)

bench: setup  ## Measure every part beside its baseline (QUICK=1: in minutes); saved for --benchmark-compare
	@mkdir -p artifacts/bench
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest bench/suites --benchmark-only --benchmark-autosave $(if $(QUICK),--quick) --results artifacts/bench/suites.json

# PyTriton's server is linked to Debian's Python 3.11, and so all peers have it.
PEERS := $(patsubst bench/peers/requirements/%.txt,.venv-peers/%/done,$(wildcard bench/peers/requirements/*.txt))

peers: setup $(PEERS)  ## Compare the service of BUNDLE with other servers of the same models (ARGUMENTS="--only fastapi segue")
	$(BIN)/python -m segue.bench.peers $(BUNDLE) $(ARGUMENTS)

.venv-peers/%/done: bench/peers/requirements/%.txt
	-$(PEERS_PYTHON) -m venv $(@D) && $(@D)/bin/python -m pip install --quiet --no-deps --requirement $< && touch $@

figures: setup  ## Measure the demo's bundle again and write the figures of README.md
	$(BIN)/segue evaluate artifacts/bundle artifacts/demo/test.arrow --json > artifacts/demo.json
	$(BIN)/segue bench artifacts/bundle --songs artifacts/demo/test.arrow --batches 1 256 1024 --out artifacts/speed.json
	mv artifacts/demo.json artifacts/speed.json docs/results/
	cp artifacts/bundle/tradeoff.png artifacts/bundle/reliability.png docs/
	$(BIN)/python -m segue.bench.figures

lock: setup  ## Write the installed versions to constraints.txt
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' > constraints.txt

clean:  ## Remove the virtual environment and everything made
	rm -rf $(VENV) .venv-peers artifacts
