#!/bin/sh
# make bench: xtree beside GiST, SP-GiST and BRIN on the same real rows in one run, then the engine alone. Prints
# Markdown tables of medians and ratios, and leaves them in build/bench.md (readme.sh puts them into README.md).
#
#   BENCH_PARTS    default all:
#     queries      builds, sizes, windows, counts, nearest, joins, polygons
#     connections  first query of a connection, memory of 100
#     inserts      bulk, one a transaction, two sessions; WAL; VACUUM
#     recovery     after a crash with 300,000 inserts
#     plans        what the planner chooses, beside the best plan
#     engine       in memory and durable: boost, SQLite, LMDB, many dimensions
#   XTREE_DATA     directory of the large files (test/data/README.md); default ../shared/data
#   BENCH_ROWS     at most so many rows of each file; default all
#   BENCH_RUNS     repetitions of each measurement; default 3. With 1 the whole takes about 20 minutes.
#   BENCH_METHODS  default "gist spgist brin xtree"
#   BENCH_MEMORY   maintenance_work_mem; default as in bench.conf, which has all settings
cd "$(dirname "$0")/../.."
test/lib/setup.sh bench
. test/lib/common.sh
. test/bench/lib.sh
DATA=${XTREE_DATA:-$SRC/../shared/data}
ROWS=${BENCH_ROWS:-100000000}
RUNS=${BENCH_RUNS:-3}
METHODS=${BENCH_METHODS:-gist spgist brin xtree}
PARTS=${BENCH_PARTS:-queries connections inserts recovery plans engine}
MEMORY=${BENCH_MEMORY:-$(sed -n 's/^maintenance_work_mem = //p' test/bench/bench.conf)}

load_tables() {
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
	gzip -dc test/data/poly_world50m.tsv.gz | sql -c 'COPY countries FROM STDIN'
	sql -v rows="$ROWS" -f test/bench/tables.sql
	for file in queries inserts plans; do sql -f "test/bench/$file.sql"; done
}

# BRIN has operator classes for boxes alone.
indexes() { [ "$1" != brin ] || [ "$2" = box ]; }

part_queries() {
	sql -c 'CALL make_areas()'
	for key in box point polygon; do
		note "$key: windows, and their rows by TID"
		sql -c "CALL make_windows('$key')"
		for method in $METHODS; do
			indexes "$method" "$key" || continue
			note "$method, $key: build and queries"
			sql -c "CALL bench_build('$method', '$key', $RUNS)" -c VACUUM
			sql -c "CALL bench_queries('$method', '$key', $RUNS)"
			sql -c 'DROP INDEX bench_index'
		done
		sql -c "CALL bench_queries('floor', '$key', $RUNS)"
	done
}

# first_query METHOD STATEMENT: the median of the first query of 100 connections.
first_query() {
	echo "$2" >"$SCRATCH/first.sql"
	rm -f "$SCRATCH"/first.[0-9]*
	"$BIN/pgbench" -n -h "$SOCKETS" -p 5432 -U postgres -C -t 100 -l --log-prefix="$SCRATCH/first" -f "$SCRATCH/first.sql" \
		postgres >/dev/null 2>&1
	sql -c "CALL result('$key', 'first query of a connection, us', '$1',
		$(cat "$SCRATCH"/first.[0-9]* | awk '{ print $3 }' | sort -n | awk '{ us[NR] = $1 } END { print us[int((NR + 1) / 2)] }'))"
}

# What 100 connections that have all asked the same queries take, in MB: shared pages are divided among those who
# map them.
connections_memory() {
	cat >"$SCRATCH/memory.sql" <<-SQL
		SELECT sum(found) FROM windows, LATERAL (SELECT count(id) AS found FROM boxes_$1 WHERE key && win) AS f
			WHERE kind = 'box' AND size = 100;
		\sleep 60 s
	SQL
	"$BIN/pgbench" -n -h "$SOCKETS" -p 5432 -U postgres -c 100 -j 1 -t 1 -f "$SCRATCH/memory.sql" postgres >/dev/null 2>&1 &
	pgbench=$!
	until [ "$(sql -c "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench' AND state = 'idle'
		AND query LIKE '%LATERAL%'")" = 100 ]; do sleep 0.5; done
	for pid in $(sql -c "SELECT pid FROM pg_stat_activity WHERE application_name = 'pgbench'"); do
		as_server_user cat "/proc/$pid/smaps_rollup"
	done | awk '/^Pss:/ { pss += $2 } /^Private_(Clean|Dirty):/ { private += $2 } END { print pss / 1024, private / 1024 }' \
		>"$SCRATCH/memory"
	{ kill "$pgbench"; wait "$pgbench"; } 2>/dev/null || true
	read -r pss private <"$SCRATCH/memory"
	sql -c "CALL result('$key', 'memory of 100 connections, MB', '$1', $pss)" \
		-c "CALL result('$key', 'memory of 100 connections, private, MB', '$1', $private)"
}

part_connections() {
	key=box
	[ "$(sql -c "SELECT count(*) FROM windows WHERE kind = 'box'")" != 0 ] || sql -c "CALL make_windows('box')"
	win=$(sql -c "SELECT win FROM windows WHERE kind = 'box' AND size = 100 LIMIT 1")
	tids=$(sql -c "SELECT tids FROM windows WHERE kind = 'box' AND size = 100 LIMIT 1")
	methods=
	for method in $METHODS; do
		[ "$method" != brin ] || continue
		note "$method: connections"
		methods="$methods $method"
		sql -c "CREATE TABLE boxes_$method AS TABLE boxes" -c "CREATE INDEX ON boxes_$method USING $method (key)" \
			-c "VACUUM ANALYZE boxes_$method"
	done
	# In turn: what else the machine does changes from minute to minute. Two rounds more than others, since one is short.
	run=-1
	while [ "$run" -le "$RUNS" ]; do
		for method in $methods; do
			first_query "$method" "SELECT count(id) FROM boxes_$method WHERE key && box '$win'"
		done
		first_query floor "SELECT count(id) FROM boxes WHERE ctid = ANY ('$tids')"
		run=$((run + 1))
	done
	for method in $methods; do
		connections_memory "$method"
		sql -c "DROP TABLE boxes_$method"
	done
}

# The statement's time, and how long the index itself took: from the message about the marker, which is always
# done at once, to the one about the index, in the server's log. Removal and cleanup have one each.
bench_vacuum() {
	sql -c 'DELETE FROM inserts WHERE id % 10 = 3' -c CHECKPOINT
	lines=$(wc -l <"$RUN/$SERVER.log")
	start=$(now)
	sql -c 'SET log_min_messages = debug2' -c 'VACUUM (PARALLEL 0) inserts'
	sql -c "CALL result('$2', 'VACUUM after 10 % deletes, ms', '$1', 1000 * $(since "$start"))"
	[ "$1" != none ] || return 0
	tail -n "+$((lines + 1))" "$RUN/$SERVER.log" | awk '
		/index "inserts_(marker|index)"/ && /scanned index|now contains/ {
			split($2, t, ":"); ms = 1000 * (3600 * t[1] + 60 * t[2] + t[3])
			if (/inserts_index/ && before != "") total += ms - before
			before = ms
		} END { print total + 0 }' >"$SCRATCH/vacuum"
	sql -c "CALL result('$2', 'VACUUM, index phase, ms', '$1', $(cat "$SCRATCH/vacuum"))"
}

# One session, then two at once, each with a batch of its own.
bench_sessions() {
	for batches in "batch4" "batch5 batch6"; do
		{ echo 'BEGIN; SELECT pg_advisory_lock(1) \g /dev/null'; sleep 1; } | sql &
		pids=$!
		sleep 0.5
		for batch in $batches; do
			sql -c "CALL session_inserts('$batch')" &
			pids="$pids $!"
		done
		# shellcheck disable=SC2086
		wait $pids
	done
	sql -c "CALL bench_sessions('$1', '$2')"
}

part_inserts() {
	for key in box point; do
		for batch in 0 1 2 3 4 5 6; do sql -c "CALL prepare_batch('batch$batch', '$key', $batch, 1)"; done
		for method in none $METHODS; do
			indexes "$method" "$key" || continue
			note "$method, $key: inserts, VACUUM"
			run=1
			while [ "$run" -le "$RUNS" ]; do
				set_system 'full_page_writes = off'
				sql -c "CALL prepare_inserts('$method', '$key')" -c CHECKPOINT
				sql -c "CALL bench_inserts('$method', '$key', 'batch0', 'no page images')"
				set_system 'full_page_writes = on'
				for batch in 1 2 3; do
					sql -c CHECKPOINT -c "CALL bench_inserts('$method', '$key', 'batch$batch', 'a checkpoint every batch')"
				done
				sql -c "CALL bench_commits('$method', '$key', 'batch0')"
				bench_sessions "$method" "$key"
				bench_vacuum "$method" "$key"
				run=$((run + 1))
			done
		done
	done
}

part_recovery() {
	for key in box point; do
		sql -c "CALL prepare_batch('batch0', '$key', 0, 3)"
		for method in none $METHODS; do
			{ [ "$method" != spgist ] && [ "$method" != brin ]; } || continue
			note "$method, $key: recovery"
			run=1
			while [ "$run" -le "$RUNS" ]; do
				sql -c "CALL prepare_inserts('$method', '$key')" -c CHECKPOINT
				sql -c 'INSERT INTO inserts SELECT * FROM batch0'
				crash_server
				start=$(now)
				start_server "$SERVER"
				total=$(since "$start")
				redo_seconds >"$SCRATCH/redo"
				read -r cpu elapsed <"$SCRATCH/redo"
				sql -c "CALL result('$key', 'recovery of three batches of inserts, CPU s', '$method', $cpu)" \
					-c "CALL result('$key', 'recovery, elapsed s', '$method', $elapsed)" \
					-c "CALL result('$key', 'recovery, whole start of the server, s', '$method', $total)" \
					-c "CALL prepare_batch('batch0', '$key', 0, 3)" # Unlogged: the crash has emptied it.
				run=$((run + 1))
			done
		done
	done
}

part_plans() {
	for key in box point; do
		note "plans, $key"
		relation=$(sql -c "SELECT relation FROM kinds WHERE kind = '$key'")
		sql -c "CREATE INDEX bench_index ON $relation USING xtree (key)" -c "VACUUM ANALYZE $relation" \
			-c "CALL make_plan_windows('$key')" -c "CALL bench_plans('xtree', '$key')" -c 'DROP INDEX bench_index'
	done
}

report_plans() {
	say
	say "What the planner chooses with an xtree index, beside the best plan that it makes when kept from some ($(sql -c "
		SELECT format('%s of %s queries within 1.5 times, the worst %s times', count(*) FILTER (WHERE chosen_ms <= 1.5 * best_ms),
			count(*), round(max(chosen_ms / best_ms)::numeric, 2)) FROM plans"))."
	[ "$(sql -c 'SELECT count(*) FROM plans WHERE chosen_ms > 1.5 * best_ms')" != 0 ] || return 0
	say
	say '| key | rows in the window | query | chosen | ms | best | ms | ratio |'
	say '|---|---|---|---|---|---|---|---|'
	sql -c "SELECT format('| %s | %s | %s | %s | %s | %s | %s | %s |', kind, size, shape, chosen, round(chosen_ms::numeric, 3),
		best, round(best_ms::numeric, 3), round((chosen_ms / best_ms)::numeric, 2))
		FROM plans WHERE chosen_ms > 1.5 * best_ms ORDER BY kind, shape, size"
}

part_engine() {
	note "the engine alone"
	generator=
	! command -v ninja >/dev/null || generator="-G Ninja"
	# shellcheck disable=SC2086
	quietly cmake-bench cmake $generator -S . -B "$BUILD/bench" -DXTREE_TESTS=OFF -DXTREE_BENCH=ON
	quietly build-bench cmake --build "$BUILD/bench" -j "$JOBS"
	{
		for program in peer_bench dims_bench commit_bench parallel_bench; do
			say
			XTREE_DATA="$DATA" BENCH_RUNS=$RUNS "$BUILD/bench/$program"
		done
	} | tee -a "$BUILD/bench.md"
}

mkdir -p "$BUILD"
say "\`BENCH_RUNS=$RUNS BENCH_PARTS=\"$PARTS\" make bench\`, $(date +%F): $(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo |
	head -n 1), $(nproc) cores; PostgreSQL $("$PG_CONFIG" --version | cut -d' ' -f2), shared_buffers 2 GB," \
	"maintenance_work_mem $MEMORY." >"$BUILD/bench.md"
if [ "$PARTS" != engine ]; then
	bench_server bench "maintenance_work_mem = $MEMORY"
	load_tables
	say "Data: $source. Medians of $RUNS runs; times include the whole statement." >>"$BUILD/bench.md"
	for part in queries connections inserts recovery plans; do
		! has "$PARTS" $part || part_$part
	done
	{
		say
		sql -F'|' -c 'SELECT kind, measure, method, value FROM results ORDER BY position' |
			awk -F'|' -v methods="$METHODS" -f test/bench/report.awk
		! has "$PARTS" plans || report_plans
	} >>"$BUILD/bench.md"
	bench_server_end
	trap - EXIT
	cat "$BUILD/bench.md"
fi
! has "$PARTS" engine || part_engine
