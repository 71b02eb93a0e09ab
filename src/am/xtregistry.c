/*
 * xtregistry.c: which indexes this server has in shared memory.
 *
 * A hash table in a DSA maps (tablespace, database, relfilenode, backend) to an XtShared. The DSA
 * begins in main shared memory, since the postmaster cannot use dynamic segments, and grows without a
 * fixed limit. The key is never an OID of a relation, because files come and go without it (REINDEX),
 * and redo knows no OIDs.
 *
 * Lifetime: an XtShared is reference counted. The hash table's reference goes when the file is found
 * to be gone; a process's reference when it drops its handle. Whoever releases the last one frees it,
 * so a stale pointer cannot exist, and a late release only delays the reuse of memory.
 */
#include "xtregistry.h"

#include <sys/stat.h>
#include <unistd.h>

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/memutils.h"

/* Part of the DSA in main shared memory: the hash table and a few hundred small indexes. */
#define XT_DSA_BYTES		(1024 * 1024)
/* More chunks than an index can have: arrays times levels. */
#define XT_CHUNKS_MAX		256
/* A sweep after this many new entries. */
#define XT_SWEEP_INTERVAL	256

typedef struct XtRegistryEntry
{
	XtRelKey	key;
	dsa_pointer shared;			/* InvalidDsaPointer while being made */
} XtRegistryEntry;

XtRegistry *xt_registry = NULL;

/* This process's attachment; made at first use. */
static void *epoch_shared = NULL;
static dsa_area *area = NULL;
static dshash_table *hash = NULL;
static XtRuntime *runtime = NULL;

static dshash_parameters hash_params = {
	sizeof(XtRelKey),
	sizeof(XtRegistryEntry),
	dshash_memcmp,
	dshash_memhash,
	0							/* tranche_id: set at startup */
};

/* Readers: every PGPROC that can run, auxiliary processes (startup) included. */
static uint32
epoch_slots(void)
{
	return MaxBackends + NUM_AUXILIARY_PROCS;
}

/*
 * Registry, epochs and DSA are one piece of shared memory. Pages that lie together come into a new process by
 * one fault.
 */
static Size
epochs_offset(void)
{
	return CACHELINEALIGN(sizeof(XtRegistry));
}

static Size
dsa_offset(void)
{
	return add_size(epochs_offset(), CACHELINEALIGN(xt_epoch_shared_bytes(epoch_slots())));
}

Size
XtRegistryBytes(void)
{
	return add_size(dsa_offset(), XT_DSA_BYTES);
}

/* shmem_request_hook */
void
XtRegistryRequest(void)
{
	RequestAddinShmemSpace(XtRegistryBytes());
	RequestAddinShmemSpace(XtGraceBytes());
	RequestNamedLWLockTranche(XTREE_LWLOCK_TRANCHE, 1);
}

/* shmem_startup_hook: in the postmaster, also after it has restarted all processes. */
void
XtRegistryStartup(void)
{
	bool		found;
	MemoryContext oldcontext;
	void	   *place;

	xt_registry = ShmemInitStruct("xtree registry", XtRegistryBytes(), &found);
	XtGraceStartup();
	epoch_shared = (char *) xt_registry + epochs_offset();
	if (found)
		return;

	memset(xt_registry, 0, sizeof(XtRegistry));
	xt_registry->dsa_bytes = XT_DSA_BYTES;
	xt_registry->tranche_id = GetNamedLWLockTranche(XTREE_LWLOCK_TRANCHE)->lock.tranche;
	pg_atomic_init_u64(&xt_registry->created, 0);
	pg_atomic_init_u32(&xt_registry->flusher_pgprocno, 0);
	pg_atomic_init_u32(&xt_registry->low_level_backups, 0);
	pg_atomic_init_u32(&xt_registry->file_copiers, 0);
	pg_atomic_init_u64(&xt_registry->files_copied_until, 0);
	pg_atomic_init_u64(&xt_registry->publications, 0);
	pg_atomic_init_u32(&xt_registry->folds_running, 0);
	pg_atomic_init_u32(&xt_registry->replay_us_per_mb, XT_REPLAY_US_PER_MB_GUESS);
	for (int i = 0; i < XT_FOLD_WORKERS_MAX; i++)
	{
		pg_atomic_init_u32(&xt_registry->fold_worker_pids[i], 0);
		pg_atomic_init_u32(&xt_registry->fold_worker_databases[i], 0);
	}
	SpinLockInit(&xt_registry->lost_mutex);
	pg_atomic_init_u32(&xt_registry->lost_count, 0);
	xt_epoch_shared_init(epoch_shared, epoch_slots());

	/*
	 * Attached for good: child processes inherit it. Attaching writes 40 kB, whose page faults would be a
	 * good part of a new connection's first query.
	 */
	oldcontext = MemoryContextSwitchTo(TopMemoryContext);
	place = (char *) xt_registry + dsa_offset();
	area = dsa_create_in_place(place, xt_registry->dsa_bytes, xt_registry->tranche_id, NULL);
	dsa_pin(area);
	dsa_pin_mapping(area);
	/* The limit keeps the hash table itself out of dynamic segments, which do not exist yet. */
	dsa_set_size_limit(area, xt_registry->dsa_bytes);
	hash_params.tranche_id = xt_registry->tranche_id;
	hash = dshash_create(area, &hash_params, NULL);
	xt_registry->hash = dshash_get_hash_table_handle(hash);
	dsa_set_size_limit(area, xtree_shared_memory_limit_kb == 0 ? (size_t) -1 :
					   Max((size_t) xtree_shared_memory_limit_kb * 1024, xt_registry->dsa_bytes));
	MemoryContextSwitchTo(oldcontext);
}

void
XtRequirePreloaded(void)
{
	if (xt_registry == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("xtree must be loaded when the server starts"),
				 errhint("Add \"xtree\" to \"shared_preload_libraries\" and restart the server.")));
}

static void
attach_registry(void)
{
	MemoryContext oldcontext;

	if (hash != NULL)
		return;
	XtRequirePreloaded();
	oldcontext = MemoryContextSwitchTo(TopMemoryContext);
	if (area == NULL)
	{
		area = dsa_attach_in_place((char *) xt_registry + dsa_offset(), NULL);
		dsa_pin_mapping(area);
	}
	hash_params.tranche_id = xt_registry->tranche_id;
	hash = dshash_attach(area, &hash_params, xt_registry->hash, NULL);
	MemoryContextSwitchTo(oldcontext);
}

dsa_area *
XtGetArea(void)
{
	attach_registry();
	return area;
}

XtRuntime *
XtGetRuntime(void)
{
	if (runtime == NULL)
	{
		XtError		error;

		XtRequirePreloaded();
		/* No two live processes share a pgprocno, so it serves as the reader's slot. */
		runtime = xt_runtime_create(epoch_shared, MyProc->pgprocno, xtree_window_budget, &error);
		if (runtime == NULL)
			ereport(ERROR,
					(errcode(XtSqlState(error.code)),
					 errmsg("could not start the xtree engine in this process"),
					 errdetail_internal("%s", error.message)));
	}
	return runtime;
}

/* Makes an XtShared. Its reference belongs to the hash table. */
static dsa_pointer
make_shared(const XtRelKey *key)
{
	Size		alignment = xt_index_shared_alignment();
	dsa_pointer self = dsa_allocate_extended(area, sizeof(XtShared) + xt_index_shared_bytes() + alignment,
											 DSA_ALLOC_ZERO | DSA_ALLOC_NO_OOM);
	XtShared   *shared;
	uintptr_t	behind;

	if (!DsaPointerIsValid(self))
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of shared memory for xtree indexes")));
	shared = dsa_get_address(area, self);
	shared->key = *key;
	shared->self = self;
	/* Wherever a process maps the area, that is by whole pages: what is aligned here is so everywhere. */
	behind = (uintptr_t) (shared + 1);
	shared->index_shared = self + sizeof(XtShared) + (TYPEALIGN(alignment, behind) - behind);
	pg_atomic_init_u32(&shared->refs, 1);
	pg_atomic_init_u32(&shared->gone, 0);
	pg_atomic_init_u32(&shared->state, XT_STATE_EMPTY);
	pg_atomic_init_u64(&shared->generation, 1);
	pg_atomic_init_u32(&shared->log_dirty, 0);
	pg_atomic_init_u32(&shared->fold_wanted, 0);
	pg_atomic_init_u32(&shared->unsettled, 0);
	pg_atomic_init_u64(&shared->log_since, 0);
	pg_atomic_init_u64(&shared->heap_order, 0);
	pg_atomic_init_u64(&shared->removals, 0);
	pg_atomic_init_u64(&shared->removed_lsn, 0);
	pg_atomic_init_u64(&shared->images_lsn, 0);
	LWLockInitialize(&shared->lock, xt_registry->tranche_id);
	return self;
}

XtShared *
XtSharedAttach(const XtRelKey *key)
{
	XtRegistryEntry *entry;
	XtShared   *shared;
	bool		found;

	attach_registry();
	entry = dshash_find_or_insert(hash, key, &found);
	if (!found)
		entry->shared = InvalidDsaPointer;
	if (!DsaPointerIsValid(entry->shared))
	{
		/* Should this raise, the entry stays without an XtShared, and the next caller makes it. */
		entry->shared = make_shared(key);
		found = false;
	}
	shared = dsa_get_address(area, entry->shared);
	/* A new process's first load brings pages around into it as well, as its first store would not. */
	(void) pg_atomic_read_u32(&shared->refs);
	pg_atomic_fetch_add_u32(&shared->refs, 1);
	dshash_release_lock(hash, entry);

	if (!found && pg_atomic_add_fetch_u64(&xt_registry->created, 1) % XT_SWEEP_INTERVAL == 0)
		XtRegistrySweep();
	return shared;
}

XtShared *
XtSharedLookup(const XtRelKey *key)
{
	XtRegistryEntry *entry;
	XtShared   *shared = NULL;

	attach_registry();
	entry = dshash_find(hash, key, false);
	if (entry == NULL)
		return NULL;
	if (DsaPointerIsValid(entry->shared))
	{
		shared = dsa_get_address(area, entry->shared);
		pg_atomic_fetch_add_u32(&shared->refs, 1);
	}
	dshash_release_lock(hash, entry);
	return shared;
}

static void
free_refs(const uint64 *refs, uint32 count)
{
	Assert(count <= XT_CHUNKS_MAX);
	for (uint32 i = 0; i < Min(count, XT_CHUNKS_MAX); i++)
		dsa_free(area, refs[i]);
}

void
XtSharedRelease(XtShared *shared)
{
	uint64		refs[XT_CHUNKS_MAX];
	uint32		count;

	if (pg_atomic_sub_fetch_u32(&shared->refs, 1) > 0)
		return;
	count = xt_chunk_refs(dsa_get_address(area, shared->index_shared), refs, lengthof(refs));
	free_refs(refs, count);
	dsa_free(area, shared->self);
}

void
XtSharedReset(XtShared *shared)
{
	void	   *index_shared = dsa_get_address(area, shared->index_shared);
	uint64		refs[XT_CHUNKS_MAX];
	uint32		count;

	Assert(LWLockHeldByMeInMode(&shared->lock, LW_EXCLUSIVE));
	/* Handles of other processes see the new generation before they look at the memory again. */
	pg_atomic_fetch_add_u64(&shared->generation, 1);
	pg_atomic_write_u32(&shared->state, XT_STATE_EMPTY);
	pg_write_barrier();
	memset(&shared->file, 0, sizeof(shared->file));
	shared->partial = false;
	pg_atomic_write_u32(&shared->fold_wanted, 0);
	pg_atomic_write_u64(&shared->heap_order, 0);
	/* Emptied before they are freed: freeing may raise, and must not happen twice. */
	count = xt_chunk_refs(index_shared, refs, lengthof(refs));
	memset(index_shared, 0, xt_index_shared_bytes());
	free_refs(refs, count);
}

/* --- Sweep ------------------------------------------------------------------------------------- */
/*
 * Whether the relation's file is gone for good. A dropped relation keeps an empty file until the next
 * checkpoint; an empty file also belongs to an index that is about to be built, whose builder holds
 * a reference.
 */
static bool
file_is_gone(XtShared *shared)
{
	struct stat st;
	char	   *path = XtDataPath(&shared->key);
	bool		gone;

	if (stat(path, &st) != 0)
		gone = errno == ENOENT;
	else
		gone = st.st_size == 0 && pg_atomic_read_u32(&shared->refs) == 1;
	pfree(path);
	return gone;
}

void
XtRegistrySweep(void)
{
	dshash_seq_status status;
	XtRegistryEntry *entry;

	attach_registry();
	dshash_seq_init(&status, hash, true);
	while ((entry = dshash_seq_next(&status)) != NULL)
	{
		XtShared   *shared;

		if (!DsaPointerIsValid(entry->shared))
			continue;
		shared = dsa_get_address(area, entry->shared);
		if (!file_is_gone(shared))
			continue;
		pg_atomic_write_u32(&shared->gone, 1);
		if (shared->noted)
			XtScrubForgetChange(shared);
		if (shared->key.backend == InvalidBackendId)
			XtExtentRemove(&shared->key, LOG);
		dshash_delete_current(&status);
		XtSharedRelease(shared);
	}
	dshash_seq_term(&status);
}

void
XtRegistryForEach(bool (*callback) (XtShared *shared, void *arg), void *arg)
{
	dshash_seq_status status;
	XtRegistryEntry *entry;
	List	   *all = NIL;
	ListCell   *lc;
	bool		more = true;

	attach_registry();
	dshash_seq_init(&status, hash, false);
	while ((entry = dshash_seq_next(&status)) != NULL)
	{
		XtShared   *shared;

		if (!DsaPointerIsValid(entry->shared))
			continue;
		shared = dsa_get_address(area, entry->shared);
		pg_atomic_fetch_add_u32(&shared->refs, 1);
		all = lappend(all, shared);
	}
	dshash_seq_term(&status);

	foreach(lc, all)
	{
		XtShared   *shared = lfirst(lc);

		if (more)
			more = callback(shared, arg);
		XtSharedRelease(shared);
	}
	list_free(all);
}
