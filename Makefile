# Everything a developer runs. Each target says in its line what it does; `make help` lists them.

GO ?= go
# Fuzz targets run this long each in `make test`.
FUZZTIME ?= 10s
# So many of a package's tests run side by side: those against clusters and brokers wait for most of their time.
PARALLEL ?= 4
# Packages at a time in `make unit`: they wait for brokers, elections and timers more than they compute, so one more than
# two processors can do keeps these busy (with two packages at a time they were idle for half of it).
PACKAGES ?= 3

.PHONY: help build run test unit lint fuzz bench microbench clean

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

build: ## the binaries, into ./bin
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/ ./cmd/tidewire ./cmd/tidectl ./cmd/tidewire-demo

# DEMOFLAGS='-client-ports 9080,9180,9280': other ports, and whatever `bin/tidewire-demo -h` lists.
run: build ## a three-node cluster with an embedded Kafka and a page: http://127.0.0.1:8080/ (DEMOFLAGS=)
	@exec ./bin/tidewire-demo $(DEMOFLAGS)

test: js lint rest race fuzz ## everything once: lint, all tests (real Kafka too where there is a JVM), races, fuzzing

# Before the Go tests, some of which run what it builds.
.PHONY: js
js: ## clients/js: install, build, test; says so and goes on where Node.js is missing, unless TIDEWIRE_TEST_NODE=required
	@if ! command -v node >/dev/null || ! command -v npm >/dev/null; then \
	  echo "NOT RUN: clients/js needs Node.js 20 or newer and npm (Debian: apt-get install nodejs npm)"; \
	  [ "$$TIDEWIRE_TEST_NODE" != required ]; \
	else cd clients/js && npm ci --prefer-offline && npm test; fi

# In the repository, so that `make run` needs Go alone; a test of clients/js fails while it is not up to date.
.PHONY: page
page: ## the client in the demo's page, anew from clients/js: commit it
	cd clients/js && npm ci --prefer-offline && npm run page

lint: licences ## gofmt, go vet, staticcheck, licences
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$unformatted" ]; then echo "gofmt:" $$unformatted; exit 1; fi
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

unit: ## all tests without the race detector, real Kafka and a real browser included
	@[ -x /usr/bin/chromium ] || [ -n "$$TIDEWIRE_TEST_BROWSER" ] || echo "*** NOT RUN: the tests in a real browser: there is no /usr/bin/chromium (see CONTRIBUTING.md)"
	$(GO) test -timeout 20m -p $(PACKAGES) -parallel $(PARALLEL) $(LONGEST) ./...

# Tested by `race`, in all their tests but those of MEMORY, which the race detector changes. In node, `race` tests against the
# embedded Kafka. The longest first.
RACED = ./wsedge/... ./replication/... ./bridge/... ./cache/... ./clients/go/...
MEMORY = 'TestOverTLS/DeliveryAllocatesNothing|TestDeliveryAllocatesNothing|TestIdleSessionHasASmallStack'

.PHONY: rest
rest: ## what `race` does not test: with it, everything is tested once
	@[ -x /usr/bin/chromium ] || [ -n "$$TIDEWIRE_TEST_BROWSER" ] || echo "*** NOT RUN: the tests in a real browser: there is no /usr/bin/chromium (see CONTRIBUTING.md)"
	$(GO) test -run $(MEMORY) ./wsedge
	raced=$$($(GO) list $(RACED)) && all=$$($(GO) list ./... | grep -vxF "$$raced") && \
	  TIDEWIRE_TEST_EMBEDDED=off $(GO) test -timeout 20m -p $(PACKAGES) -parallel $(PARALLEL) $(filter-out $(RACED:/...=),$(LONGEST)) $$all

# They begin first, so that no processor is idle while the last of them ends.
LONGEST = ./cmd/internal/node ./kafkaio ./cmd/internal/browsertest ./wsedge ./replication ./cmd/internal/bench ./cmd/internal/verify

.PHONY: race
race: ## the tests again with the race detector where goroutines meet
	TIDEWIRE_TEST_KAFKA=off $(GO) test -race -timeout 15m -p $(PACKAGES) -parallel $(PARALLEL) ./wsedge ./cmd/internal/node $(RACED)

fuzz: ## each fuzz target for FUZZTIME, four at a time
	@for pkg in $$(git grep -l '^func Fuzz' -- '*_test.go' | xargs -n1 dirname | sort -u); do \
	  sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p' $$pkg/*_test.go | sed "s|^|./$$pkg |"; done | \
	  GO='$(GO)' xargs -P 4 -L 1 sh -c 'exec testdata/fuzz.sh $$0 $$1 $(FUZZTIME)'

microbench: ## the benchmarks of the packages
	$(GO) test -run '^$$' -bench . -benchmem ./bridge/ ./cache/ ./wsedge/ ./kafkaio/ ./replication/

# What `make bench` passes on when given: SCENARIO='fanout-.*', RUNS=5, DURATION=30s, DOC=docs/benchmarks.md, JSON=bench.json, KAFKA=3.9;
# and BENCHFLAGS for any other flag of `tidectl bench` (`bin/tidectl bench -h`).
bench: ## measures Tidewire beside a bare writer and centrifuge, with a real Kafka (SCENARIO= RUNS= DURATION= DOC= JSON=)
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/ ./cmd/tidewire ./cmd/tidectl ./cmd/internal/bench/benchkafka
	cd testdata/bench/centrifuge && CGO_ENABLED=0 $(GO) build -trimpath -o ../../../bin/benchcentrifuge .
	@exec ./bin/tidectl bench -local $(if $(SCENARIO),-scenario '$(SCENARIO)') $(if $(RUNS),-runs $(RUNS)) $(if $(DURATION),-duration $(DURATION)) \
	  $(if $(DOC),-doc $(DOC)) $(if $(JSON),-json $(JSON)) $(if $(KAFKA),-kafka-version $(KAFKA)) $(BENCHFLAGS)

# What `make faults` passes on when given: SOAK=2h, SEED=7, SCENARIO=kill-.*, SLICE=5m, DOC=docs/faults.md, KAFKA=3.9
.PHONY: faults
faults: old ## breaks a cluster of real processes and judges what clients saw (SCENARIO= SEED= SOAK= SLICE= DOC=)
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-X $(VERSION)=$(shell git describe --always --dirty --abbrev=12 2>/dev/null)' -o bin/ ./cmd/tidewire ./cmd/tidewire-faults
	@exec ./bin/tidewire-faults $(if $(SEED),-seed $(SEED)) $(if $(SCENARIO),-scenario '$(SCENARIO)') $(if $(SOAK),-soak $(SOAK)) \
	  $(if $(SLICE),-slice $(SLICE)) $(if $(DOC),-o $(DOC)) $(if $(KAFKA),-kafka $(KAFKA)) -old bin/tidewire-$(OLD)

# What `make abuse` passes on when given: ATTACK='half-open|pings', FOR=15s (each), QUIET=30s, DOC=docs/abuse.md, JSON=abuse.json, KAFKA=3.9;
# and ABUSEFLAGS for any other flag of tidewire-abuse (`bin/tidewire-abuse -h`).
.PHONY: abuse
abuse: ## attacks a cluster of real processes, and judges what honest clients felt of it: 5 minutes (ATTACK= FOR= QUIET= DOC= JSON=)
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/ ./cmd/tidewire ./cmd/tidewire-abuse
	@exec ./bin/tidewire-abuse $(if $(ATTACK),-attack '$(ATTACK)') $(if $(FOR),-for $(FOR)) $(if $(QUIET),-quiet $(QUIET)) \
	  $(if $(DOC),-o $(DOC)) $(if $(JSON),-json $(JSON)) $(if $(KAFKA),-kafka $(KAFKA)) $(ABUSEFLAGS)

VERSION = github.com/tidewire/tidewire/cmd/internal/node.version

# The earlier build that a scenario upgrades from, node by node: a commit of this repository's history.
OLD ?= 2850d4a37b7f
.PHONY: old
old:
	@test -e bin/tidewire-$(OLD) || { git cat-file -e '$(OLD)^{commit}' 2>/dev/null || { \
	  echo "commit $(OLD) is not in this clone: the scenario that upgrades from it will not be run"; exit 0; } && \
	  src=$$(mktemp -d) && git archive $(OLD) | tar -x -C $$src && mkdir -p bin && out=$$PWD/bin/tidewire-$(OLD) && \
	  (cd $$src && CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-X $(VERSION)=$(OLD)' -o $$out ./cmd/tidewire); status=$$?; rm -rf $$src; exit $$status; }

# The pinned scanner is fetched like any module. Without its database, which is on the Internet, nothing was looked at: that is
# said, and is no failure.
VULNCHECK ?= golang.org/x/vuln/cmd/govulncheck@v1.9.0
.PHONY: vuln
vuln: ## known vulnerabilities in what we call (govulncheck); says so and goes on where its database cannot be reached
	@out=$$($(GO) run $(VULNCHECK) ./... 2>&1); status=$$?; echo "$$out"; \
	  if [ $$status -ne 0 ] && echo "$$out" | grep -Eq 'fetching vulnerabilities: |golang.org/x/vuln.*(dial tcp|no such host|module lookup disabled|Forbidden|i/o timeout)'; then \
	    echo "*** NOT CHECKED: the scanner or its database cannot be reached from here"; status=0; fi; exit $$status

.PHONY: licences
licences: ## the modules that everything is made of, with their licences; fails on one that is unknown or that we may not ship
	@$(GO) run ./cmd/internal/licences

# As the Dockerfile builds them. The version is part of the bytes: RELEASED=v1.2.3 for those of a release.
RELEASE = -trimpath -buildvcs=false -ldflags '-s -w -X github.com/tidewire/tidewire/cmd/internal/node.version=$(RELEASED)'
RELEASED ?=
PROGRAMS ?= ./cmd/tidewire ./cmd/tidectl
.PHONY: reproducible
reproducible: ## builds the programs twice, from copies of the tree in two folders with caches of their own, and compares the bytes (RELEASED=)
	@set -e; tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; \
	for n in 1 2/another/folder; do \
	  mkdir -p $$tmp/src$$n $$tmp/out$$n; git ls-files -z | xargs -0 tar -cf - | tar -xf - -C $$tmp/src$$n; \
	  (cd $$tmp/src$$n && GOFLAGS= GOCACHE=$$tmp/cache$$n CGO_ENABLED=0 $(GO) build $(RELEASE) -o $$tmp/out$$n/ $(PROGRAMS)); \
	done; \
	for f in $$tmp/out1/*; do cmp $$f $$tmp/out2/another/folder/$$(basename $$f); done; \
	$(GO) version; cd $$tmp/out1 && sha256sum *

clean: ## what build made
	rm -rf bin clients/js/dist clients/js/node_modules
