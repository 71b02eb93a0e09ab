# The suites of make check; sourced by check.sh after common.sh. Each function runs one suite,
# leaves its logs in $CHECK, names what failed, and sets suite_passed and suite_failed.

# The programs with threads in them, and of their tests those of one thread that would take long, and those of
# tree_test that have any; ThreadSanitizer has nothing to say about the rest.
GTESTS_CONCURRENT="store_test tree_test segment_test io_test object_test stress_test scale_test"
TESTS_OF_ONE_THREAD="Modes/CrashTest.*:DropCrashTest.*:FaultTest.*:DurableCompact.*:DurableStore.*:Rewound.*:SegmentAllocator.*"
TREE_TESTS_CONCURRENT="*Concurren*:*Thread*:*Beside*:BulkLoader.*-BulkLoader.*Sorted*"

# gtest_arguments SUITE: name, sanitizer and programs (default: all) of a suite of gtests.
gtest_arguments() {
	case $1 in
		gtest) gtest=(plain "") ;;
		gtest-asan) gtest=(asan address) ;;
		gtest-tsan) gtest=(tsan thread "$GTESTS_CONCURRENT") ;;
	esac
}

# build_gtests NAME SANITIZER [PROGRAMS]: builds the engine's tests in $gtest_dir.
build_gtests() {
	local generator= targets=
	# A plain build shares the extension's own library.
	gtest_dir=$BUILD/test-$1
	[ -n "$2" ] || gtest_dir=$BUILD/engine
	command -v ninja >/dev/null && generator="-G Ninja"
	[ -z "${3:-}" ] || targets="--target $3"
	# shellcheck disable=SC2086
	quietly "check/cmake-$1" cmake $generator -S . -B "$gtest_dir" -DXTREE_TESTS=ON -DXTREE_SANITIZE="$2" &&
		quietly "check/build-$1" cmake --build "$gtest_dir" -j "$JOBS" $targets
}

# build_ahead: the gtests among the suites, one after the other, at the lowest priority, beside suites of which a
# third of the time is waiting for servers. What does not build says so when its suite's turn has come.
build_ahead() {
	local suite
	renice -n 19 -p $BASHPID >/dev/null
	for suite in $SUITES; do
		gtest=()
		gtest_arguments "$suite"
		[ ${#gtest[@]} = 0 ] || build_gtests "${gtest[@]}" >/dev/null 2>&1
	done
}

# In a process group of its own, which ends with this shell.
start_build_ahead() {
	set -m
	build_ahead &
	set +m
	ahead=$!
	trap 'kill -- -$ahead 2>/dev/null' EXIT
}

end_of_build_ahead() {
	[ -z "${ahead:-}" ] || wait "$ahead"
	ahead=
	trap - EXIT
}

# run_gtests NAME SANITIZER [PROGRAMS]: builds the engine's tests and runs them, each in GTEST_SHARDS parts, one
# more at a time than there are processors, since some wait for the disk. The largest, which take longest, come
# first. GTEST_SECONDS: at most so long.
run_gtests() {
	local log=$CHECK/gtest-$1 programs program
	local shards=${GTEST_SHARDS:-2} own_mounts= filter=${GTEST_FILTER-}
	local -a launcher=()
	mkdir -p "$log"
	if ! build_gtests "$@"; then
		suite_failed=1
		return
	fi
	# ThreadSanitizer of GCC 12 cannot map its shadow where newer kernels randomize by 32 bits.
	if [ "$2" = thread ] && setarch -R true 2>/dev/null; then launcher=(setarch -R); fi
	[ "$2" != thread ] || filter=${GTEST_FILTER--$TESTS_OF_ONE_THREAD}
	# Some tests of this one mount a small file system.
	if in_own_mounts true 2>/dev/null; then own_mounts="unshare -U -r -m"; fi
	programs=${3:-$(cd "$gtest_dir" && ctest -N 2>/dev/null | sed -n 's/^ *Test *#[0-9]*: //p')}
	# shellcheck disable=SC2086
	for program in ${programs:+$(cd "$gtest_dir" && ls -S $programs)}; do
		if [ "$shards" = 1 ]; then echo "$program"; else seq -f "$program.%.0f" 0 $((shards - 1)); fi
	done | (cd "$gtest_dir" && ASAN_OPTIONS=detect_stack_use_after_return=0 \
		TSAN_OPTIONS="halt_on_error=0 second_deadlock_stack=1" GTEST_TOTAL_SHARDS=$shards \
		TREE_FILTER="${3:+$TREE_TESTS_CONCURRENT}" FILTER="$filter" IO_MOUNTS="$own_mounts" \
		xargs -P $((JOBS + 1)) -I{} sh -c \
		'log=$1 seconds=$2 run={}; shift 2; [ "${run#*.}" = "$run" ] || export GTEST_SHARD_INDEX="${run#*.}"
		[ -n "${GTEST_SHARD_INDEX:-}" ] || unset GTEST_TOTAL_SHARDS
		[ -z "$FILTER" ] || export GTEST_FILTER="$FILTER"
		[ "${run%.*}" != tree_test ] || export GTEST_FILTER="${TREE_FILTER:-*}"
		[ "${run%.*}" = io_test ] || IO_MOUNTS=
		timeout "$seconds" "$@" $IO_MOUNTS "./${run%.*}" >"$log/$run.log" 2>&1; echo $? >"$log/$run.status"' \
		run "$log" "${GTEST_SECONDS:-900}" "${launcher[@]}")
	count_gtests "$log"
}

count_gtests() {
	local status name ok bad
	for status in "$1"/*.status; do
		[ -f "$status" ] || continue
		name=$(basename "$status" .status)
		ok=$(grep -c '^\[       OK \] ' "$1/$name.log")
		bad=$(grep -c '^\[  FAILED  \] .* ([0-9]* ms)$' "$1/$name.log")
		# A program that died, or whose sanitizer complained at the end, fails once more.
		if [ "$(cat "$status")" != 0 ] && [ "$bad" = 0 ]; then
			bad=1
			say "   $name: exit status $(cat "$status")"
			tail -n 25 "$1/$name.log" | sed 's/^/   | /'
		fi
		grep '^\[  FAILED  \] .* ([0-9]* ms)$' "$1/$name.log" | sed "s/^/   $name: /"
		grep -B 1 '^\[  SKIPPED \] .* ([0-9]* ms)$' "$1/$name.log" | sed "s/^/   $name: /"
		suite_passed=$((suite_passed + ok))
		suite_failed=$((suite_failed + bad))
	done
}

# The server user may not be able to read the checkout, so the suites run from a copy.
prepare_sources() {
	rm -rf "$RUN/src"
	mkdir -p "$RUN/src"
	tar -c --exclude=build sql expected test | tar -x -C "$RUN/src"
	chmod -R u+rwX,go+rX "$RUN/src"
	[ "$(id -u)" != 0 ] || chown -R "$SERVER_USER" "$RUN/src"
	printf "shared_preload_libraries = 'xtree'\nfsync = off\n" >"$RUN/preload.conf"
	chmod 644 "$RUN/preload.conf"
}

# run_pg_regress NAME PROGRAM INPUTS TESTS: in a server of its own, which PROGRAM makes and stops.
run_pg_regress() {
	local out=$RUN/$1 log=$CHECK/$1.log
	rm -rf "$out"
	as_server_user mkdir -p "$out"
	# shellcheck disable=SC2086
	as_server_user env PG_REGRESS_SOCK_DIR="$SOCKETS" "$PGXS_DIR/test/$2" \
		--inputdir="$3" --outputdir="$out" --bindir="$BIN" --temp-instance="$out/tmp" \
		--temp-config="$RUN/preload.conf" --encoding=UTF8 --no-locale --dbname="xtree_$1" \
		--port=$((61000 + $$ % 3000)) $4 >"$log" 2>&1 </dev/null
	local status=$?
	suite_passed=$(grep -cE '\.\.\. ok( |$)' "$log")
	suite_failed=$(grep -cE '\.\.\. (FAILED|failed)' "$log")
	[ $status = 0 ] || [ "$suite_failed" != 0 ] || suite_failed=1
	if [ "$suite_failed" != 0 ]; then
		grep -E '\.\.\. (FAILED|failed)' "$log" || tail -n 20 "$log"
		if [ -f "$out/regression.diffs" ]; then
			cp "$out/regression.diffs" "$CHECK/$1.diffs"
			head -n 60 "$CHECK/$1.diffs" | sed 's/^/   | /'
		fi
		cp "$out/log/postmaster.log" "$CHECK/$1-server.log" 2>/dev/null
	fi
}

run_regress() {
	local tests
	tests=$(cd sql && ls -- *.sql | grep -v '^xtree--' | sed 's/\.sql$//')
	[ -n "$tests" ] || return
	run_pg_regress regress regress/pg_regress "$RUN/src" "$tests"
}

run_isolation() {
	local tests
	tests=$(ls test/isolation/specs 2>/dev/null | sed -n 's/\.spec$//p')
	[ -n "$tests" ] || return
	run_pg_regress isolation isolation/pg_isolation_regress "$RUN/src/test/isolation" "$tests"
}

# Every assertion of the TAP tests counts. They run two at a time where there are two processors:
# most of their time is waiting for servers to start and stop.
run_tap() {
	local test name status bad
	mkdir -p "$CHECK/tap"
	rm -rf "$RUN/tap"
	as_server_user mkdir -p "$RUN/tap"
	chmod 777 "$CHECK/tap"
	export RUN BIN PGXS_DIR CHECK SERVER_USER TAP_SECONDS="${TAP_SECONDS:-600}"
	export -f as_server_user run_tap_file with_small_disk in_own_mounts
	# The later files take longest, so they start first.
	printf "%s\n" ${CHECK_TAP:-test/t/*.pl} | sort -r | xargs -P "$JOBS" -I{} bash -c 'run_tap_file {}'
	for test in ${CHECK_TAP:-test/t/*.pl}; do
		name=$(basename "$test" .pl)
		: >>"$CHECK/tap/$name.log" # Also of a test that was never begun, which has failed.
		status=$(cat "$CHECK/tap/$name.status" 2>/dev/null || echo 1)
		bad=$(grep -cE '^not ok [0-9]+' "$CHECK/tap/$name.log")
		suite_passed=$((suite_passed + $(grep -E '^ok [0-9]+' "$CHECK/tap/$name.log" | grep -vc '# skip')))
		sed -nE "s/^(ok [0-9]+ # skip|.* \.+ skipped:) /   $name skipped: /p" "$CHECK/tap/$name.log"
		if [ "$status" != 0 ]; then
			[ "$bad" != 0 ] || bad=1
			say "   $name failed:"
			# What failed, before what was noted on the way there.
			{ grep -E '^not ok' "$CHECK/tap/$name.log"
				grep -A 8 -E '^#   Failed test' "$CHECK/tap/$name.log" | grep '^#'
				grep -E '^(# Looks like|Bail|.*(died|timed out))' "$CHECK/tap/$name.log"
				tail -n 15 "$CHECK/tap/$name.log"; } | head -n 40 | sed 's/^/   | /'
			mkdir -p "$CHECK/tap/$name"
			cp "$RUN/tap/$name"/tmp_check/log/* "$CHECK/tap/$name/" 2>/dev/null
		fi
		suite_failed=$((suite_failed + bad))
		# The data directories of a test that failed stay until the next run.
		[ "$status" != 0 ] || rm -rf "$RUN/tap/$name"
	done
}

in_own_mounts() { [ "$(id -u)" != 0 ] && unshare -U -r -m "$@"; }

# with_small_disk DIRECTORY COMMAND...: runs it with a file system of 12 MB mounted at DIRECTORY, which
# SMALL_DISK then names; unmounted by the end of the mount namespace. Who is not root mounts it in a user namespace, and
# is within it, by another one, who they were, since servers refuse to run as root. Empty where neither is allowed.
with_small_disk() {
	local dir=$1
	shift
	if [ "$(id -u)" = 0 ] && mkdir -p "$dir" && unshare -m mount -t tmpfs tmpfs "$dir" 2>/dev/null; then
		SMALL_DISK=$dir unshare -m bash -c 'mount -t tmpfs -o "size=12m,mode=700,uid=$0" tmpfs "$SMALL_DISK"
			"$@"' "$(id -u "$SERVER_USER")" "$@"
	elif mkdir -p "$dir" && in_own_mounts sh -c "unshare -U true && mount -t tmpfs tmpfs '$dir'" 2>/dev/null; then
		SMALL_DISK=$dir in_own_mounts bash -c 'mount -t tmpfs -o size=12m,mode=700 tmpfs "$SMALL_DISK"
			exec unshare -U --map-user="$0" --map-group="$1" "${@:2}"' "$(id -u)" "$(id -g)" "$@"
	else
		SMALL_DISK='' "$@"
	fi
}

run_tap_file() {
	local name dir
	name=$(basename "$1" .pl)
	dir=$RUN/tap/$name
	as_server_user mkdir -p "$dir"
	if [ "$name" = 017_disk_full ] && [ -z "${SMALL_DISK+tried}" ]; then
		with_small_disk "$dir/small" bash -c 'run_tap_file "$1"' run_tap_file "$1"
		return
	fi
	as_server_user env TESTDIR="$dir" PATH="$BIN:$PATH" PG_REGRESS="$PGXS_DIR/test/regress/pg_regress" \
		PERL5LIB="$PGXS_DIR/test/perl:$RUN/src/test/t" PG_TEST_TIMEOUT_DEFAULT=300 \
		PG_TEST_PORT_DIR="$RUN/tap" \
		timeout "${TAP_SECONDS:-600}" prove -v "$RUN/src/$1" >"$CHECK/tap/$name.log" 2>&1 </dev/null
	echo $? >"$CHECK/tap/$name.status"
}
