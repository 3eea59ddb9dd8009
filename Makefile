# The verbs of the house. CI calls the same ones (.ci/run).
#
#   make run      three nodes in one process, live in the terminal; no root, no configuration
#   make test     every test that this machine allows; as root that includes the lab
#   make help     the rest

GO ?= go
FUZZTIME ?= 10s
SIMSEEDS ?= 10000
SIMSCALE ?= 1m
# Packages that measure times against guests run one after the other, on a machine that is else at rest.
LAB = -e '/internal/lab' -e '/internal/interop' -e '/internal/digsig/boot'
STATICCHECK = $(GO) tool -modfile=tools/go.mod staticcheck

.DEFAULT_GOAL := build
.PHONY: help build run test race fuzz sim lab bench lint gen cross clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

build: ## bin/midplane (static), and bin/tipc, the same program with iproute2's grammar; bin/midplane-pkcs11 loads vendors' libraries for it
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/midplane ./cmd/midplane
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/midplane-pkcs11 ./cmd/midplane-pkcs11
	ln -sf midplane bin/tipc

run: build ## a cluster of three nodes to look at and play with
	./bin/midplane dev

test: ## all tests that this machine allows (the lab's: as root)
	$(GO) test -timeout 30m $$($(GO) list ./... | grep -v $(LAB))
	$(GO) test -short -tags midplane_safe ./fib ./internal/fib/image ./internal/fib/trie
	$(GO) test -p 1 -timeout 30m $$($(GO) list ./... | grep $(LAB))

race: ## tests under the race detector, without the lab (needs a C compiler)
	CGO_ENABLED=1 $(GO) test -race -skip '^TestIntegration' -timeout 30m ./...

fuzz: ## every fuzz target for FUZZTIME
	@set -e; for p in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz' || true); do \
	    echo "$$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 50x $$p; \
	  done; \
	done

sim: ## SIMSEEDS seeds of the simulated cluster (10,000: minutes), and its growth to 100 nodes over SIMSCALE
	$(GO) test -count 1 -v -timeout 120m ./internal/sim -run "TestSeeds|TestScale" -seeds=$(SIMSEEDS) -scale=$(SIMSCALE)

lab: ## tests against Linux's own TIPC in guests (needs root)
	$(GO) test -count 1 -v -timeout 30m -run '^TestIntegration' ./internal/lab/... ./internal/interop/... ./internal/digsig/boot

bench: ## side by side with TCP and NATS, bart, net and gnet, and as root the kernel's FIB; see docs/performance.md
	cd bench && $(GO) run . $(BENCHFLAGS)
	cd bench && GOAMD64=v3 $(GO) run ./fib
	cd bench && $(GO) run ./digsig
	cd bench && $(GO) run ./aemecho
	cd bench && $(GO) run ./aemwake && $(GO) run ./aemtimer && $(GO) run ./aemoverload
	cd bench && if [ "$$(id -u)" = 0 ]; then $(GO) run ./fibxdp; else echo "the comparison with the kernel's FIB needs root"; fi

lint: cross ## formatting, vet, staticcheck, other platforms; import directions are a test (internal/archtest)
	@bad=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); test -z "$$bad" || { echo "not formatted:"; echo "$$bad"; exit 1; }
	$(GO) vet ./...
	cd bench && $(GO) vet ./...
	$(STATICCHECK) ./...

cross: ## other systems: everything compiles and vets there, tests too
	GOOS=linux GOARCH=arm64 $(GO) vet ./...
	GOOS=darwin GOARCH=arm64 $(GO) vet ./...
	GOOS=windows GOARCH=amd64 $(GO) vet ./...

gen: ## generated files (BPF objects: apt-get install clang-14 llvm-14 libbpf-dev)
	$(GO) generate ./...
	cd bench && $(GO) generate ./...

clean: ## what build made
	rm -rf bin
