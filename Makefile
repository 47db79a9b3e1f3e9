# Two commands matter: `make demo` shows Hawser at work, `make test` says whether it works. The rest serves them.
# The work is done by scripts/, each of which says why it exists; here it only gets its name.

export PATH := $(PATH):/usr/local/go/bin

.DEFAULT_GOAL := help
.PHONY: help demo lab image qemu quick test build cross packages arm fuzz lint soak bench bench-quick clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | while IFS='	' read -r name text; do printf '  make %-11s %s\n' "$$name" "$$text"; done

# The demo is built and then run, not given to `go run`: that would not pass on the SIGTERM on which it cleans up.
demo: ## the whole path on this machine: server, gateway, simulated PLC, session (KEEP=1 leaves it running)
	scripts/setup demo
	scripts/build bin hawser-agent hawser hawser-server
	GOFLAGS=-mod=readonly GOWORK=off go build -o bin/demo ./scripts/demo
	bin/demo -bin bin $(if $(PORTS),-ports $(PORTS))

lab: ## a shell in a network of its own: servers, a site and its firewall, a technician (LABFLAGS='-relays 7'; docs/lab.md)
	scripts/setup test
	GOFLAGS=-mod=readonly GOWORK=off go run ./scripts/lab $(LABFLAGS)

image: ## an SD card image with the agent for BOARD=mcimx6ul-evk or arm64-virt (docs/image.md)
	scripts/setup image
	GOFLAGS=-mod=readonly GOWORK=off go run ./scripts/image $(if $(BOARD),-target $(BOARD))

qemu: ## the tests of that image on emulated boards
	scripts/setup test
	GOFLAGS=-mod=readonly GOWORK=off CGO_ENABLED=1 go test -race -count=1 -v -run '^TestBoard' ./internal/e2e/lab

quick: ## lint, unit tests and the whole system in fake time, within 3 minutes: no boards, firewalls, Wine, packages or race detector
	scripts/quick

test: ## lint, tests with the race detector, FUZZTIME=5s for each fuzz target, cross builds, tests on ARM, and the table of what was shown
	scripts/test

build: ## hawser-agent, hawser and hawser-server into bin/
	scripts/setup demo
	scripts/build bin hawser-agent hawser hawser-server

cross: ## every program for every platform into bin/cross/, and the agent's size
	scripts/setup demo
	scripts/cross

packages: ## deb, rpm, apk, ipk and the zip for Windows into bin/packages/, with SPDX lists and checksums (PACKAGEFLAGS='-only …')
	scripts/setup packages
	scripts/cross
	rm -rf bin/zip && scripts/windows-zip bin/zip
	GOFLAGS=-mod=readonly GOWORK=off go run ./scripts/package -add bin/zip $(PACKAGEFLAGS)

arm: ## the tests of what the agent is made of on 386, and those that a processor can change on ARMv7, arm64 and MIPS (emulated)
	scripts/setup test
	scripts/arm

fuzz: ## FUZZTIME=5s for each fuzz target
	scripts/setup demo
	scripts/fuzz

lint: ## gofmt, go vet, staticcheck, go mod tidy
	scripts/setup demo
	scripts/lint

soak: ## test with long runs of the tests of chance (10,000 cases, not 300), each test three times, FUZZTIME=10m: a night or two
	SOAK=1 scripts/test

bench: ## Hawser beside frp, chisel and ssh, within about an hour: tables, bin/bench.json (BENCHFLAGS='-peers DIR'; docs/performance.md)
	scripts/setup demo
	scripts/build bin hawser-agent hawser hawser-server
	GOOS=linux GOARCH=arm GOARM=7 scripts/build bin/arm hawser-agent
	GOFLAGS=-mod=readonly GOWORK=off go build -o bin/bench ./scripts/bench
	bin/bench run -bin bin $(BENCHFLAGS)

bench-quick: ## what is counted and not timed, within 3 minutes: allocations, calls of the kernel, bytes copied
	scripts/setup demo
	scripts/build bin hawser-agent hawser hawser-server
	GOFLAGS=-mod=readonly GOWORK=off go build -o bin/bench ./scripts/bench
	bin/bench quick -bin bin -json bin/bench-quick.json $(BENCHFLAGS)

clean: ## remove bin/
	rm -rf bin
