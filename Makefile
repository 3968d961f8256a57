# `make help` lists the targets. Nothing is needed but Go, git and make.

FUZZTIME ?= 10s
SCRIPTS ?= .*
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null)
BUILD    = CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)'
# With /go.mod or /VERSION/go.mod and the name of a tool it prints the path of that tool,
# which it builds if Go's build cache has none. Most of the packages are ours, too: with
# the same flags they are compiled once.
TOOL     = CGO_ENABLED=0 GOFLAGS='-trimpath -buildvcs=false' go tool -n -modfile=tools
# Built the way that releases are, linters find their compiled packages in the cache.
LINT     = CGO_ENABLED=0 GOFLAGS=-trimpath
# All packages but the sessions, which run alone: their scripts look at the time.
UNITS    = $$(go list ./... | grep -v '/e2e$$')

.PHONY: help build cross snapshot demo picture test test-versions check bench fuzz lint tools

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1	\2/p' Makefile

build: ## build ./step-revoke-plugin
	$(BUILD) -o step-revoke-plugin$(shell go env GOEXE) .

cross: ## check that every released system and architecture builds
	@set -e; for platform in linux/arm64 linux/arm darwin/arm64 windows/amd64 freebsd/amd64; do \
		echo "building for $$platform"; \
		GOOS=$${platform%/*} GOARCH=$${platform#*/} GOARM=7 $(BUILD) -o /dev/null .; \
	done

snapshot: tools ## make the packages of the last commit for linux/amd64, twice, and check them
	@STEP="$$($(TOOL)/go.mod step)" tools/snapshot.sh "$$($(TOOL)/goreleaser/go.mod goreleaser)"

demo: build tools ## revoke certificates of a throwaway CA, as a transcript
	@tools/demo.sh ./step-revoke-plugin "$$($(TOOL)/go.mod step)" "$$($(TOOL)/go.mod step-ca)"

picture: build tools ## make docs/session.svg of a real session; CHECK=1 only compares it
	@tools/picture.sh $(if $(CHECK),--check) ./step-revoke-plugin "$$($(TOOL)/go.mod step)" "$$($(TOOL)/go.mod step-ca)"

test: tools ## run all tests; TESTFLAGS adds flags of go test
	@race=; if CGO_ENABLED=1 go build -race runtime/cgo 2>/dev/null; then race=-race; fi; \
		set -ex; go test $$race -count 1 $(TESTFLAGS) $(UNITS); \
		go test -C e2e -count 1 -timeout 30m $(TESTFLAGS)

test-versions: ## run the sessions with older versions of step and step-ca; SCRIPTS names some of them
	@set -e; for tool in 'v0.28.7/go.mod step' 'v0.28.4/go.mod step-ca' 'v0.26.1/go.mod step-ca'; do \
		echo "building tools/$$tool, unless it is cached"; $(TOOL)/$$tool >/dev/null; \
	done; \
	for version in v0.28.4 v0.26.1; do \
		echo "step-ca $$version"; \
		STEP=v0.28.7 STEP_CA=$$version go test -C e2e -count 1 -timeout 30m -run '^TestScripts$$/^($(SCRIPTS))$$' $(TESTFLAGS); \
	done

check: lint ## the linters and the tests that need no CA, within a minute
	go test $(UNITS)

bench: tools ## measure against step itself
	go test -C e2e -tags bench -run "^TestBench" -parallel 1 -v -count 1

fuzz: ## run each fuzz target for FUZZTIME, 10s unless given
	tools/fuzz.sh $(FUZZTIME)

lint: ## gofmt, go mod tidy, go vet, staticcheck
	@out=$$(gofmt -d .) && test -z "$$out" || { echo "$$out"; exit 1; }
	go mod tidy -diff
	$(LINT) go vet -tags bench ./...
	$(LINT) go tool -modfile=tools/lint/go.mod staticcheck -tags bench ./...

tools: # takes minutes the first time
	@set -e; for tool in 'go.mod step' 'go.mod step-ca' 'v0.28.4/go.mod step-ca'; do \
		echo "building tools/$$tool, unless it is cached"; $(TOOL)/$$tool >/dev/null; \
	done
