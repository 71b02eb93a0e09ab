#!/bin/bash
# make check-torture: the long tests, for TORTURE_MINUTES (default 30) and TORTURE_RECORDS (default
# 10,000,000) of the engine's stress test, TORTURE_INPUTS (default 20,000) mutated files. TORTURE_SEED repeats a run's choices. The last line is
# "N passed, N failed".
cd "$(dirname "$0")/../.."
test/lib/setup.sh check || { echo "0 passed, 1 failed"; exit 1; }
. test/lib/common.sh
. test/lib/suites.sh
set +e

passed=0
failed=0
prepare_run_area
CHECK=$BUILD/torture
rm -rf "$CHECK"
mkdir -p "$CHECK" "$BUILD/check" # The latter for the logs of what the suites build.
export TORTURE_MINUTES=${TORTURE_MINUTES:-30} TORTURE_SEED=${TORTURE_SEED:-$(date +%s)}
say "== seed $TORTURE_SEED"

suite_passed=0
suite_failed=0
say "== the engine's stress test with ${TORTURE_RECORDS:-10000000} records"
XTREE_STRESS_RECORDS=${TORTURE_RECORDS:-10000000} run_gtests stress "" stress_test
grep -v '^\[\|^$' "$CHECK/gtest-stress/stress_test.log" 2>/dev/null | sed 's/^/   /'
passed=$((passed + suite_passed))
failed=$((failed + suite_failed))

suite_passed=0
suite_failed=0
say "== 1,200 indexes with 100,800 segments in one process"
XTREE_SCALE_INDEXES=1200 run_gtests scale "" scale_test
grep '^  ' "$CHECK/gtest-scale/scale_test.log" 2>/dev/null | sed 's/^/ /'
passed=$((passed + suite_passed))
failed=$((failed + suite_failed))

suite_passed=0
suite_failed=0
say "== every byte flipped, ${TORTURE_INPUTS:-20000} mutated files for each reader"
XTREE_FUZZ_INPUTS=${TORTURE_INPUTS:-20000} XTREE_FUZZ_SEED=$TORTURE_SEED XTREE_FLIP_STRIDE=1 run_gtests fuzz "" fuzz_test
passed=$((passed + suite_passed))
failed=$((failed + suite_failed))

suite_passed=0
suite_failed=0
if prepare_postgres && prepare_sources; then
	say "== 1,200 indexes in one database"
	TAP_SECONDS=3600 XTREE_SCALE_PARTITIONS=1000 CHECK_TAP=test/t/029_many_indexes.pl run_tap
	grep '^# [^ ]' "$CHECK/tap/029_many_indexes.log" 2>/dev/null | sed 's/^# /   /'
	passed=$((passed + suite_passed))
	failed=$((failed + suite_failed))
	suite_passed=0
	suite_failed=0
	say "== 100 power cuts, 10,000 cycles of creating and dropping of each kind"
	TAP_SECONDS=7200 POWER_ROUNDS=100 LEAK_CYCLES=10000 \
		CHECK_TAP="test/t/015_power.pl test/t/018_leaks.pl" run_tap
	passed=$((passed + suite_passed))
	failed=$((failed + suite_failed))
	suite_passed=0
	suite_failed=0
	say "== kill loop for $TORTURE_MINUTES minutes"
	TAP_SECONDS=$((TORTURE_MINUTES * 60 + 900))
	CHECK_TAP=test/torture/kill_loop.pl run_tap
else
	suite_failed=1
fi
passed=$((passed + suite_passed))
failed=$((failed + suite_failed))

suite_passed=0
suite_failed=0
say "== long forms of TAP tests"
if [ -n "${PGXS_DIR:-}" ]; then
	TAP_SECONDS=3600 XTREE_IMAGES_ROUNDS=20 XTREE_CANCEL_ROWS=2000000 \
		CHECK_TAP="test/t/008_images.pl test/t/012_cancel.pl" run_tap
else
	suite_failed=1
fi
passed=$((passed + suite_passed))
failed=$((failed + suite_failed))
say "$passed passed, $failed failed"
[ $failed = 0 ]
