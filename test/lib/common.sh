# Shared by the scripts of demo, check, check-torture and bench. Source it from the checkout's top:
#   . test/lib/common.sh
#
# What is guaranteed to the user whose machine this is:
#   - Their servers are never contacted: every PG* variable is dropped, and the private servers
#     listen on Unix sockets in a directory of their own.
#   - Their PostgreSQL installation is never written to: PostgreSQL finds its files relative to its
#     own program, so a copy of the programs beside links to everything else is an installation,
#     and the extension is installed into that one.
# Servers refuse to run as root. Root therefore hands them to the user "postgres" (the package
# made it), and where that user cannot enter the checkout, the run area moves to /var/tmp with a
# link left at build/run.

set -eu
SRC=$(pwd)
[ -f "$SRC/src/engine/capi.h" ] || { echo "run this from the top of the checkout" >&2; exit 1; }
for variable in $(env | sed -n 's/^\(PG[A-Z_]*\)=.*/\1/p'); do
	[ "$variable" = PG_CONFIG ] || unset "$variable"
done
export LC_ALL=C TZ=UTC

PG_CONFIG=${PG_CONFIG:-/usr/lib/postgresql/15/bin/pg_config}
BUILD=$SRC/build
JOBS=${JOBS:-$(nproc)}
SERVER_USER=$(id -un)
[ "$(id -u)" != 0 ] || SERVER_USER=postgres

say() { printf '%s\n' "$*"; }
die() { printf '%s\n' "$*" >&2; exit 1; }

# Runs a command as the user that owns the servers.
as_server_user() {
	if [ "$(id -u)" = 0 ]; then
		(cd "$RUN" && runuser -u "$SERVER_USER" -- env HOME="$RUN" "$@")
	else
		(cd "$RUN" && "$@")
	fi
}

# Runs a command quietly into build/NAME.log, and shows the end of that when it fails.
quietly() {
	quiet_log=$BUILD/$1.log
	shift
	if ! "$@" >"$quiet_log" 2>&1; then
		tail -n 40 "$quiet_log" >&2
		say "failed: $* (all of it: $quiet_log)" >&2
		return 1
	fi
}

# Sets RUN: the directory of private installations and servers, owned by the server user.
prepare_run_area() {
	mkdir -p "$BUILD"
	RUN=$BUILD/run
	if [ "$(id -u)" = 0 ] && ! runuser -u "$SERVER_USER" -- test -x "$BUILD" 2>/dev/null; then
		if [ ! -d "$RUN/." ]; then
			rm -f "$RUN"
			ln -s "$(mktemp -d /var/tmp/xtree-run.XXXXXX)" "$RUN"
		fi
		RUN=$(readlink -f "$RUN")
	fi
	mkdir -p "$RUN"
	chmod 755 "$RUN"
	[ "$(id -u)" != 0 ] || chown "$SERVER_USER" "$RUN"
}

# Sockets get a short directory: their paths are limited to 107 bytes, a checkout's is not.
# Sets SOCKETS, and leaves it for later runs in RUN/NAME.sockets.
prepare_sockets() {
	SOCKETS=$(cat "$RUN/$1.sockets" 2>/dev/null || true)
	if [ -z "$SOCKETS" ] || [ ! -d "$SOCKETS" ]; then
		SOCKETS=$(mktemp -d /tmp/xtree.XXXXXX)
		chmod 755 "$SOCKETS"
		printf '%s\n' "$SOCKETS" >"$RUN/$1.sockets"
	fi
	[ "$(id -u)" != 0 ] || chown "$SERVER_USER" "$SOCKETS"
}

# Builds and installs the extension into RUN/pg, a relocated PostgreSQL. Sets BIN and PGXS_DIR.
prepare_postgres() {
	system_bin=$("$PG_CONFIG" --bindir)
	system_lib=$("$PG_CONFIG" --pkglibdir)
	system_share=$("$PG_CONFIG" --sharedir)
	BIN=$RUN/pg$system_bin
	PGXS_DIR=$system_lib/pgxs/src
	# A package upgrade since the last run makes another copy.
	if ! cmp -s "$system_bin/postgres" "$BIN/postgres"; then
		rm -rf "$RUN/pg"
		mkdir -p "$BIN" "$RUN/pg$system_lib" "$RUN/pg$system_share"
		cp -a "$system_bin/." "$BIN/"
		cp -as "$system_lib/." "$RUN/pg$system_lib/"
		cp -as "$system_share/." "$RUN/pg$system_share/"
	fi
	quietly make make --no-print-directory -j "$JOBS" PG_CONFIG="$PG_CONFIG" all || return 1
	quietly install make --no-print-directory PG_CONFIG="$PG_CONFIG" DESTDIR="$RUN/pg" install
}

# new_server NAME: an empty data directory RUN/NAME with the default settings and the library
# preloaded. start_server NAME and stop_server NAME [MODE] do what they say.
new_server() {
	stop_server "$1" immediate
	rm -rf "${RUN:?}/$1"
	as_server_user "$BIN/initdb" -D "$RUN/$1" -U postgres -A trust --encoding=UTF8 --locale=C \
		>"$BUILD/$1-initdb.log" 2>&1 || { cat "$BUILD/$1-initdb.log" >&2; return 1; }
	as_server_user sh -c "cat >>'$RUN/$1/postgresql.conf'" <<-CONF
		shared_preload_libraries = 'xtree'
		listen_addresses = ''
		unix_socket_directories = '$SOCKETS'
	CONF
}

start_server() {
	as_server_user "$BIN/pg_ctl" -D "$RUN/$1" -l "$RUN/$1.log" -w -t 120 start >/dev/null </dev/null ||
		{ tail -n 20 "$RUN/$1.log" >&2; return 1; }
}

stop_server() {
	[ -f "$RUN/$1/postmaster.pid" ] || return 0
	as_server_user "${BIN:-$RUN/pg$("$PG_CONFIG" --bindir)}/pg_ctl" -D "$RUN/$1" -w -m "${2:-fast}" stop \
		>/dev/null 2>&1 || true
}
