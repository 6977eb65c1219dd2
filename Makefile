# `make` builds, `make help` lists the rest. Go and make are all that is needed, except where a line says otherwise.

GO       ?= go
PREFIX   ?= /usr/local
FUZZTIME ?= 30s
COUNT    ?= 1
# For every run of go test, such as TESTFLAGS=-v.
TESTFLAGS ?=

.DEFAULT_GOAL := build
MAKEFLAGS += --no-print-directory

programs    := $(patsubst cmd/%/main.go,%,$(wildcard cmd/pup-*/main.go))
version     := $(shell git describe --tags --match 'v[0-9]*' --dirty 2>/dev/null)
static      := CGO_ENABLED=0 $(GO) build -buildvcs=false -trimpath -tags=urfave_cli_no_docs,urfave_cli_no_suggest \
	-ldflags='-s -w $(if $(version),-X pup/cmd/internal/cmdline.Version=$(version))'
platforms   := linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 freebsd/amd64 freebsd/arm64 windows/amd64
# A hook is run with the means of Unix, so pup-route is not for Windows.
not_windows := pup-route
staticcheck := honnef.co/go/tools/cmd/staticcheck@v0.8.2
# The race detector needs a C compiler; go env knows whether there is one, so this is asked late.
race         = $(if $(filter 1,$(shell $(GO) env CGO_ENABLED)),-race)

.PHONY: all
all: build check ## build, then check

.PHONY: build
build: ## build the static programs into bin/
	$(if $(programs),$(static) -o bin/ $(programs:%=./cmd/%))

.PHONY: check
check: lint cross ## the quick checks, without installing anything: lint, cross, and the tests with the race detector
	$(GO) test $(race) $(TESTFLAGS) ./...

.PHONY: test
test: servers lint cross ## all checks, real servers included: installs those from Debian's packages (as root)
	PUP_SERVERS=required $(GO) test $(race) -count=1 -timeout=30m $(TESTFLAGS) ./...

.PHONY: servers
servers: ## install the servers and tools that the tests need, without starting any as a service
	scripts/install --all

.PHONY: lint
lint: ## gofmt, vet, staticcheck, tidiness of go.mod, and the syntax of the scripts
	@files=$$(gofmt -l cmd scripts); [ -z "$$files" ] || { echo "not as gofmt has it; gofmt -w" $$files; exit 1; }
	$(GO) vet ./...
	$(GO) run $(staticcheck) ./...
	$(GO) mod tidy -diff
	@skips=$$(grep -rnE '\.Skip(f|Now)?\(' --include='*_test.go' cmd scripts | grep -v '^cmd/internal/realserver/'); \
		[ -z "$$skips" ] || { echo "only realserver may skip a test:"; echo "$$skips"; exit 1; }
	@for script in $$(grep -rlE -m1 '^#!(/bin/sh|/usr/bin/env bash|/bin/bash)' .ci scripts); do \
		case $$(head -n 1 $$script) in *bash) bash -n $$script ;; *) sh -n $$script ;; esac || exit; done

.PHONY: cross
cross: ## build for every system and processor that we promise
	@for platform in $(platforms); do \
		case $$platform in windows/*) set -- $(filter-out $(not_windows),$(programs)) ;; *) set -- $(programs) ;; esac; \
		echo "build for $$platform: $$*"; \
		for program; do shift; set -- "$$@" ./cmd/$$program; done; \
		[ $$# = 0 ] || GOOS=$${platform%/*} GOARCH=$${platform#*/} $(static) -o /dev/null "$$@" || exit; \
	done

.PHONY: demo
demo: build ## the whole pipeline at work for a quarter of a minute: a service goes away and comes back
	scripts/demo

.PHONY: generate
generate: ## write again what is generated: docs, schemas, manual pages
	PUP_UPDATE=1 $(GO) test -count=1 -run '^TestGenerated' ./...

.PHONY: matrix
matrix: servers ## write docs/matrix.md again: every check against every real server
	PUP_UPDATE=1 PUP_SERVERS=required $(GO) test -count=1 -run '^TestMatrix$$' ./cmd/pup-probe/internal/checks

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME (30s)
	@for package in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz'); do \
			echo "$$package $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$package || exit; \
		done; \
	done

.PHONY: faults
faults: ## the tests of docs/faults.md and their controls: kills, power cuts, full disks, escapes. Minutes; some as root only
	$(GO) test -tags faults -count=1 -timeout=20m -run '^TestFault' $(TESTFLAGS) ./...

.PHONY: bench
bench: ## run the benchmarks COUNT times (1); compare with benchstat
	$(GO) test -run '^$$' -bench . -benchmem -count $(COUNT) ./...

.PHONY: cover
cover: ## how much of the code the tests run, into cover.out
	$(GO) test -coverpkg=./cmd/... -coverprofile=cover.out ./...
	$(GO) tool cover -func=cover.out | tail -n 1

.PHONY: install
install: build ## install programs and manual pages below PREFIX (/usr/local); DESTDIR is put in front
	install -d $(DESTDIR)$(PREFIX)/bin
	install $(programs:%=bin/%) $(DESTDIR)$(PREFIX)/bin
	@for page in docs/man/*.[157]; do \
		[ ! -e $$page ] || install -D -m 644 $$page $(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$${page##*/} || exit; \
	done

.PHONY: clean
clean: ## remove what was built
	rm -rf bin dist cover.out

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1	\2/p' Makefile | expand -t 12
