# Each target is a line or two over real tools; `make help` lists them.
.DEFAULT_GOAL := help
PYTEST = uv run --frozen pytest
# Tests mostly wait, so more processes than cores; a file's tests share their servers.
SIDE_BY_SIDE = -n 4 --dist loadfile

.PHONY: help test lint unit integration e2e bench chaos up cluster install demo down status kubeconfig build images manifests uv

WISP = uv run --frozen python -m wisp_cluster

help: ## what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

up: cluster install demo ## a cluster (CLUSTER=kind|onenode chooses), Wisp on it, and a demo that shows it working

cluster: uv ## the cluster alone; mends one that was killed
	$(WISP) up

install: uv ## Wisp on the cluster, or its upgrade to this checkout
	$(WISP) install

demo: uv ## the examples at work
	$(WISP) demo

down: uv ## remove the cluster and all that it made on this machine
	$(WISP) down

status: uv ## each part of the cluster, and what is wrong with it
	$(WISP) status

kubeconfig: uv ## print the path of the kubeconfig
	@$(WISP) kubeconfig

build: uv ## the cluster's programs, from pinned Go modules, into the cache
	$(WISP) build

images: uv ## the images, into the cache; prints name -> reference
	$(WISP) images

uv:
	@command -v uv >/dev/null || python3 -m pip install --quiet uv || { echo "install uv first: https://docs.astral.sh/uv/" >&2; exit 1; }

test: lint unit integration e2e ## all checks and tests, from nothing but the checkout

lint: uv ## ruff, mypy strict, import-linter
	uv sync --frozen --all-packages --quiet
	uv run --frozen ruff check .
	uv run --frozen ruff format --check .
	uv run --frozen mypy
	uv run --frozen lint-imports

unit: uv ## tests of single parts
	$(PYTEST) $(SIDE_BY_SIDE) tests/unit

integration: uv ## parts with real servers: Kubernetes API, NATS, MinIO, PostgreSQL
	$(WISP) build etcd kube-apiserver kubectl minio helm
	$(PYTEST) $(SIDE_BY_SIDE) tests/integration

e2e: uv ## the whole on a real cluster; one that is not running is taken down again afterwards
	$(PYTEST) tests/e2e

bench: uv ## what is claimed, measured beside its peers
	uv run --frozen python tests/bench/bench_runtime.py
	uv run --frozen python tests/bench/bench_nodejs.py
	uv run --frozen python tests/bench/bench_code.py
	uv run --frozen python tests/bench/bench_operator.py
	uv run --frozen python tests/bench/bench_log.py
	uv run --frozen python tests/bench/bench_router.py
	uv run --frozen python tests/bench/bench_bus.py
	uv run --frozen python tests/bench/bench_ingest.py
	uv run --frozen python tests/bench/bench_postgres.py
	uv run --frozen python tests/bench/bench_mysql.py
	uv run --frozen python tests/bench/bench_platform.py
	uv run --frozen python tests/bench/bench_knative.py
	uv run --frozen python tests/bench/bench_burst.py
	uv run --frozen python tests/bench/bench_rollout.py

chaos: uv ## 100,000 events on the running cluster while every part of it is broken at random; nothing may be lost
	uv run --frozen python tests/chaos/chaos.py

manifests: ## CRDs, the chart's copies of them, install.yaml and the references, from the types, the chart and the command
	uv run python -m wisp_api.crd
	cp manifests/crds/*.yaml charts/wisp/files/crds/
	"$$(uv run python -c 'from wisp_cluster.build import binary; print(binary("helm"))' | tail -1)" template wisp charts/wisp \
		--namespace wisp-system --kube-version 1.30.0 --no-hooks --set namespace.create=true > manifests/install.yaml
	uv run python -m wisp_api.reference > docs/reference.md
	uv run python -m wisp.reference > docs/cli.md
