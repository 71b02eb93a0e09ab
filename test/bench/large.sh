#!/bin/sh
# One index over very many points: xtree beside GiST, one after the other on the same rows, which are copies
# of the bundled cities displaced by a fraction of a degree. Prints a Markdown table, and leaves it in
# build/large.md.
#
#   LARGE_ROWS     default 10000000 (takes 1.5 GB of disk, and a quarter of an hour with GiST)
#   LARGE_METHODS  default "gist xtree"
cd "$(dirname "$0")/../.."
test/lib/setup.sh check
. test/lib/common.sh
ROWS=${LARGE_ROWS:-10000000}
METHODS=${LARGE_METHODS:-gist xtree}

prepare_run_area
prepare_sockets large
prepare_postgres
new_server large
as_server_user sh -c "cat >>'$RUN/large/postgresql.conf'" <<CONF
shared_buffers = 2GB
maintenance_work_mem = 1GB
max_wal_size = 16GB
checkpoint_timeout = 1h
autovacuum = off
jit = off
max_parallel_workers_per_gather = 0
max_parallel_maintenance_workers = 0
CONF
start_server large
trap 'stop_server large; rm -rf "$SOCKETS" "$RUN/large.sockets" "$RUN/large"' EXIT

sql() { "$BIN/psql" -X -q -At -h "$SOCKETS" -p 5432 -U postgres -d postgres -v ON_ERROR_STOP=1 "$@"; }
note() { printf '%s %s\n' "$(date +%T)" "$*" >&2; }
now() { date +%s.%N; }
since() { echo "$(now) $1" | awk '{ printf "%.2f", $1 - $2 }'; }
figure() { printf '%s|%s|%s\n' "$2" "$1" "$3" >>"$BUILD/large.txt"; note "$1: $2 $3"; }

note "loading $ROWS rows"
sql -v rows="$ROWS" -f test/bench/large.sql
gzip -dc test/data/points_cities.csv.gz | cut -d, -f2,3 | sql -c 'COPY raw FROM STDIN WITH (FORMAT csv)'
sql -c "CALL fill($ROWS)"
rm -f "$BUILD/large.txt"
for method in $METHODS; do
	sql -c 'SELECT count(p) FROM points' >/dev/null
	start=$(now)
	sql -c "CREATE INDEX points_p ON points USING $method (p)"
	figure "$method" "build, s" "$(since "$start")"
	figure "$method" "size, bytes a row" "$(sql -c "SELECT round(pg_relation_size('points_p')::numeric / $ROWS, 1)")"
	sql -c 'VACUUM ANALYZE points' -c CHECKPOINT
	for rows in 1 100 10000; do
		sql -c "SELECT time_windows($rows)" >/dev/null
		figure "$method" "window of about $rows, us" "$(sql -c "SELECT time_windows($rows)")"
	done
	sql -c 'SELECT time_nearest(10)' >/dev/null
	figure "$method" "nearest 10, us" "$(sql -c 'SELECT time_nearest(10)')"
	figure "$method" "insert of 100,000 random rows, us a row" "$(sql -c 'SELECT time_inserts(100000)')"
	sql -c CHECKPOINT
	sql -c 'SELECT time_inserts(100000)' >/dev/null
	as_server_user "$BIN/pg_ctl" -D "$RUN/large" -m immediate -w stop >/dev/null
	start=$(now)
	start_server large
	figure "$method" "recovery of these, s" "$(since "$start")"
	start=$(now)
	sql -c "SET enable_seqscan = off; SELECT count(*) FROM points WHERE p <@ box '((8,47),(8.001,47.001))'" >/dev/null
	figure "$method" "first query after it, s" "$(since "$start")"
	sql -c 'DELETE FROM points WHERE id % 50 = 7'
	start=$(now)
	sql -c 'VACUUM points'
	figure "$method" "VACUUM after 2 % deletes, s" "$(since "$start")"
	sql -c 'DROP INDEX points_p' -c "CALL restore($ROWS)"
done
awk -F'|' -v methods="$METHODS" '
	!($1 in seen) { seen[$1] = 1; order[++count] = $1 }
	{ value[$1, $2] = $3 }
	END {
		columns = split(methods, method, " ")
		printf "| measure |"; for (c = 1; c <= columns; c++) printf " %s |", method[c]
		printf "\n|---|"; for (c = 1; c <= columns; c++) printf "---|"
		for (i = 1; i <= count; i++) {
			printf "\n| %s |", order[i]; for (c = 1; c <= columns; c++) printf " %s |", value[order[i], method[c]]
		}
		print ""
	}' "$BUILD/large.txt" | tee "$BUILD/large.md"
