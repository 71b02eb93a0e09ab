/*
 * xthooks.c: what the host does not tell an access method, learned through its hooks.
 *
 * Low-level base backups: between pg_backup_start and the end of its session's backup somebody copies
 * files. The host shows that to nobody but the session itself, so the call is seen when it is about
 * to be made, and the session's state is looked at whenever a transaction ends.
 */
#include "xtregistry.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_proc.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/fmgroids.h"

static object_access_hook_type prev_object_access_hook = NULL;
static bool in_backup = false;	/* this session counts in low_level_backups */

static void
leave_backup(void)
{
	if (in_backup)
		pg_atomic_fetch_sub_u32(&xt_registry->low_level_backups, 1);
	in_backup = false;
}

static void
backup_xact_callback(XactEvent event, void *arg)
{
	if (in_backup && (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT) &&
		get_backup_status() == SESSION_BACKUP_NONE)
		leave_backup();
}

static void
backup_exit_callback(int code, Datum arg)
{
	leave_backup();
}

static void
xtree_object_access(ObjectAccessType access, Oid classId, Oid objectId, int subId, void *arg)
{
	static bool registered = false;

	if (prev_object_access_hook)
		prev_object_access_hook(access, classId, objectId, subId, arg);
	if (access != OAT_FUNCTION_EXECUTE || objectId != F_PG_BACKUP_START || in_backup)
		return;
	if (!registered)
	{
		RegisterXactCallback(backup_xact_callback, NULL);
		before_shmem_exit(backup_exit_callback, (Datum) 0);
		registered = true;
	}
	/* Before the function runs: it publishes its redo point only afterwards. */
	pg_atomic_fetch_add_u32(&xt_registry->low_level_backups, 1);
	in_backup = true;
}

void
XtHooksInit(void)
{
	prev_object_access_hook = object_access_hook;
	object_access_hook = xtree_object_access;
}
