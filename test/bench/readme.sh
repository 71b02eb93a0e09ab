#!/bin/sh
# Puts the tables of the last `make bench` (build/bench.md) between the markers in README.md.
cd "$(dirname "$0")/../.." || exit 1
[ -s build/bench.md ] || { echo "run make bench first" >&2; exit 1; }
awk '
	/<!-- bench:begin -->/ { print; while ((getline line <"build/bench.md") > 0) print line; skip = 1 }
	/<!-- bench:end -->/ { skip = 0 }
	!skip { print }' README.md >build/README.new && cat build/README.new >README.md && rm build/README.new
