#!/bin/sh
# One index over very many points: xtree beside GiST, one after the other on the same rows, which are copies
# of the bundled cities displaced by a fraction of a degree. Prints a Markdown table, and leaves it in
# build/large.md.
#
#   LARGE_ROWS     default 10000000 (takes 1.5 GB of disk, and a quarter of an hour with GiST)
#   LARGE_METHODS  default "gist xtree"
#   LARGE_MEMORY   maintenance_work_mem; default 1GB. The other settings are those of bench.sh (bench.conf).
cd "$(dirname "$0")/../.."
test/lib/setup.sh check
. test/lib/common.sh
. test/bench/lib.sh
ROWS=${LARGE_ROWS:-10000000}
METHODS=${LARGE_METHODS:-gist xtree}
bench_server large "maintenance_work_mem = ${LARGE_MEMORY:-1GB}"

figure() { printf 'point|%s|%s|%s\n' "$2" "$1" "$3" >>"$BUILD/large.txt"; note "$1: $2 $3"; }

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
	crash_server
	start=$(now)
	start_server large
	figure "$method" "recovery of these: start of the server, s" "$(since "$start")"
	figure "$method" "recovery of these: CPU, s" "$(redo_seconds | cut -d' ' -f1)"
	start=$(now)
	sql -c "SET enable_seqscan = off; SELECT count(*) FROM points WHERE p <@ box '((8,47),(8.001,47.001))'" >/dev/null
	figure "$method" "first query after it, s" "$(since "$start")"
	sql -c 'CREATE TABLE gone AS SELECT * FROM points WHERE id % 50 = 7' -c 'DELETE FROM points WHERE id % 50 = 7'
	start=$(now)
	sql -c 'VACUUM points'
	figure "$method" "VACUUM after 2 % deletes, s" "$(since "$start")"
	# As before, for the next method: what was deleted takes the gaps that it left.
	sql -c 'DROP INDEX points_p' -c 'DELETE FROM points WHERE id = 0' -c 'VACUUM points' \
		-c 'INSERT INTO points SELECT * FROM gone' -c 'DROP TABLE gone'
done
awk -F'|' -v methods="$METHODS" -f test/bench/report.awk "$BUILD/large.txt" | tee "$BUILD/large.md"
