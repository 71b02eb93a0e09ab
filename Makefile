# The PostgreSQL extension, with PGXS: make && make install && make installcheck.
# CMake builds the engine (CMakeLists.txt); this file calls it for libxtree.a alone.
#
# demo, check, check-torture and bench install what they need, use a private server under build/,
# and must work before PostgreSQL is on the machine. So they are served first, without PGXS (whose
# own "check" only refuses).
SCRIPTED = demo demo-stop check check-torture bench clean

ifneq (,$(filter $(SCRIPTED),$(MAKECMDGOALS)))
.PHONY: $(SCRIPTED) $(filter-out $(SCRIPTED),$(MAKECMDGOALS))
.NOTPARALLEL:

demo:
	@test/demo/demo.sh
demo-stop:
	@test/demo/demo.sh stop
check:
	@test/lib/check.sh
check-torture:
	@test/torture/torture.sh
bench:
	@test/bench/bench.sh
clean:
	@test/lib/clean.sh
$(filter-out $(SCRIPTED),$(MAKECMDGOALS)):
	+@$(MAKE) --no-print-directory $@

else

EXTENSION = xtree
DATA = sql/xtree--1.0.sql
MODULE_big = xtree
PGFILEDESC = "xtree - X-tree index access method"
OBJS = \
	src/am/xtbuffers.o \
	src/am/xtbuild.o \
	src/am/xtcompare.o \
	src/am/xtcost.o \
	src/am/xtextent.o \
	src/am/xtfiles.o \
	src/am/xtfilter.o \
	src/am/xtfold.o \
	src/am/xtfuncs.o \
	src/am/xtgrace.o \
	src/am/xthandler.o \
	src/am/xthooks.o \
	src/am/xtinsert.o \
	src/am/xtopclass.o \
	src/am/xtopen.o \
	src/am/xtlost.o \
	src/am/xtorder.o \
	src/am/xtquery.o \
	src/am/xtregistry.o \
	src/am/xtreturn.o \
	src/am/xtrestore.o \
	src/am/xtrewind.o \
	src/am/xtscan.o \
	src/am/xtscrub.o \
	src/am/xtsort.o \
	src/am/xtstamp.o \
	src/am/xttimeline.o \
	src/am/xtvacuum.o \
	src/am/xtwal.o \
	src/am/xtworker.o

# installcheck runs in a server that preloads xtree.
REGRESS = $(sort $(patsubst sql/%.sql,%,$(filter-out sql/xtree--%.sql,$(wildcard sql/*.sql))))

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
ifeq (,$(PGXS))
$(error $(PG_CONFIG) was not found: install postgresql-server-dev-15, or set PG_CONFIG)
endif

# -isystem keeps -Wextra out of the server's headers. Unused parameters are what callbacks of a
# fixed signature have.
PG_CPPFLAGS = -Isrc/engine -isystem $(shell $(PG_CONFIG) --includedir-server)
PG_CFLAGS = -Wextra -Werror -Wno-unused-parameter

# The engine's symbols stay inside: another extension may carry other C++ of the same names.
ENGINE_DIR = build/engine
ENGINE = $(ENGINE_DIR)/libxtree.a
SHLIB_LINK = $(ENGINE) -luring -lstdc++ -lm -lpthread -Wl,--exclude-libs,ALL -Wl,-Bsymbolic

# Bitcode is for inlining functions into expressions; an access method has none, and it would make
# clang a build dependency.
override with_llvm := no

include $(PGXS)

CMAKE ?= cmake
CMAKE_GENERATOR_FLAG := $(if $(shell command -v ninja),-G Ninja)
BUILD_JOBS ?= $(shell nproc)

$(ENGINE_DIR)/CMakeCache.txt:
	$(CMAKE) $(CMAKE_GENERATOR_FLAG) -S . -B $(ENGINE_DIR) -DXTREE_TESTS=OFF

# CMake knows whether anything changed; the archive's own time tells make.
$(ENGINE): $(ENGINE_DIR)/CMakeCache.txt FORCE
	@$(CMAKE) --build $(ENGINE_DIR) --target xtree -j $(BUILD_JOBS)
FORCE:
.PHONY: FORCE

$(shlib): $(ENGINE)
$(OBJS): $(wildcard src/am/*.h) src/engine/capi.h

endif
