#!/bin/sh
# Sessions that insert into one index at the same time: rows a second by 1, 2, 4 and 8 of them, with an xtree
# index, a GiST index and none, and what they waited for. Prints a Markdown table, and leaves it in
# build/parallel.md.
#
# Each transaction inserts PARALLEL_BATCH random boxes and does not wait for its WAL. Of the server only
# the ratios in one run mean something; with more sessions than processors they share these.
#
#   PARALLEL_ROWS      default 1000000 boxes before the first insertion
#   PARALLEL_BATCH     default 100
#   PARALLEL_SECONDS   default 10 for each measurement
#   PARALLEL_SESSIONS  default "1 2 4 8"
#   PARALLEL_METHODS   default "none xtree gist"
cd "$(dirname "$0")/../.."
test/lib/setup.sh check
. test/lib/common.sh
ROWS=${PARALLEL_ROWS:-1000000}
BATCH=${PARALLEL_BATCH:-100}
SECONDS_EACH=${PARALLEL_SECONDS:-10}
SESSIONS=${PARALLEL_SESSIONS:-1 2 4 8}
METHODS=${PARALLEL_METHODS:-none xtree gist}

prepare_run_area
prepare_sockets parallel
prepare_postgres
new_server parallel
as_server_user sh -c "cat >>'$RUN/parallel/postgresql.conf'" <<CONF
shared_buffers = 1GB
maintenance_work_mem = 1GB
max_wal_size = 32GB
checkpoint_timeout = 1h
autovacuum = off
jit = off
synchronous_commit = off
xtree.max_log_size = 2GB
xtree.max_log_age = 0
xtree.recovery_target_time = 0
CONF
start_server parallel
trap 'stop_server parallel; rm -rf "$SOCKETS" "$RUN/parallel.sockets" "$RUN/parallel" "$SCRIPT"' EXIT
SCRIPT=$(mktemp /tmp/xtree.XXXXXX)

sql() { "$BIN/psql" -X -q -At -h "$SOCKETS" -p 5432 -U postgres -d postgres -v ON_ERROR_STOP=1 "$@"; }
note() { printf '%s %s\n' "$(date +%T)" "$*" >&2; }

random_box="box(point(x, y), point(x + 0.01, y + 0.01)) FROM (SELECT random() * 1000 AS x, random() * 1000 AS y FROM generate_series(1, "
echo "INSERT INTO boxes SELECT $random_box $BATCH)) AS places;" >"$SCRIPT"
waits="SELECT shared_inserts, exclusive_retries, lock_waits, latch_waits FROM xtree_stats('boxes_b')"

{
	echo "| index | sessions | rows a second | of one session's | beside others, % | retries in 1,000 | lock waits in 1,000 | latch waits in 1,000 |"
	echo '|---|---|---|---|---|---|---|---|'
} >"$BUILD/parallel.md"
for method in $METHODS; do
	note "$method"
	first=
	for sessions in $SESSIONS; do
		# A new one each time: a larger index costs more.
		sql -c 'DROP TABLE IF EXISTS boxes' -c 'CREATE EXTENSION IF NOT EXISTS xtree' -c 'CREATE TABLE boxes (b box)' \
			-c "INSERT INTO boxes SELECT $random_box $ROWS)) AS places" 2>/dev/null
		[ "$method" = none ] || sql -c "CREATE INDEX boxes_b ON boxes USING $method (b)"
		sql -c CHECKPOINT
		before='0|0|0|0'
		[ "$method" != xtree ] || before=$(sql -c "$waits")
		transactions=$("${PGBENCH:-$("$PG_CONFIG" --bindir)/pgbench}" -n -h "$SOCKETS" -p 5432 -U postgres -M prepared \
			-c "$sessions" -j "$sessions" -T "$SECONDS_EACH" -f "$SCRIPT" postgres 2>/dev/null |
			sed -n 's/^number of transactions actually processed: //p')
		after=$before
		[ "$method" != xtree ] || after=$(sql -c "$waits")
		first=${first:-$transactions}
		echo "$before|$after" | awk -F'|' -v method="$method" -v sessions="$sessions" -v transactions="$transactions" \
			-v batch="$BATCH" -v seconds="$SECONDS_EACH" -v first="$first" '{
				rows = transactions * batch
				printf "| %s | %d | %d | %.2f |", method, sessions, rows / seconds, transactions / first
				if (method == "xtree")
					printf " %.1f | %.2f | %.2f | %.2f |\n", 100 * ($5 - $1) / rows, 1000 * ($6 - $2) / rows,
						1000 * ($7 - $3) / rows, 1000 * ($8 - $4) / rows
				else
					print " | | | |"
			}' | tee -a "$BUILD/parallel.md" >&2
	done
done
cat "$BUILD/parallel.md"
