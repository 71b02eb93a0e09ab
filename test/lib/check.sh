#!/bin/bash
# make check: every suite, on a machine that may have nothing yet. The last line is
# "N passed, N failed"; the exit status is 0 only when nothing failed and every suite ran.
#
# CHECK_SUITES picks suites by name (default: all):
#   gtest gtest-asan gtest-tsan regress isolation tap
# CHECK_TAP picks files of the last one (default: test/t/*.pl).
cd "$(dirname "$0")/../.."
test/lib/setup.sh check || { echo "0 passed, 1 failed"; exit 1; }
. test/lib/common.sh
. test/lib/suites.sh
set +e # A failure is counted, and the next suite runs.

SUITES=${CHECK_SUITES:-gtest regress isolation tap gtest-asan gtest-tsan}
started=$(date +%s)
passed=0
failed=0
suites_left=$(echo "$SUITES" | wc -w)
prepare_run_area
CHECK=$BUILD/check
rm -rf "$CHECK"
mkdir -p "$CHECK"

# The build comes first and alone: if it fails, each suite has failed.
server_ready=no
case " $SUITES " in
	*" regress "* | *" isolation "* | *" tap "*)
		say "== building the extension"
		if prepare_sockets check && prepare_postgres && prepare_sources; then server_ready=yes; fi
		;;
esac

for suite in $SUITES; do
	say "== $suite"
	suite_started=$(date +%s)
	suite_passed=0
	suite_failed=0
	case $suite in
		gtest | gtest-asan | gtest-tsan)
			end_of_build_ahead
			gtest_arguments "$suite"
			run_gtests "${gtest[@]}"
			;;
		regress | isolation) if [ $server_ready = yes ]; then "run_$suite"; else suite_failed=1; fi ;;
		tap)
			start_build_ahead
			if [ $server_ready = yes ]; then run_tap; else suite_failed=1; fi
			;;
		*) say "there is no suite $suite"; suite_failed=1 ;;
	esac
	if [ $((suite_passed + suite_failed)) = 0 ]; then
		say "   no test ran"
		suite_failed=1
	fi
	passed=$((passed + suite_passed))
	failed=$((failed + suite_failed))
	say "   $suite: $suite_passed passed, $suite_failed failed ($(($(date +%s) - suite_started)) s)"
	suites_left=$((suites_left - 1))
done
end_of_build_ahead
# An error of bash in a suite would end the loop, and what was not counted would not have failed.
[ "$suites_left" = 0 ] || { say "$suites_left suites did not run to their end"; failed=$((failed + suites_left)); }

[ ! -s "${SOCKETS_FILE:=$RUN/check.sockets}" ] || { rm -rf "$(cat "$SOCKETS_FILE")"; rm -f "$SOCKETS_FILE"; }
say "== finished in $(($(date +%s) - started)) s; logs are in build/check"
say "$passed passed, $failed failed"
[ $failed = 0 ]
