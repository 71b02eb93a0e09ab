#!/bin/sh
# How long a single insertion may have to wait while an index of about 1 GB is made durable: by a fold of an
# xtree index, and beside it by a checkpoint of the host with a GiST index. Prints a Markdown table, and leaves
# it in build/stall.md.
#
# One session inserts rows at a fixed rate, each in a transaction of its own, without waiting for the WAL. Its
# latencies count from when a row was due, so that a stall counts for all rows that it holds up.
#
#   STALL_ROWS     default 24000000 boxes (takes 6 GB of disk)
#   STALL_DIRTY    default 300000 random rows, which touch most leaves, before the fold
#   STALL_RATE     default 2000 rows a second
#   STALL_SECONDS  default 30 for each measurement
#   STALL_METHODS  default "xtree gist"
cd "$(dirname "$0")/../.."
test/lib/setup.sh check
. test/lib/common.sh
. test/bench/lib.sh
ROWS=${STALL_ROWS:-24000000}
DIRTY=${STALL_DIRTY:-300000}
RATE=${STALL_RATE:-2000}
SECONDS_EACH=${STALL_SECONDS:-30}
METHODS=${STALL_METHODS:-xtree gist}

bench_server stall 'maintenance_work_mem = 2GB' 'max_wal_size = 32GB' 'synchronous_commit = off' \
	'xtree.max_log_size = 2GB' 'xtree.max_log_age = 0' 'xtree.recovery_target_time = 0'
LATENCIES=$SCRATCH
set_age() { sql -c "ALTER SYSTEM SET xtree.max_log_age = '$1'" -c 'SELECT pg_reload_conf()' >/dev/null; }

cat >"$LATENCIES/insert.sql" <<'SQL'
\set x random(0, 1000000)
\set y random(0, 1000000)
INSERT INTO boxes VALUES (box(point(:x / 1000.0, :y / 1000.0), point(:x / 1000.0 + 0.01, :y / 1000.0 + 0.01)));
SQL

# Inserts for a while, and prints a row of the table.
insert_rows() {
	rm -f "$LATENCIES"/log*
	"${PGBENCH:-$("$PG_CONFIG" --bindir)/pgbench}" -n -h "$SOCKETS" -p 5432 -U postgres -M prepared -c 1 -R "$RATE" -T "$SECONDS_EACH" \
		-l --log-prefix="$LATENCIES/log" -f "$LATENCIES/insert.sql" postgres >/dev/null 2>&1
	cat "$LATENCIES"/log.* | awk '{ print $3 }' | sort -n | awk -v what="$1" '
		{ us[NR] = $1 }
		function at(share) { i = int(NR * share); return us[i < 1 ? 1 : i] / 1000 }
		END { printf "| %s | %d | %.2f | %.2f | %.2f | %.2f |\n", what, NR, at(0.5), at(0.99), at(0.999), us[NR] / 1000 }
	' | tee -a "$BUILD/stall.md" >&2
}

{ echo '| insertions, latencies in ms | rows | p50 | p99 | p99.9 | longest |'; echo '|---|---|---|---|---|---|'; } >"$BUILD/stall.md"
note "loading $ROWS rows"
sql -c 'CREATE EXTENSION xtree' -c 'CREATE TABLE boxes (b box)'
random_box="box(point(x, y), point(x + 0.01, y + 0.01)) FROM (SELECT random() * 1000 AS x, random() * 1000 AS y FROM generate_series(1, "
sql -c "INSERT INTO boxes SELECT $random_box $ROWS)) AS places"
for method in $METHODS; do
	note "building with $method"
	sql -c "CREATE INDEX boxes_b ON boxes USING $method (b)" -c CHECKPOINT
	note "size $(sql -c "SELECT pg_size_pretty(pg_relation_size('boxes_b'))")"
	insert_rows "$method, nothing else"
	sql -c "INSERT INTO boxes SELECT $random_box $DIRTY)) AS places"
	if [ "$method" = xtree ]; then
		# The worker folds, as it would by itself; once.
		before=$(sql -c "SELECT checkpoints FROM xtree_stats('boxes_b')")
		set_age 1s
		(sleep 4; set_age 0) &
		insert_rows "$method, beside a fold"
		wait $!
		while [ "$(sql -c "SELECT checkpoints FROM xtree_stats('boxes_b')")" = "$before" ]; do
			insert_rows "$method, beside the same fold"
		done
	else
		(sleep 2; sql -c CHECKPOINT) &
		insert_rows "$method, beside a checkpoint"
		wait $!
	fi
	sql -c 'DROP INDEX boxes_b'
done
cat "$BUILD/stall.md"
