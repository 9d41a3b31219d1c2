# Thin: every target says what it runs; the work is in hack/. `make` alone prints this help.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
.DEFAULT_GOAL := help
export TALKTIME_STATE ?= $(CURDIR)/.state
export PATH := $(CURDIR)/.state/bin:$(CURDIR)/.state/pypi/uv/bin:$(PATH)
# Hundreds of Python processes start in a run of the tests; one that compiles what it imports takes 10 s of CPU, not 5.
unexport PYTHONDONTWRITEBYTECODE
export PYTHONPYCACHEPREFIX := $(TALKTIME_STATE)/pycache
CLUSTER ?= local
MINUTES ?=
REGISTRY ?=

.PHONY: help demo test check images up down status chaos bench-first-run bench-ledger bench-overshoot bench-gate bench-finance bench-metering bench-failover bench-drains bench-density bench-browser

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo '  CLUSTER=local|kind|current  MINUTES=30 (one full-length interview)  REGISTRY=registry.example.com/team'

demo: ## Cluster, Talktime, 6 interviews and one that reaches its limit; first run builds for about 25 min, then under 3
	@REGISTRY=$(REGISTRY) hack/python -m hack.demo --cluster $(CLUSTER) $(if $(MINUTES),--minutes $(MINUTES))

test: ## Everything, from unit to cluster tests, with its own servers and cluster
	@hack/python -m hack.machine test
	@hack/check --without-tests; checked=$$?; .venv/bin/python -m pytest -n 3 --dist loadgroup --no-loadscope-reorder tests && exit $$checked

check: ## Format, lint, types, imports, generated files, unit tests
	@hack/python -m hack.machine check
	@hack/check

images: ## Build all images; with REGISTRY=... build and push all but upstream's
	@hack/python -m hack.machine images
	@hack/python -m hack.images $(if $(REGISTRY),push $(REGISTRY),build)

up: ## The local cluster alone, two nodes, with all images
	@hack/python -m hack.machine demo
	@hack/python -m hack.cluster up
	@hack/python -m hack.images load

status: ## What of the local cluster runs
	@hack/python -m hack.cluster status

down: ## Remove the cluster without a trace; CLUSTER=kind: that one; CLUSTER=current: only what the demo put there
	@hack/python -m hack.demo.removal --cluster $(CLUSTER)

chaos: ## Break agents, nodes, ledger and database under live interviews (20 min; CHAOS_ROUNDS=3 for more); result kept
	@hack/python -m hack.machine test
	@.venv/bin/python -m hack.chaos | tee $(TALKTIME_STATE)/chaos.log; ran=$$?; .venv/bin/python bench/record.py chaos $(TALKTIME_STATE)/chaos.log && exit $$ran

bench-first-run: ## Clone, demo twice, tests: what a newcomer waits for, with empty caches (1.5 h); result kept
	@.venv/bin/python bench/first_run.py | tee $(TALKTIME_STATE)/first_run.log; ran=$$?; .venv/bin/python bench/record.py first_run $(TALKTIME_STATE)/first_run.log && exit $$ran

bench-ledger: ## Grants per second through HTTP beside pgbench running the same statements (5 min); result kept
	@.venv/bin/python -m bench.ledger | tee $(TALKTIME_STATE)/ledger.log; ran=$$?; .venv/bin/python bench/record.py ledger $(TALKTIME_STATE)/ledger.log && exit $$ran

bench-overshoot: ## 100 runs of 500 sessions on a nearly spent Project, four enforcers on the same traces (10-20 min); result kept
	@.venv/bin/python -m bench.overshoot | tee $(TALKTIME_STATE)/overshoot.log; ran=$$?; .venv/bin/python bench/record.py overshoot $(TALKTIME_STATE)/overshoot.log && exit $$ran

bench-gate: ## The agent's check before a response: time of 200,000 decisions, and that nothing leaves the process (10 s); result kept
	@.venv/bin/python -m bench.gate | tee $(TALKTIME_STATE)/gate.log; ran=$$?; .venv/bin/python bench/record.py gate $(TALKTIME_STATE)/gate.log && exit $$ran

bench-finance: ## A day's bill and a Project's cost over 3 million sessions (10 min, 10 GB); result kept
	@.venv/bin/python -m bench.finance | tee $(TALKTIME_STATE)/finance.log; ran=$$?; .venv/bin/python bench/record.py finance $(TALKTIME_STATE)/finance.log && exit $$ran

bench-metering: ## Every billed token of 120 faulty sessions on both providers, then the invoice; 8 over WebRTC (12 min); result kept
	@.venv/bin/python -m bench.metering --real 4 | tee $(TALKTIME_STATE)/metering.log; ran=$$?; .venv/bin/python bench/record.py metering $(TALKTIME_STATE)/metering.log && exit $$ran

KILLS ?= 20
EACH ?= 5
OTHERS := restarted frozen udp redis apiserver operator gateway job pod
bench-failover: ## kill -9 of the only SFU under 3 live interviews, 20 times, 9 other faults 5 times (65 min; KILLS=2 EACH=1); result kept
	@hack/python -m hack.machine test
	@.venv/bin/python -m bench.failover --minutes 110 --variant killed:$(KILLS) $(OTHERS:%=--variant %:$(EACH)) | tee $(TALKTIME_STATE)/failover.log; ran=$$?; .venv/bin/python bench/record.py failover $(TALKTIME_STATE)/failover.log && exit $$ran

bench-drains: ## 20 scale-downs, 5 upgrades, 5 kubectl drains under live interviews, 3 ended by their deadline (40 min); result kept
	@hack/python -m hack.machine test
	@.venv/bin/python -m bench.drains | tee $(TALKTIME_STATE)/drains.log; ran=$$?; .venv/bin/python bench/record.py drains $(TALKTIME_STATE)/drains.log && exit $$ran

bench-density: ## Two-party audio rooms per core of the real livekit-server, until joins or packets suffer (8 min); result kept
	@hack/python -m hack.machine test
	@.venv/bin/python -m bench.density | tee $(TALKTIME_STATE)/density.log; ran=$$?; .venv/bin/python bench/record.py density $(TALKTIME_STATE)/density.log && exit $$ran

bench-browser: ## An interview in a real Chromium goes on when its media server is killed, hangs or loses its UDP (15 min); result kept
	@hack/python -m hack.machine browser
	@.venv/bin/python -m bench.browser | tee $(TALKTIME_STATE)/browser.log; ran=$$?; .venv/bin/python bench/record.py browser $(TALKTIME_STATE)/browser.log && exit $$ran
