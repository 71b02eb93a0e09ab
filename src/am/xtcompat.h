/*
 * xtcompat.h: differences between PostgreSQL versions, in one place, so that the rest reads as if
 * there were one. Version 15 is the one that is supported; the custom resource manager rules out
 * older ones.
 */
#ifndef XTCOMPAT_H
#define XTCOMPAT_H

#include "postgres.h"

#if PG_VERSION_NUM < 150000
#error "xtree needs PostgreSQL 15 or later: earlier ones have no custom WAL resource managers"
#endif
#if PG_VERSION_NUM >= 160000
#error "xtree has been verified with PostgreSQL 15 only"
#endif

#endif							/* XTCOMPAT_H */
