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

#include "access/xlogreader.h"

/*
 * For redo of a record: the record that follows `record` in the host's queue, NULL if it has not looked that
 * far. XLogReleasePreviousRecord takes a record out of the queue, its head, only when it has been replayed, and
 * nothing is decoded meanwhile, so the queue stands still while a record is replayed; what is in it has passed the
 * CRC. How far the host looks is its own affair: one record, with recovery_prefetch off or where no more WAL has come,
 * to some dozens; and it may find after all that recovery ends before a record that is in the queue. The same in
 * versions 15 to 18, where the queue was made for the host's own prefetching.
 */
static inline DecodedXLogRecord *
XtDecodedNext(DecodedXLogRecord *record)
{
	return record->next;
}

#endif							/* XTCOMPAT_H */
