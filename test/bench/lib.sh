# shellcheck shell=sh
# Shared by the scripts here, which source it after test/lib/common.sh.

note() { printf '%s %s\n' "$(date +%T)" "$*" >&2; }
sql() { "$BIN/psql" -X -q -At -h "$SOCKETS" -p 5432 -U postgres -d postgres -v ON_ERROR_STOP=1 "$@"; }
has() { case " $1 " in *" $2 "*) return 0 ;; *) return 1 ;; esac; }
now() { date +%s.%N; }
since() { echo "$(now) $1" | awk '{ printf "%.3f", $1 - $2 }'; }
set_system() { sql -c "ALTER SYSTEM SET $1" -c 'SELECT pg_reload_conf()' -c 'SELECT pg_sleep(0.2)' >/dev/null; }

# bench_server NAME [SETTING...]: builds, installs, and starts an empty private server with bench.conf and then
# the settings. It is gone when the script ends.
bench_server() {
	SERVER=$1
	shift
	prepare_run_area
	prepare_sockets "$SERVER"
	prepare_postgres
	new_server "$SERVER"
	{ cat "$SRC/test/bench/bench.conf"; [ $# = 0 ] || printf '%s\n' "$@"; } |
		as_server_user sh -c "cat >>'$RUN/$SERVER/postgresql.conf'"
	: >"$RUN/$SERVER.log"
	[ "$(id -u)" != 0 ] || chown "$SERVER_USER" "$RUN/$SERVER.log"
	SCRATCH=$(mktemp -d /tmp/xtree.XXXXXX)
	start_server "$SERVER"
	trap bench_server_end EXIT
}

bench_server_end() {
	stop_server "$SERVER"
	rm -rf "$SOCKETS" "$SCRATCH" "$RUN/$SERVER.sockets" "${RUN:?}/$SERVER"
}

crash_server() {
	as_server_user "$BIN/pg_ctl" -D "$RUN/$SERVER" -m immediate -w stop >/dev/null
}

# Of the last recovery, as the server logs it: "CPU-SECONDS ELAPSED-SECONDS".
redo_seconds() {
	awk '/redo done at/ { gsub(",", ""); for (i = 1; i < NF; i++) {
		if ($i == "user:") user = $(i + 1); if ($i == "system:") sys = $(i + 1); if ($i == "elapsed:") wall = $(i + 1) } }
		END { printf "%.2f %.2f\n", user + sys, wall }' "$RUN/$SERVER.log"
}
