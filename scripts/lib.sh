# shellcheck shell=bash
# Sourced by the other scripts: where the repository is, a Go environment that does not depend on who calls, and the one
# line with which a check that is no Go test reports to scripts/testtable.

# A failure inside $(…) ends the script like any other.
shopt -s inherit_errexit

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
PATH="$PATH:/usr/local/go/bin"

# Flags and workspaces of the caller (-mod=vendor, -buildvcs=false, go.work …) must not change what a test or a program is. An empty
# GOFLAGS would fall back to the file of `go env -w`, so it says what is the default anyway.
# Everything but the race detector builds with -trimpath and without cgo, as a release is: so lint, vet, tests and programs
# of a platform share what was compiled.
export GOFLAGS='-mod=readonly -trimpath' GOWORK=off CGO_ENABLED=0

# What scripts/setup unpacks for programs that do not run as root: root's cache lets nobody else enter.
shared_dir=${XDG_CACHE_HOME:-$HOME/.cache}/hawser/lab
((EUID != 0)) || shared_dir=/var/cache/hawser

# SOAK=1 asks for long runs (make soak). Go tests ask internal/soak, which reads it too.
if [[ -n ${SOAK:-} ]]; then
	export FUZZTIME=${FUZZTIME:-10m} COUNT=${COUNT:-3}
else
	export FUZZTIME=${FUZZTIME:-5s} COUNT=${COUNT:-1}
fi

# check PASS|FAIL NAME [NOTE [ID]]: TABLE=1 prints an event for testtable, otherwise a line for a person. The texts are
# our own and hold neither quotes nor backslashes.
check() {
	local passed=false
	[[ $1 == PASS ]] && passed=true
	if [[ ${TABLE:-} == 1 ]]; then
		printf '{"Action":"check","Passed":%s,"Test":"%s","Note":"%s","ID":"%s"}\n' "$passed" "$2" "${3:-}" "${4:-}"
	else
		printf '%s  %-44s %s\n' "$1" "$2" "${3:-}"
	fi
	$passed
}

# attempt NAME COMMAND...: runs a command, keeps quiet while it succeeds, shows everything when it does not.
attempt() {
	local name=$1 begin=$SECONDS out
	shift
	if out=$("$@" 2>&1); then
		check PASS "$name" "$((SECONDS - begin)) s"
	else
		printf '%s\n' "$out"
		check FAIL "$name"
	fi
}

# tests_in FILE...: a pattern for the tests in these files, for go test -run.
tests_in() { sed -n 's/^func \(Test[A-Za-z0-9]*\)(.*/\1/p' "$@" | paste -sd '|' | sed 's/.*/^(&)$/'; }
