#!/bin/bash
# make check-torture: the long tests, with other choices in each run. The last line is
# "N passed, N failed", the sum of all parts. Logs are in build/torture.
#
# TORTURE_PARTS picks parts (default: all):
#   stress     the engine's stress test, and 1,200 indexes with 100,800 segments in one process
#   threads    threads that insert, delete, read, fold and check one index, under ThreadSanitizer and without
#   crashes    the engine on the simulated disk: power cuts at every operation, series of them
#   flips      every byte of small indexes' data files and logs flipped
#   mutations  mutated files for each reader
#   fuzzers    libFuzzer for each reader (clang): its corpus, then as long as the length says
#   kill       kill loop of servers of several kinds
#   power      power cuts of a server
#   restores   recovery to points in time, backups in all orders, standbys, ghosts
#   leaks      cycles of creating and dropping
#   indexes    1,200 indexes in one database
#   long       long forms of other TAP tests
# TORTURE_LENGTH (default 1; 0.1 or 24 will do) multiplies the number of rounds of all of them; 1 takes some
# forty minutes of two idle processors. TORTURE_SEED repeats a run's choices. Some single numbers can be set, too: TORTURE_MINUTES
# (of the kill loop), TORTURE_RECORDS (of the stress test), TORTURE_OPERATIONS (of each thread, under the sanitizer;
# ten times as many without it), TORTURE_INPUTS (mutated files),
# TORTURE_FUZZ_SECONDS (of each fuzzer), LEAK_CYCLES (of each kind).
cd "$(dirname "$0")/../.."
TORTURE_PARTS=${TORTURE_PARTS:-stress threads crashes flips mutations fuzzers kill power restores leaks indexes long}
purpose=check
case " $TORTURE_PARTS " in *" fuzzers "*) purpose=torture ;; esac
test/lib/setup.sh $purpose || { echo "0 passed, 1 failed"; exit 1; }
. test/lib/common.sh
. test/lib/suites.sh
set +e # A failure is counted, and the next part runs.

started=$(date +%s)
passed=0
failed=0
length=${TORTURE_LENGTH:-1}
export TORTURE_SEED=${TORTURE_SEED:-$(($(date +%s) % 1000000 + 1))}
# So many at this length, but at least one.
scaled() { awk -v n="$1" -v length_="$length" 'BEGIN { n = int(n * length_); print n < 1 ? 1 : n }'; }
# One of so many at this length; an odd number, so that each place of a block gets its turn.
one_of() { awk -v n="$1" -v length_="$length" 'BEGIN { n = int(n / length_); print n < 1 ? 1 : n - !(n % 2) }'; }
GTEST_SECONDS=$(($(scaled 1800) + 1800))
export GTEST_SECONDS
prepare_run_area
CHECK=$BUILD/torture
rm -rf "$CHECK"
mkdir -p "$CHECK" "$BUILD/check" # The latter for the logs of what the suites build.
say "== length $length, seed $TORTURE_SEED"

begun=0
begin() {
	begun=$((begun + 1))
	suite_passed=0
	suite_failed=0
	part_started=$(date +%s)
	say "== $1"
}

end() {
	begun=$((begun - 1))
	[ $((suite_passed + suite_failed)) != 0 ] || { say "   no test ran"; suite_failed=1; }
	passed=$((passed + suite_passed))
	failed=$((failed + suite_failed))
	say "   $suite_passed passed, $suite_failed failed ($(($(date +%s) - part_started)) s)"
}

# What the tests of the engine have counted.
show_counts() { sed -n "s/^ *\(.*$1.*\)/   \1/p" "$CHECK"/gtest-"$2"/*.log 2>/dev/null; }

part_stress() {
	local records=${TORTURE_RECORDS:-$(scaled 5000000)}
	begin "the engine's stress test with $records records"
	XTREE_STRESS_RECORDS=$records GTEST_SHARDS=1 run_gtests stress "" stress_test
	grep -hv '^\[\|^$\|^Running\|^Note' "$CHECK"/gtest-stress/stress_test.log 2>/dev/null | sed 's/^/   /'
	end
	begin "1,200 indexes with 100,800 segments in one process"
	XTREE_SCALE_INDEXES=1200 GTEST_SHARDS=1 run_gtests scale "" scale_test
	grep -h '^  ' "$CHECK"/gtest-scale/scale_test.log 2>/dev/null | sed 's/^ */   /'
	end
}

part_threads() {
	local operations=${TORTURE_OPERATIONS:-$(scaled 4000)}
	begin "threads that write, under ThreadSanitizer, $operations insertions each"
	XTREE_PARALLEL_OPERATIONS=$operations GTEST_SHARDS=$JOBS \
		GTEST_FILTER='*ParallelInsertTest*:*SharedInsertionThreads*:*Concurrency*' run_gtests tsan thread store_test
	end
	begin "the same without it, $((operations * 10)) insertions each"
	XTREE_PARALLEL_OPERATIONS=$((operations * 10)) GTEST_SHARDS=$JOBS \
		GTEST_FILTER='*ParallelInsertTest*' run_gtests threads "" store_test
	end
}

part_crashes() {
	begin "power cuts at every operation of the engine"
	XTREE_CRASH_SEED=$TORTURE_SEED XTREE_CRASH_LENGTH=$(scaled 10) XTREE_PARALLEL_CRASHES=$(scaled 500) GTEST_SHARDS=$JOBS \
		GTEST_FILTER='*CrashTest*:CrashSeriesTest*:FaultTest*:DamageTest*:ParallelInsertCrash*' run_gtests crashes "" store_test
	show_counts 'crash points' crashes
	end
}

part_flips() {
	# Keys of 16 and 20 dimensions make larger files that are slower to read: a sample of their bytes.
	local every sample
	every=$(one_of 1)
	sample=$(one_of 7)
	begin "one of $every bytes of small indexes flipped"
	XTREE_FLIP_STRIDE=$every GTEST_SHARDS=$JOBS GTEST_FILTER='*FlipTest*/0:*FlipTest*/1:*FlipTest*/3:*FlipTest*/5' \
		run_gtests flips "" fuzz_test
	show_counts 'flips' flips
	end
	begin "one of $sample bytes of larger ones flipped"
	XTREE_FLIP_STRIDE=$sample GTEST_SHARDS=$JOBS GTEST_FILTER='*FlipTest*/2:*FlipTest*/4' \
		run_gtests flips-large "" fuzz_test
	show_counts 'flips' flips-large
	end
}

part_mutations() {
	local inputs=${TORTURE_INPUTS:-$(scaled 20000)}
	begin "$inputs mutated files for each reader"
	XTREE_FUZZ_INPUTS=$inputs XTREE_FUZZ_SEED=$TORTURE_SEED GTEST_SHARDS=$JOBS GTEST_FILTER='FuzzTest*' \
		run_gtests mutations "" fuzz_test
	end
}

# One fuzzer: the corpus, then new inputs. An input that fails is left in build/torture/fuzzers.
run_fuzzer() {
	local log=$CHECK/fuzzers/$1
	mkdir -p "$log.found"
	"$BUILD/test-fuzzers/fuzz_$1" -runs=0 "$CHECK/fuzzers/corpus" >"$log.corpus.log" 2>&1
	echo $? >"$log.corpus.status"
	"$BUILD/test-fuzzers/fuzz_$1" -max_total_time="$2" -max_len=1048576 -timeout=300 -rss_limit_mb=4096 \
		-seed="$TORTURE_SEED" -artifact_prefix="$log." -print_final_stats=1 "$log.found" \
		"$CHECK/fuzzers/corpus" >"$log.log" 2>&1
	echo $? >"$log.status"
}

part_fuzzers() {
	local seconds=${TORTURE_FUZZ_SECONDS:-$(scaled 90)} name step generator=
	begin "fuzzers, $seconds s each"
	mkdir -p "$CHECK/fuzzers/corpus"
	command -v ninja >/dev/null && generator="-G Ninja"
	# shellcheck disable=SC2086
	if ! { quietly check/cmake-fuzzers cmake $generator -S . -B "$BUILD/test-fuzzers" -DCMAKE_CXX_COMPILER=clang++ \
			-DXTREE_FUZZ=ON -DXTREE_SANITIZE=address &&
			quietly check/build-fuzzers cmake --build "$BUILD/test-fuzzers" -j "$JOBS" \
				--target fuzz_open fuzz_log fuzz_fsck fuzz_corpus &&
			"$BUILD/test-fuzzers/fuzz_corpus" "$CHECK/fuzzers/corpus"; }; then
		suite_failed=1
	else
		export BUILD CHECK TORTURE_SEED
		export -f run_fuzzer
		printf '%s\n' open log fsck | xargs -P "$JOBS" -I{} bash -c "run_fuzzer {} $seconds"
		for name in open log fsck; do
			for step in "$name.corpus" "$name"; do
				if [ "$(cat "$CHECK/fuzzers/$step.status")" = 0 ]; then
					suite_passed=$((suite_passed + 1))
				else
					suite_failed=$((suite_failed + 1))
					say "   fuzz_$step failed:"
					tail -n 25 "$CHECK/fuzzers/$step.log" | sed 's/^/   | /'
				fi
			done
			say "   fuzz_$name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$CHECK/fuzzers/$name.log") inputs"
		done
	fi
	end
}

# The TAP tests run together, two at a time where there are two processors: they mostly wait.
tap_tests() {
	case $1 in
		kill) echo test/torture/kill_loop.pl ;;
		power) echo test/t/015_power.pl test/t/034_power_standby.pl ;;
		restores) echo test/t/022_pitr.pl test/t/023_backup_order.pl test/t/024_standby_load.pl test/t/025_ghosts.pl ;;
		leaks) echo test/t/018_leaks.pl ;;
		indexes) echo test/t/029_many_indexes.pl ;;
		long) echo test/t/008_images.pl test/t/012_cancel.pl test/t/046_parallel.pl ;;
	esac
}

run_servers() {
	local name
	export TORTURE_MINUTES=${TORTURE_MINUTES:-$(scaled 12)} TORTURE_SERVERS=$(scaled 4)
	export POWER_ROUNDS=$(scaled 40) POWER_SEED=$TORTURE_SEED PITR_POINTS=$(scaled 12) PITR_SEED=$TORTURE_SEED
	export ORDER_ROUNDS=$(scaled 10) ORDER_SEED=$TORTURE_SEED STANDBY_ROUNDS=$(scaled 10) \
		STANDBY_SEED=$TORTURE_SEED GHOST_ROUNDS=$(scaled 20) GHOST_SEED=$TORTURE_SEED
	export LEAK_CYCLES=${LEAK_CYCLES:-$(scaled 10000)} XTREE_SCALE_PARTITIONS=1000
	export XTREE_IMAGES_ROUNDS=$(scaled 10) XTREE_CANCEL_ROWS=1000000 PARALLEL_ROUNDS=$(scaled 10)
	TAP_SECONDS=$((TORTURE_MINUTES * 60 + 1800 + $(scaled 3600)))
	begin "servers:$1"
	if prepare_postgres && prepare_sources; then
		CHECK_TAP=$1 run_tap
		for name in $1; do
			name=$(basename "$name" .pl)
			say "   $name: $(grep -cE '^ok [0-9]+' "$CHECK/tap/$name.log") passed$(sed -n \
				's/^Files=.*, *\([0-9]*\) wallclock secs.*/, \1 s/p' "$CHECK/tap/$name.log")"
			grep -hE '^# ([0-9]+ (rounds|acknowledged|segments)|seed|checkpoints|created|rebuilt|truncated|temporary)' \
				"$CHECK/tap/$name.log" | sed 's/^#/    /'
		done
	else
		suite_failed=1
	fi
	end
}

servers=
for part in $TORTURE_PARTS; do
	case $part in
		stress | threads | crashes | flips | mutations | fuzzers) "part_$part" ;;
		kill | power | restores | leaks | indexes | long) servers="$servers $(tap_tests "$part")" ;;
		*) say "there is no part $part"; failed=$((failed + 1)) ;;
	esac
done
[ -z "$servers" ] || run_servers "$servers"
# An error of bash in a part would end it, and what was not counted would not have failed.
[ "$begun" = 0 ] || { say "$begun parts did not run to their end"; failed=$((failed + begun)); }
say "== finished in $(($(date +%s) - started)) s; logs are in build/torture"
say "$passed passed, $failed failed"
[ $failed = 0 ]
