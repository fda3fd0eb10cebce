# Everything is built with one set of flags, because Trivy takes minutes to compile and is compiled
# again for every other set.
export GOEXPERIMENT := jsonv2
export CGO_ENABLED  := 0

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT  := $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
LDFLAGS := -X main.version=$(VERSION) -X main.commit=$(COMMIT)

# Modules that compile in seconds, and those that link Trivy.
LIGHT := ./proto/... ./pkg/... ./services/ingest/... ./services/layercache/... ./services/psaauditor/... ./services/alertrouter/...
HEAVY := ./services/scanner/... ./services/pratique/... ./loadtest/...
MODULES := proto pkg services/ingest services/layercache services/psaauditor services/alertrouter services/scanner services/pratique loadtest

TOOLS := $(CURDIR)/.cache/tools
.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# One program per service, beside the command line that holds all of them.
PROGRAMS := $(wildcard services/*/cmd/pratique-*)

.PHONY: build
build: pratique ## build the command line and each service's program into bin/, stamped with version and commit
	@.ci/alive "compiling the services' programs" \
		go build -ldflags '$(LDFLAGS)' -o bin/ $(addprefix ./,$(PROGRAMS))

.PHONY: pratique
pratique: ## build bin/pratique alone
	@mkdir -p bin .cache
	@.ci/alive "compiling pratique (the first time with all of Trivy: 5 to 10 minutes on 2 cores)" \
		go build -ldflags '$(LDFLAGS)' -o bin/pratique ./services/pratique

.PHONY: demo
demo: pratique ## push real images to a registry in this process and watch their findings arrive (KEEP=1: leave it running)
	@bin/pratique demo $(if $(KEEP),--keep)

.PHONY: test
test: ## run every test
	@.ci/alive "tests run while Trivy compiles (5 to 10 minutes the first time, then cached)" \
		go test -timeout 20m $(TESTFLAGS) $(LIGHT) $(HEAVY)
	@$(MAKE) -s deploy

.PHONY: deploy
deploy: ## run the tests of compose, Kubernetes and alert files, against the programs, Redis and NATS
	@.ci/alive "tests of the deployment run" \
		env GOWORK=off go -C deploy test -timeout 20m $(TESTFLAGS) ./...

.PHONY: race
race: ## the same for what runs concurrently, under the race detector (needs a C compiler)
	CGO_ENABLED=1 go test -race -timeout 20m $(TESTFLAGS) $(LIGHT) ./services/scanner ./services/scanner/advisory ./services/scanner/trivylib

.PHONY: fmt
fmt: ## format
	@gofmt -w $(MODULES)

.PHONY: lint
lint: $(TOOLS)/golangci-lint $(TOOLS)/buf ## golangci-lint, buf lint, buf breaking
	$(TOOLS)/golangci-lint run $(LIGHT) $(HEAVY)
	cd deploy && GOWORK=off $(TOOLS)/golangci-lint run ./...
	$(TOOLS)/buf lint
	$(TOOLS)/buf breaking --against proto/baseline.binpb

.PHONY: generate
generate: $(TOOLS)/buf ## generate code and the baseline for buf breaking from the schema
	$(TOOLS)/buf breaking --against proto/baseline.binpb
	$(TOOLS)/buf generate
	$(TOOLS)/buf build --exclude-source-info -o proto/baseline.binpb

.PHONY: alone
alone: ## build each module by itself, without the workspace
	@for m in $(MODULES); do echo "$$m"; (cd $$m && GOWORK=off go build ./... && GOWORK=off go vet ./...) || exit 1; done

.PHONY: chaos-short
chaos-short: ## kill -9 anything every few seconds, NATS and Redis included, for about three minutes (CHAOS_SEED=N: that one again)
	@CHAOS=1 go test ./services/pratique/e2e -run '^TestKillAnything$$' -count=1 -v -timeout 20m

.PHONY: upgrade
upgrade: ## replace the previous commit's programs by the present ones and back, twenty times under load (UPGRADE_FROM=COMMIT)
	@UPGRADE=1 go test ./services/pratique/e2e -run '^TestRollingUpgrade$$' -count=1 -v -timeout 20m

.PHONY: bench
bench: ## compare with Trivy of the same version: one table, 5 to 10 minutes (BENCH="-json FILE -html FILE -only cold,known,…")
	@mkdir -p bin .cache
	@.ci/alive "compiling the benchmarks (the first time with all of Trivy: 5 to 10 minutes on 2 cores)" \
		go build -ldflags '$(LDFLAGS)' -o bin/pratique-bench ./loadtest/bench
	@bin/pratique-bench $(BENCH)

.PHONY: load
load: ## push images at a rate and want none lost or told twice (LOAD="-rate 50 -duration 5m …", LOAD=-h for all of it)
	@mkdir -p bin .cache
	@.ci/alive "compiling the load (the first time with all of Trivy: 5 to 10 minutes on 2 cores)" \
		go build -ldflags '$(LDFLAGS)' -o bin/pratique-loadtest ./loadtest
	@bin/pratique-loadtest $(LOAD)

.PHONY: clean
clean: ## remove what was built here (not Go's caches)
	rm -rf bin .cache

$(TOOLS)/golangci-lint: .tools/golangci/go.sum
	cd .tools/golangci && GOWORK=off go build -o $@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

$(TOOLS)/buf: .tools/buf/go.sum
	cd .tools/buf && GOWORK=off go build -o $@ github.com/bufbuild/buf/cmd/buf
