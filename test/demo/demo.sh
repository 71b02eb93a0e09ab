#!/bin/sh
# make demo: builds the extension, starts a private server with default settings, loads real data
# twice, indexes one copy with GiST and the other with xtree, and asks both the same questions.
# Leaves the server running to play with, and a picture of a tree in build/demo.svg.
# make demo-stop stops it.
cd "$(dirname "$0")/../.."
. test/lib/common.sh
started=$(date +%s)

if [ "${1:-}" = stop ]; then
	prepare_run_area
	stop_server demo
	say "the demo server is stopped; make demo starts a new one, make clean removes it"
	exit 0
fi

test/lib/setup.sh demo
prepare_run_area
prepare_sockets demo
say "Building the engine and the extension ..."
prepare_postgres
say "Starting a private PostgreSQL with default settings and shared_preload_libraries = 'xtree' ..."
new_server demo
start_server demo

sql() { "$BIN/psql" -X -q -h "$SOCKETS" -p 5432 -U postgres -d "${DATABASE:-demo}" -v ON_ERROR_STOP=1 "$@"; }
load() { gzip -dc "test/data/$1" | sql -c "COPY $2 FROM STDIN WITH ($3)"; }

DATABASE=postgres sql -c 'CREATE DATABASE demo'
say "Loading cities, shoreline boxes and country borders ..."
sql -f test/demo/load.sql
load points_cities.csv.gz raw_cities 'FORMAT csv'
load boxes_shore_seg_med.csv.gz raw_shore 'FORMAT csv'
load poly_world50m.tsv.gz raw_countries 'FORMAT text'
sql -f test/demo/index.sql
say
sql -f test/demo/queries.sql
sql -At -f test/demo/picture.sql >"$BUILD/demo.svg"

cat <<END

The tree's rectangles (leaves blue, their parents red) over the map of the world: build/demo.svg
Finished in $(($(date +%s) - started)) s. The server goes on running; play with it:
    $BIN/psql -h $SOCKETS -p 5432 -U postgres demo
Stop it with: make demo-stop
END
