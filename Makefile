# Each target is a line or two over real tools; `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help manifests

help: ## what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

manifests: ## CRDs, the chart's copies of them, install.yaml and the reference, from the types and the chart
	uv run python -m wisp_api.crd
	cp manifests/crds/*.yaml charts/wisp/files/crds/
	"$$(uv run python -c 'from wisp_cluster.build import binary; print(binary("helm"))' | tail -1)" template wisp charts/wisp \
		--namespace wisp-system --kube-version 1.30.0 --no-hooks --set namespace.create=true > manifests/install.yaml
	uv run python -m wisp_api.reference > docs/reference.md
