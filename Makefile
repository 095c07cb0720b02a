# Two commands do everything: make demo, make test. Both install the packages
# they need from the distribution (with sudo where you are not root).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build
.PHONY: build demo drills releases evidence test test-long unit system lint bench fuzz model sample format generate clean packages-demo packages-test

GO      ?= go
SUDO    := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
ROOT_PATH := /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:$(shell $(GO) env GOROOT)/bin
# Root gets what the tests and the Go tool need of the caller's environment, and no more.
FOR_ROOT := TRYSAIL_TESTS,TRYSAIL_DRILLS,TRYSAIL_RELEASES,TRYSAIL_CLIENTS,CGO_ENABLED,GOPROXY,GOSUMDB,GONOSUMDB,GOFLAGS,GOMODCACHE,HTTP_PROXY,HTTPS_PROXY,NO_PROXY,http_proxy,https_proxy,no_proxy
AS_ROOT := $(if $(SUDO),-exec '$(SUDO) --preserve-env=$(FOR_ROOT) env PATH=$(ROOT_PATH)')
# Static: the program is process 1 in roots that have no libraries.
BUILD   := CGO_ENABLED=0 $(GO) build -trimpath

GOFUMPT     := mvdan.cc/gofumpt@v0.12.0
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0

DEMO_PACKAGES := runc git ca-certificates xz-utils build-essential dpkg-dev autoconf automake libtool bison flex e2fsprogs
TEST_PACKAGES := $(DEMO_PACKAGES) uidmap acl subversion build-essential fakeroot strace curl openssl nodejs npm python3 openjdk-17-jdk-headless \
	autoconf automake libtool bison flex libonig-dev locales mmdebstrap dpkg-dev apt-utils docker-registry zstd age iproute2 procps \
	chromium fonts-liberation openssh-server softhsm2 opensc clamav

build:
	$(BUILD) -o bin/trysail ./cmd/trysail

packages-demo:
	@scripts/packages $(DEMO_PACKAGES)

packages-test:
	@scripts/packages $(TEST_PACKAGES)

# The main job on real programs: the machine that releases age is captured, made
# again from nothing and proved; then a release of jq is rehearsed while both of
# its build servers die.
demo: packages-demo build
	@scripts/rehearse-age bin/trysail
	@scripts/demo bin/trysail

# Every scenario of the library, on small programs, one after the other: 25 drills in
# some twelve minutes; then those on rebuilt servers and killed wherever they are; then
# all of them over SSH, in some twenty.
drills: packages-test build
	@scripts/drills bin/trysail
	@TRYSAIL_DRILLS=all scripts/test -timeout 30m $(AS_ROOT) -run 'TestDrill(Blank|KillSweep)' ./cmd/trysail
	@CGO_ENABLED=0 TRYSAIL_DRILLS=all scripts/test -tags drills -timeout 60m $(AS_ROOT) ./internal/site

# Real builds, each captured and then released while both of its build servers die.
releases: packages-test build
	@TRYSAIL_RELEASES=all scripts/test -timeout 60m $(AS_ROOT) -run TestReleases ./cmd/trysail

# A real release that loses a machine, and its evidence verified by everybody else's
# tools; those are built first, which takes some minutes.
evidence: packages-test build
	@scripts/clients bin/clients
	@$(SUDO) env PATH="$(ROOT_PATH)" scripts/evidence bin/trysail bin/clients

# Debian source packages that a seed chooses, each built, captured, rebuilt and compared.
SEED  ?= 1
COUNT ?= 20
sample: packages-test build
	@$(SUDO) env PATH="$(ROOT_PATH)" scripts/sample $(SEED) $(COUNT)

# Tests that measure memory, of which the race detector takes its own.
MEMORY := TakeMemory|WithLongNames|ListsFilesWithoutEnd

# All tests. What needs root runs as root; nothing is skipped.
# Other people's verifiers take eight minutes to build: with what the tests leave of the
# processor, and for the last of them.
test: packages-test build
	@mkdir -p bin/clients; env --default-signal=INT,QUIT chrt --idle 0 scripts/clients bin/clients >bin/clients/log 2>&1 &
	$(GO) vet ./...
	@scripts/test $(AS_ROOT) . ./blueprint ./runbook ./release ./fleet ./drill ./evidence ./internal/compare ./internal/secret # pure: nothing to race
	@scripts/test -run '$(MEMORY)' $(AS_ROOT) ./internal/agent ./internal/build ./internal/debian ./internal/rebuild
	@scripts/test -race -skip '$(MEMORY)' $(AS_ROOT) $$($(GO) list ./internal/... | grep -v -e /compare -e /secret -e /lab -e /site -e /exercise)
	@CGO_ENABLED=0 scripts/test $(AS_ROOT) ./internal/lab ./internal/site ./internal/exercise # process 1 of a machine is static, and so has no race detector
	@scripts/test -timeout 45m -parallel 2 $(AS_ROOT) -skip 'TestFleet' ./cmd/...
	@scripts/clients bin/clients || { cat bin/clients/log; exit 1; }
	@TRYSAIL_CLIENTS="$(CURDIR)/bin/clients/bin" scripts/test -timeout 15m -parallel 5 $(AS_ROOT) -run 'TestFleet' ./cmd/trysail # these wait, mostly, and lose leases beside compilers

# A small C build captured, rebuilt and proved on Debian 11, 12 and 13.
test-long: packages-test build
	@$(SUDO) env PATH="$(ROOT_PATH)" scripts/debians

lint:
	@unformatted=$$(find . -name "*.go" -not -path "./bin/*" | xargs $(GO) run $(GOFUMPT) -l); [ -z "$$unformatted" ] || { echo "not formatted (make format): $$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags drills,killpoint ./internal/site ./internal/machine
	$(GO) run $(STATICCHECK) ./...
	@scripts/govulncheck $(GO) run $(GOVULNCHECK) ./...
	$(GO) mod verify
	$(GO) mod tidy -diff

format:
	find . -name "*.go" -not -path "./bin/*" | xargs $(GO) run $(GOFUMPT) -w

# Speed as ratios against named peers, in one interleaved run; writes bench.json.
bench: packages-test build
	CGO_ENABLED=0 $(GO) build -o bin/bench ./cmd/bench
	$(SUDO) env PATH="$(ROOT_PATH)" bin/bench

# Each parser for a minute; in CI for seconds.
FUZZ ?= 60s
fuzz:
	@scripts/fuzz $(FUZZ)

# Histories of releases, played against the rules and against a model of them that was
# written from docs/runbook.md: 10,000 in CI; a million take some two hours of a core.
MODEL ?= 1000000
model:
	TRYSAIL_MODEL=$(MODEL) $(GO) test -count=1 -v -timeout 12h -run '^TestModel' ./release

# The tracer's kernel program; needs clang, llvm and libbpf-dev.
generate:
	$(GO) generate ./internal/trace

clean:
	rm -rf bin bench.json
