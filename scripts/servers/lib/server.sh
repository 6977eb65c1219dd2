# shellcheck shell=bash
# What the scripts in the folder above share. Each of them starts real servers for tests:
#
#	#!/usr/bin/env bash
#	# packages: redis-server redis-tools      what scripts/install asks Debian for
#	# programs: redis-server redis-cli        what must be there
#	# unpacks: exim4-daemon-light             what it only unpacks, below /usr/local/lib/pup (few need this)
#	. "${BASH_SOURCE[0]%/*}/lib/server.sh"
#
#	free_port port
#	start redis redis-server --port "$port" --dir "$dir"
#	wait_until redis redis-cli -p "$port" ping
#	say redis "127.0.0.1:$port"
#	serve
#
# Usage of such a script: scripts/servers/NAME [DIR]. All state lies below DIR; without DIR in a temporary
# folder that is removed at the end. It prints key=value lines, NAME_pid for every process, and `ready` when
# all of them answer. It lives until its stdin ends, or until TERM, INT or HUP, and then ends all that it
# started, as it does when anything fails. Exit status: 0, 1 a server did not start, 69 a program is missing.

set -eEu -o pipefail
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"

server=${0##*/}
declare -A pid=()

# say KEY VALUE tells the test something.
say() { printf '%s=%s\n' "$1" "$2"; }

# fail WORD... gives up; the end of every log follows.
fail() {
	printf '%s: %s\n' "$server" "$*" >&2
	exit 1
}

# start NAME COMMAND... runs one server; what it prints goes to NAME.log. The kernel ends it if this shell is
# killed, and it leads a session of its own so that its children can be found.
start() {
	local name=$1
	shift
	setsid setpriv --pdeathsig TERM -- "$@" </dev/null >"$dir/$name.log" 2>&1 3<&- &
	pid[$name]=$!
	say "${name}_pid" "${pid[$name]}"
}

# wait_until NAME COMMAND... tries COMMAND until it succeeds: ten seconds at most, and not after the death of NAME.
wait_until() {
	local name=$1 i
	shift
	for ((i = 0; i < 200; i++)); do
		"$@" >/dev/null 2>&1 && return
		kill -0 "${pid[$name]}" 2>/dev/null || fail "$name has ended"
		kill -0 "$watch" 2>/dev/null || exit 0
		sleep 0.05
	done
	fail "$name does not answer to: $*"
}

# free_port VARIABLE... sets each to a port that nobody uses, for TCP or UDP. Scripts that run at the same time
# look in different places, by process id, below the range that the system gives to clients.
free_port() {
	local variable
	for variable; do
		while
			printf -v "$variable" '%d' "$((20000 + (next_port++ % 12000)))"
			grep -qis ":$(printf '%04x' "${!variable}") " /proc/net/tcp /proc/net/tcp6 /proc/net/udp /proc/net/udp6
		do :; done
	done
}
next_port=$(($$ * 32))

# serve says that all is ready and waits for the end.
serve() {
	echo ready
	wait "$watch"
	exit 0
}

# finish ends everything: politely, and after five seconds by force.
finish() {
	local status=$? i running
	set +e
	trap - EXIT
	trap '' TERM INT HUP
	if [ "$status" != 0 ]; then
		tail -n 20 "$dir"/*.log >&2 2>/dev/null || true
	fi
	exec 2>/dev/null
	running=$(jobs -p)
	for i in $running; do
		kill -TERM "$i" && kill -CONT "$i"
	done
	for ((i = 0; i < 100; i++)); do
		[ -n "$(jobs -pr)" ] || break
		sleep 0.05
	done
	for i in $running; do
		kill -KILL -- "-$i"
	done
	wait
	[ -z "$temporary" ] || rm -rf "$dir"
	exit "$status"
}

missing=
for program in $(sed -n 's/^# programs: *//p' "$0") setsid setpriv; do
	command -v "$program" >/dev/null || missing="$missing $program"
done
if [ -n "$missing" ]; then
	echo "$server: not installed:$missing; to install what it needs: scripts/install $server" >&2
	exit 69
fi

temporary=
if [ $# = 0 ]; then
	dir=$(mktemp -d /tmp/pup.XXXXXX)
	temporary=yes
else
	mkdir -p "$1"
	dir=$(cd "$1" && pwd)
fi
trap 'echo "$server: failed: $BASH_COMMAND" >&2' ERR
trap finish EXIT
trap 'exit 0' TERM INT HUP
exec 3<&0
setsid setpriv --pdeathsig TERM -- cat <&3 >/dev/null &
watch=$!
say dir "$dir"
