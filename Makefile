# SPDX-License-Identifier: GPL-2.0-or-later
# Every target is listed by `make help`.  Variables: SCENARIOS='S2* S31', KERNELS='debian-6.1 noio-6.1', HOST=local,
# RESULTS=DIR, ALLOW='S32 S464', ACCEPT=FILE.
SCENARIOS ?=
KERNELS ?= debian-6.1 noio-6.1
# virtual, local, or ssh:NAME (docs/lab.md); the last two have one kernel: the one that they run.
HOST ?= virtual
RESULTS ?= results
# Debian's kernel for virtual machines has neither zswap (S32) nor CONFIG_MEMORY_FAILURE (S464).  ALLOW= for none.
ALLOW ?= S32 S464
# Faults of these kernels that are known and are to be found again.  ACCEPT= for none.
ACCEPT ?= tests/accepted-findings.toml
PYTHON := .venv/bin/python
APF := $(PYTHON) -m harness.cli
STAMP := .venv/.ready
# Where this is set, everything is compiled again in each process: half of what collecting the tests takes.
export PYTHONDONTWRITEBYTECODE :=
export PATH := $(CURDIR)/.venv/bin:$(PATH):/usr/sbin:/sbin
# Patterns go to apf as they are, not to be expanded as file names.
SHELL := /bin/sh -f

.DEFAULT_GOAL := help
.PHONY: help setup test test-all long coverage test-host test-build test-browser bench damage lint types imports format layout smoke nightly lab-smoke e2e mutants compare doctor clean

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)$$/\1	\2/p' Makefile | while IFS='	' read -r name text; do \
		printf '  make %-12s %s\n' "$$name" "$$text"; done

$(STAMP): pyproject.toml .ci/setup .ci/needs
	@.ci/setup
	@touch $@

setup: $(STAMP) ## install what is missing on this machine, and the Python environment (.venv)

test: $(STAMP) ## the project's own tests without the long ones; needs no host and no network once it is set up
	$(PYTHON) -m pytest -q -n auto --dist worksteal -m "not long and not host and not build and not bench and not browser"
	@echo "not run here, because they take most of the time of all: make test-all, as .ci/run does"

test-all: $(STAMP) ## all of the project's own tests that need no host and no network: before anything is merged
	$(PYTHON) -m pytest -q -n auto --dist worksteal -m "not host and not build and not bench and not browser"
	@echo "not run here, because they boot machines or build kernels: make test-host, make test-build; because they measure time: make bench"

long: $(STAMP) ## measure what each test takes, and write what make test leaves to make test-all (tests/long.txt)
	$(PYTHON) -m pytest -q -n auto --dist worksteal -m "not long and not host and not build and not bench and not browser" \
		--all-alike --junitxml $(RESULTS)/tests.xml
	$(PYTHON) -m tests.long_tests $(RESULTS)/tests.xml

coverage: $(STAMP) ## branch coverage of the model by its own tests: 95 % or more
	$(PYTHON) -m pytest -q tests/unit/model tests/unit/judge tests/unit/cli --ignore tests/unit/cli/test_cli.py \
		--ignore tests/unit/model/test_protocol_speed.py --cov=harness.model --cov-branch \
		--cov-report=term-missing:skip-covered --cov-fail-under=95

test-host: $(STAMP) ## tests that boot a virtual host and then break it on purpose
	$(PYTHON) -m pytest -q -m "host and not bench" tests

test-build: $(STAMP) ## tests that build kernels or images
	$(PYTHON) -m pytest -q -m build tests

test-browser: $(STAMP) ## tests that open pages in Chromium; need Debian's chromium and install playwright
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --editable '.[browser]'
	$(PYTHON) -m pytest -q -m browser tests

bench: $(STAMP) ## measure how fast things are (BENCH='smoke judge e2e test fresh': some); on a machine that does nothing else
	$(PYTHON) -m pytest -q -m bench tests
	$(PYTHON) -m tests.bench --write docs/performance.md $(BENCH)

damage: $(STAMP) ## each kind of damage to a capture, and what the judge says of it
	$(PYTHON) -m tests.unit.judge.damage

lint: $(STAMP) ## ruff: lint and format; workflow files against their schemas, units by systemd-analyze
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m check_jsonschema --builtin-schema vendor.github-workflows $(wildcard .github/workflows/*.yml)
	$(PYTHON) -m check_jsonschema --builtin-schema vendor.gitlab-ci --data-transform gitlab-ci .gitlab-ci.yml
	@if command -v systemd-analyze > /dev/null; then set -x; systemd-analyze verify $(wildcard .ci/systemd/*); \
		else echo "no systemd-analyze here: units not checked"; fi

types: $(STAMP) ## mypy --strict
	$(PYTHON) -m mypy

imports: $(STAMP) ## who may import whom
	.venv/bin/lint-imports

format: $(STAMP) ## rewrite the sources in the house format
	$(PYTHON) -m ruff check --fix-only .
	$(PYTHON) -m ruff format .

layout: $(STAMP) ## print the probe guest's layout.h anew from harness/contract/probe_abi.py
	$(PYTHON) -m harness.contract.probe_abi > guest-images/probe/layout.h.new
	mv guest-images/probe/layout.h.new guest-images/probe/layout.h

smoke: $(STAMP) ## a few scenarios on a virtual host, in minutes
	$(APF) run tag:smoke --host "$(HOST)" --results "$(RESULTS)"

e2e: $(STAMP) ## the scenarios SCENARIOS (default: all) on the kernels KERNELS, judged; two kernels are compared
	@set -- $(KERNELS); if [ "$(HOST)" != virtual ]; then \
		set -x; exec $(APF) run $(SCENARIOS) --host "$(HOST)" $(ALLOW:%=--allow-unsupported %) $(ACCEPT:%=--accept-findings %) --results "$(RESULTS)"; \
	elif [ $$# = 2 ]; then \
		set -x; exec $(APF) compare "$$1" "$$2" $(SCENARIOS) $(ALLOW:%=--allow-unsupported %) $(ACCEPT:%=--accept-findings %) --results "$(RESULTS)"; \
	else \
		set -x; exec $(APF) run $(SCENARIOS) $(KERNELS:%=--kernel %) $(ALLOW:%=--allow-unsupported %) $(ACCEPT:%=--accept-findings %) --results "$(RESULTS)"; \
	fi

nightly: $(STAMP) ## e2e, then what has changed since the last night (MAIL=ADDRESS sends it, KEEP_MIB=N limits captures)
	@RESULTS="$(RESULTS)" HOST="$(HOST)" KERNELS="$(KERNELS)" SCENARIOS="$(SCENARIOS)" MAIL="$(MAIL)" KEEP_MIB="$(KEEP_MIB)" .ci/nightly

lab-smoke: $(STAMP) ## a virtual host as a machine of the lab: the same verdicts over ssh, and with local inside it (LAB=over_ssh: only the first)
	RESULTS="$(abspath $(RESULTS))" $(PYTHON) -m pytest -q -m host tests/unit/hosts/test_lab.py $(LAB:%=-k %)

mutants: $(STAMP) ## kernels with one deliberate fault each: every one must be caught
	$(APF) mutants --results "$(RESULTS)"

compare: $(STAMP) ## stock-6.1 against noio-6.1, both built here from the same source
	$(APF) compare stock-6.1 noio-6.1 $(SCENARIOS) $(ACCEPT:%=--accept-findings %) --results "$(RESULTS)"

doctor: $(STAMP) ## what this machine can do, and what it would need
	$(APF) doctor

clean: ## remove what make made here; results/ and the store of images stay
	rm -rf .venv .tox .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist apf_harness.egg-info
