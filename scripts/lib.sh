# shellcheck shell=bash
# Sourced by the other scripts: where the repository is, a Go environment that does not depend on who calls, and the one
# line with which a check that is no Go test reports to scripts/testtable.

# A failure inside $(…) ends the script like any other.
shopt -s inherit_errexit

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
PATH="$PATH:/usr/local/go/bin"

# Flags and workspaces of the caller (-mod=vendor, -buildvcs=false, go.work …) must not change what a test or a program is. An empty
# GOFLAGS would fall back to the file of `go env -w`, so it says what is the default anyway.
export GOFLAGS=-mod=readonly GOWORK=off

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
