# `make demo` and `make test` need Python 3.11+, make and git; each sets up the rest in .venv.
SHELL := /bin/sh
.DEFAULT_GOAL := help
PYTHON ?= $(shell for p in python3.13 python3.12 python3.14 python3.11 python3 python; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
# The installers say what went wrong, not what to do.
OR_SAY_WHY = || { echo "set-up failed: it needs a package index (a network, or pip's settings for one) and a cache folder that\
 can be written (or UV_NO_CACHE=1); run the same command again" >&2; exit 1; }
RUN := $(BIN)/python
ARGS ?=

.PHONY: help demo up logs doctor load emulator engine policy test check bench soak preview docs dist lock format clean

help: ## list the verbs
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1|/' | column -t -s '|'

# A make that is killed outright cannot end what it started: then the stack ends itself.
demo up load emulator: export DOCPROGRESS_END_WITH_PARENT = 1
demo: export DOCPROGRESS_BY_MAKE = 1

# As the shell reads them, a name on each line too; but one file, such as "My report (1).pdf", and what is no shell's
# syntax, as it is.
demo: $(VENV)/.local ## deploy on the embedded emulator and watch a PDF go by: make demo PDF="a.pdf b.pdf"
	@list=$$(printf %s "$$PDF" | tr '\n' ' '); \
	if [ ! -e "$$PDF" ] && (eval "set -- $$list") 2>/dev/null; then eval "set -- $$list"; else set -- "$$PDF"; fi; \
	exec $(RUN) -m local demo $(ARGS) -- "$$@"

up: $(VENV)/.local ## the same stack, kept up until Ctrl-C: make up ARGS=--watch takes changed files up
	@exec $(RUN) -m local up $(ARGS)

logs: $(VENV)/.local ## follow what its functions say: make logs ARGS="--document ID", or of a stack: ARGS="--stack prod"
	@exec $(RUN) -m local logs $(ARGS)

doctor: $(VENV)/.local ## what is wrong with a stack: make doctor ARGS="--stack prod", or ARGS="--outputs up.json"
	@exec $(RUN) -m local doctor $(ARGS)

load: $(VENV)/.local ## many pages on one document: make load WATCHERS=50, or WATCHERS=500 ARGS="--stack prod --yes"
	@exec $(RUN) -m local load $(if $(WATCHERS),--watchers $(WATCHERS)) $(ARGS)

emulator: $(VENV)/.local ## the emulator alone, for pulumi up --stack local; until Ctrl-C
	@exec $(RUN) -m local emulator $(ARGS)

# A file's tests stay together, since they share stacks. Four processes, on two cores too: most tests wait for an emulator
# or a browser. More would mostly start stacks of their own.
test: $(VENV)/.dev ## every test
	$(RUN) -m pytest -n 4 --dist loadfile $(ARGS)

policy: $(VENV)/.dev ## the policy pack's rules over every stack, without the Pulumi CLI
	$(RUN) -m pytest tests/policy $(ARGS)

engine: $(VENV)/.dev ## a stack's whole life on the real Pulumi engine, some 8 minutes; needs the Pulumi CLI
	$(RUN) -m pytest -m engine tests/engine $(ARGS)

check: $(VENV)/.dev ## formatting, lint, types, and the workflows for weaknesses
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/zizmor --offline --quiet --no-progress .github

format: $(VENV)/.dev ## write the formatting that check asks for
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.dev ## delivery against its peers, side by side
	$(RUN) -m benchmarks $(ARGS)

soak: $(VENV)/.dev ## delivery beside faulty watchers, SEEDS times (default 10), each another mixture
	$(RUN) -m tests.faults.soak --seeds $(or $(SEEDS),10)

# An environment of an older requirements.txt would plan with other versions.
preview: ## pulumi preview of STACK (default dev); needs the Pulumi CLI and AWS credentials
	@command -v pulumi >/dev/null 2>&1 || { echo "make preview needs the Pulumi CLI: see 'Deploy to AWS' in README.md" >&2; exit 1; }
	@pulumi install >&2
	pulumi preview $(or $(ARGS),--diff) --stack $(or $(STACK),dev)

docs: $(VENV)/.local ## the wire protocol as a page, in .build/docs; needs npm
	@$(RUN) -m tools.protocol_page

# Built from a copy, to which the licence is added.
dist: $(VENV)/.uv ## what a release has, in dist/: wheel, npm package, bills of material; needs npm
	@command -v npm >/dev/null 2>&1 || { echo "make dist needs npm, which comes with Node.js" >&2; exit 1; }
	@$(UV) pip install --quiet --require-hashes -p $(RUN) -r requirements-release.txt $(OR_SAY_WHY)
	@rm -rf dist .build/dist && mkdir -p dist .build/dist
	@cp -R library web/client .build/dist && cp LICENSE .build/dist/library && cp LICENSE .build/dist/client
	@$(UV) build --quiet --wheel --build-constraints requirements-release.txt --require-hashes -o dist .build/dist/library
	@cd .build/dist && npm pack --silent --pack-destination ../../dist ./client >/dev/null
	@# In the versions that the tests ran with.
	@$(PINNED) library/pyproject.toml -o .build/dist/library.txt
	@$(PINNED) pyproject.toml $(CARRIED) -o .build/dist/stack.txt
	@$(BOM) --pyproject library/pyproject.toml --mc-type library -o dist/library.cdx.json .build/dist/library.txt
	@$(BOM) --pyproject pyproject.toml -o dist/stack.cdx.json .build/dist/stack.txt
	@ls dist
PINNED = $(UV) pip compile --quiet --universal --generate-hashes --python-version 3.11 -c requirements-dev.txt
# Without the advice to name the direct dependencies, which requirements files do not know.
BOM = PYTHONWARNINGS=ignore $(BIN)/cyclonedx-py requirements --output-reproducible

# Resolved together, so that what is tested is what is deployed.
COMPILE = $(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.11 \
	--custom-compile-command "make lock" $(LOCKFLAGS)
LOCKFLAGS ?=
# What functions carry in their archives, each said beside its handler. This machine has it too, for the local stack.
CARRIED = $(wildcard functions/*requirements.in examples/*/*.requirements.in)
lock: $(VENV)/.uv ## pin every requirements file anew from pyproject.toml: make lock LOCKFLAGS=--upgrade
	$(COMPILE) pyproject.toml --group dev $(CARRIED) -o requirements-dev.txt
	$(COMPILE) pyproject.toml --group local $(CARRIED) -c requirements-dev.txt -o requirements-local.txt
	$(COMPILE) pyproject.toml -c requirements-dev.txt -o requirements.txt
	$(COMPILE) --group release -c requirements-dev.txt -o requirements-release.txt
	$(COMPILE) --group policy -o policy/requirements.txt
	@for each in $(CARRIED); do (set -x; $(COMPILE) $$each -c requirements-dev.txt -o $${each%.in}.txt) || exit 1; done

clean: ## remove what the verbs made
	rm -rf $(VENV) .build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/.uv: requirements-uv.txt
	@test -n "$(PYTHON)" || { echo "docprogress needs Python 3.11 or newer with the venv module (Debian: apt install python3-venv)" >&2; exit 1; }
	@echo "setting up .venv, once; it takes half a minute" >&2
	@$(PYTHON) -m venv --clear $(VENV)
	@$(RUN) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.txt $(OR_SAY_WHY)
	@touch $@

# --inexact: a later, larger set must not be undone by an earlier verb.
$(VENV)/.local: $(VENV)/.uv requirements-local.txt
	@$(UV) pip install --quiet --compile-bytecode --require-hashes -p $(RUN) -r requirements-local.txt $(OR_SAY_WHY)
	@touch $@

$(VENV)/.dev: $(VENV)/.uv requirements-dev.txt
	@$(UV) pip install --quiet --compile-bytecode --require-hashes -p $(RUN) -r requirements-dev.txt $(OR_SAY_WHY)
	@touch $@ $(VENV)/.local
