#!/bin/sh
# Installs what is missing, and only that, on Debian 12: setup.sh [check|demo|bench|torture].
# Nothing is installed, and no privilege asked for, where everything is there.
set -eu

purpose=${1:-demo}
missing=
need() { # need PACKAGE TEST...: the package is wanted unless the test succeeds
	package=$1
	shift
	"$@" >/dev/null 2>&1 || missing="$missing $package"
}
wanted=
want() { # want PACKAGE TEST...: a peer of the benchmarks, which go on without it
	package=$1
	shift
	"$@" >/dev/null 2>&1 || wanted="$wanted $package"
}

need g++ command -v g++
need cmake command -v cmake
need liburing-dev test -f /usr/include/liburing.h
need postgresql-15 test -x /usr/lib/postgresql/15/bin/postgres
need postgresql-server-dev-15 test -f /usr/include/postgresql/15/server/postgres.h
case $purpose in
	check | torture)
		need libgtest-dev test -f /usr/include/gtest/gtest.h
		need perl command -v prove
		need procps command -v ps
		need libipc-run-perl perl -MIPC::Run -e 1
		;;
	bench)
		need libbenchmark-dev test -f /usr/include/benchmark/benchmark.h
		need libboost-dev test -f /usr/include/boost/geometry.hpp
		want liblmdb-dev test -f /usr/include/lmdb.h
		want libsqlite3-dev test -f /usr/include/sqlite3.h
		;;
esac
if [ "$purpose" = torture ]; then
	need clang command -v clang++
	need libclang-rt-14-dev sh -c 'ls /usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.fuzzer-*.a'
fi
[ -n "$missing$wanted" ] || exit 0
if [ -z "$missing" ] && { ! command -v apt-get || { [ "$(id -u)" != 0 ] && ! command -v sudo; }; } >/dev/null; then
	echo "going on without:$wanted"
	exit 0
fi

echo "installing:$missing$wanted"
if ! command -v apt-get >/dev/null; then
	echo "this is not Debian; please install the equivalents of:$missing" >&2
	exit 1
fi
root=
if [ "$(id -u)" != 0 ]; then
	root="sudo -n"
	[ ! -t 0 ] || root=sudo
	if ! command -v sudo >/dev/null; then
		echo "without sudo, please have root install:$missing" >&2
		exit 1
	fi
fi

# The server package would create and start a cluster "main" on its first installation. A drop-in of
# its configuration says no, and is gone again afterwards.
drop_in=/etc/postgresql-common/createcluster.d/xtree-setup.conf
case $missing in
	*postgresql-15*)
		$root mkdir -p "${drop_in%/*}"
		echo "create_main_cluster = false" | $root tee "$drop_in" >/dev/null
		trap '$root rm -f "$drop_in"' EXIT
		;;
esac
apt() {
	$root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@" \
		</dev/null >/dev/null
}
# The lists may be stale or absent (a fresh image has none): only then is a second try worth it.
# Not the packages that are only wanted, if they cannot be had.
# shellcheck disable=SC2086
apt install -y --no-install-recommends $missing $wanted 2>/dev/null ||
	{ apt update && apt install -y --no-install-recommends $missing $wanted; } ||
	{ [ -n "$wanted" ] && echo "not installed:$wanted" && apt install -y --no-install-recommends $missing; } ||
	{ echo "could not install:$missing" >&2; exit 1; }
