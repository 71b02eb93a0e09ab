#!/bin/sh
# Stops the private servers and removes everything that building, testing and the demo made.
set -eu
cd "$(dirname "$0")/../.."
if [ -d build/run/. ]; then
	run=$(readlink -f build/run)
	for pid_file in "$run"/*/postmaster.pid; do
		[ -f "$pid_file" ] || continue
		pid=$(head -n 1 "$pid_file")
		# The id counts only while it still names a server of that directory.
		if [ "$(readlink -f "/proc/$pid/cwd" 2>/dev/null)" = "${pid_file%/*}" ]; then
			kill -QUIT "$pid"
			while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
		fi
	done
	for sockets in "$run"/*.sockets; do
		[ ! -f "$sockets" ] || rm -rf "$(cat "$sockets")"
	done
	rm -rf "$run"
fi
rm -rf build
find src/am -name '*.o' -delete
rm -f xtree.so regression.out regression.diffs
rm -rf results output_iso tmp_check
