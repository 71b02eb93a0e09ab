#!/bin/sh
# make bench: xtree beside GiST, SP-GiST and BRIN on the same real rows in one run, then the engine
# alone. Prints Markdown tables of medians and ratios, and leaves them in build/bench.md.
#
#   XTREE_DATA     directory of the large files (test/data/README.md); default ../shared/data
#   BENCH_ROWS     at most so many rows of each file; default all
#   BENCH_RUNS     repetitions of each measurement; default 5
#   BENCH_MEMORY   maintenance_work_mem; default 256MB
#   BENCH_METHODS  default "gist spgist brin xtree"
cd "$(dirname "$0")/../.."
test/lib/setup.sh bench
. test/lib/common.sh
DATA=${XTREE_DATA:-$SRC/../shared/data}
ROWS=${BENCH_ROWS:-100000000}
RUNS=${BENCH_RUNS:-5}
METHODS=${BENCH_METHODS:-gist spgist brin xtree}

prepare_run_area
prepare_sockets bench
prepare_postgres
new_server bench
as_server_user sh -c "cat >>'$RUN/bench/postgresql.conf'" <<CONF
shared_buffers = 2GB
maintenance_work_mem = ${BENCH_MEMORY:-256MB}
max_wal_size = 16GB
checkpoint_timeout = 1h
autovacuum = off
jit = off
max_parallel_workers_per_gather = 0
max_parallel_maintenance_workers = 0
CONF
start_server bench
trap 'stop_server bench; rm -rf "$SOCKETS" "$RUN/bench.sockets" "$RUN/bench"' EXIT

sql() { "$BIN/psql" -X -q -h "$SOCKETS" -p 5432 -U postgres -d postgres -v ON_ERROR_STOP=1 "$@"; }
note() { printf '%s %s\n' "$(date +%T)" "$*" >&2; }

note "loading"
sql -f test/bench/load.sql
if [ -f "$DATA/boxes_shore_seg_world_h.csv.gz" ] && [ -f "$DATA/points_shore_europe.csv.gz" ]; then
	source="GSHHG shorelines: boxes of the whole world, points of Europe"
	gzip -dc "$DATA/boxes_shore_seg_world_h.csv.gz" | sql -c 'COPY raw_boxes FROM STDIN WITH (FORMAT csv)'
	gzip -dc "$DATA/points_shore_europe.csv.gz" | sql -c 'COPY raw_points FROM STDIN WITH (FORMAT csv)'
else
	source="bundled data enlarged tenfold by jittered copies: the large files were not found in $DATA"
	gzip -dc test/data/boxes_shore_seg_med.csv.gz | sql -c 'COPY raw_boxes FROM STDIN WITH (FORMAT csv)'
	gzip -dc test/data/points_cities.csv.gz | cut -d, -f2,3 | sql -c 'COPY raw_points FROM STDIN WITH (FORMAT csv)'
	sql -c 'CALL enlarge(10)'
fi
sql -v rows="$ROWS" -f test/bench/tables.sql

for method in $METHODS; do
	for key in box point; do
		# BRIN has no operator class for points.
		[ "$method-$key" != brin-point ] || continue
		note "$method, $key: build and queries"
		sql -c "CALL bench_build('$method', '$key', $RUNS)"
		[ $method != gist ] || sql -c "CALL make_windows('$key')"
		sql -c 'VACUUM ANALYZE boxes' -c 'VACUUM ANALYZE points'
		sql -c "CALL bench_queries('$method', '$key', $RUNS)" -c "DROP INDEX bench_index"
	done
done
# Inserts go to a copy of the first half of each table, in random order.
for method in none $METHODS; do
	for key in box point; do
		[ "$method-$key" != brin-point ] || continue
		note "$method, $key: inserts, vacuum"
		run=1
		while [ $run -le "$RUNS" ] && [ $run -le 3 ]; do
			for images in off on; do
				sql -c "ALTER SYSTEM SET full_page_writes = $images" -c 'SELECT pg_reload_conf()' -o /dev/null
				sql -c "CALL prepare_inserts('$method', '$key')" -c 'CHECKPOINT' -c 'SELECT pg_sleep(0.2)' -o /dev/null
				sql -c "CALL bench_inserts('$method', '$key', 'images $images')"
			done
			sql -c "DELETE FROM inserts WHERE id % 10 = 3" -c "CALL start_clock()" -c "VACUUM inserts" \
				-c "CALL stop_clock('$method', '$key', 'VACUUM after 10 % deletes, ms')"
			run=$((run + 1))
		done
	done
done

{
	say "Measured on $(date +%F): $(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1), $(nproc) cores;" \
		"PostgreSQL $("$PG_CONFIG" --version | cut -d' ' -f2), shared_buffers 2 GB," \
		"maintenance_work_mem ${BENCH_MEMORY:-256MB}."
	say "Data: $source. Medians of $RUNS runs (inserts and vacuum: at most 3); times include the whole statement."
	say
	sql -At -f test/bench/report.sql
} | tee "$BUILD/bench.md"
stop_server bench

note "the engine alone"
generator=
! command -v ninja >/dev/null || generator="-G Ninja"
# shellcheck disable=SC2086
quietly cmake-bench cmake $generator -S . -B "$BUILD/bench" -DXTREE_TESTS=OFF -DXTREE_BENCH=ON
quietly build-bench cmake --build "$BUILD/bench" -j "$JOBS"
{
	say
	say '```'
	XTREE_DATA="$DATA" "$BUILD/bench/engine_bench" --benchmark_repetitions=3 \
		--benchmark_report_aggregates_only=true 2>/dev/null
	XTREE_DATA="$DATA" "$BUILD/bench/dims_bench"
	BENCH_RUNS=$RUNS "$BUILD/bench/commit_bench"
	say '```'
} | tee -a "$BUILD/bench.md"
