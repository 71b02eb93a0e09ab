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

need g++ command -v g++
need cmake command -v cmake
need liburing-dev test -f /usr/include/liburing.h
need postgresql-15 test -x /usr/lib/postgresql/15/bin/postgres
need postgresql-server-dev-15 test -f /usr/include/postgresql/15/server/postgres.h
case $purpose in
	check)
		need libgtest-dev test -f /usr/include/gtest/gtest.h
		need perl command -v prove
		need libipc-run-perl perl -MIPC::Run -e 1
		;;
	torture)
		need perl command -v prove
		need libipc-run-perl perl -MIPC::Run -e 1
		;;
	bench)
		need libbenchmark-dev test -f /usr/include/benchmark/benchmark.h
		need libboost-dev test -f /usr/include/boost/geometry.hpp
		;;
esac
[ -n "$missing" ] || exit 0

echo "installing:$missing"
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
# shellcheck disable=SC2086
apt install -y --no-install-recommends $missing 2>/dev/null ||
	{ apt update && apt install -y --no-install-recommends $missing; } ||
	{ echo "could not install:$missing" >&2; exit 1; }
