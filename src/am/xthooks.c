/*
 * xthooks.c: what the host does not tell an access method, learned through its hooks.
 *
 * Copies of files: SET TABLESPACE, CREATE DATABASE and ALTER DATABASE SET TABLESPACE copy an index's
 * files as they are. The engine adopts a copy only if it was at rest, with an empty log (of older log
 * records nobody could tell which count), so the index is folded before the host copies it.
 *
 * Low-level base backups: between pg_backup_start and the end of its session's backup somebody copies
 * files. The host shows that to nobody but the session itself, so the call is seen when it is about
 * to be made, and the session's state is looked at whenever a transaction ends.
 *
 * pg_rewind copies files through an ordinary session, by the function that reads part of a file and does
 * not mind its absence. A session that has called it counts as a backup until it ends, or has not called
 * it for xtree.file_copy_timeout: monitors call it too, through sessions that never end.
 */
#include "xtregistry.h"

#include <signal.h>

#include "access/genam.h"
#include "access/heapam.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "catalog/pg_proc.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/tablespace.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

static object_access_hook_type prev_object_access_hook = NULL;
static ProcessUtility_hook_type prev_ProcessUtility_hook = NULL;
static bool in_backup = false;	/* this session counts in low_level_backups, */
static bool copies_files = false;	/* while a transaction that copies files runs, too; */
static bool has_copied = false; /* and in file_copiers from then on */
static TimestampTz copied_until = 0;	/* when this session's hold on folds lapses, */
static uint64 copied_publications = 0;	/* and the folds published when it began */

/* --- Low-level base backups ------------------------------------------------------------------- */

static void
leave_backup(void)
{
	if (in_backup)
		pg_atomic_fetch_sub_u32(&xt_registry->low_level_backups, 1);
	in_backup = false;
}

/* Between two transactions a copier's files must not change either, but not for ever. */
static void
pause_file_copy(void)
{
	copies_files = false;
	if (!has_copied)
		pg_atomic_fetch_add_u32(&xt_registry->file_copiers, 1);
	has_copied = true;
	copied_until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
											   (int64) xtree_file_copy_timeout_s * 1000);
	pg_atomic_write_u64(&xt_registry->files_copied_until, (uint64) copied_until);
}

static void
backup_xact_callback(XactEvent event, void *arg)
{
	if (!in_backup || (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT))
		return;
	/* The longer hold first. */
	if (copies_files)
		pause_file_copy();
	if (get_backup_status() == SESSION_BACKUP_NONE)
		leave_backup();
}

static void
backup_exit_callback(int code, Datum arg)
{
	leave_backup();
	if (has_copied)
		pg_atomic_fetch_sub_u32(&xt_registry->file_copiers, 1);
	has_copied = false;
}

static void
enter_backup(void)
{
	static bool registered = false;

	if (!registered)
	{
		RegisterXactCallback(backup_xact_callback, NULL);
		before_shmem_exit(backup_exit_callback, (Datum) 0);
		registered = true;
	}
	pg_atomic_fetch_add_u32(&xt_registry->low_level_backups, 1);
	in_backup = true;
}

/* It names itself so unless told otherwise, and reads many files by one statement. */
static bool
is_pg_rewind(void)
{
	return (application_name != NULL && strcmp(application_name, "pg_rewind") == 0) ||
		(debug_query_string != NULL && strstr(debug_query_string, "unnest") != NULL);
}

/* What has been read of an index's log before a fold does not go with what is read after it. */
static void
enter_file_copy(void)
{
	bool		lapsed = has_copied && GetCurrentTimestamp() >= copied_until;

	if (!in_backup)
		enter_backup();
	copies_files = true;
	while (pg_atomic_read_u32(&xt_registry->folds_running) > 0)
	{
		CHECK_FOR_INTERRUPTS();
		pg_usleep(1000L);
	}
	if (!has_copied)
		ereport(LOG,
				(errmsg("this session holds up folds of xtree indexes, as it copies files"),
				 errdetail("They go on when it ends, or has not called pg_read_binary_file for %d seconds.",
						   xtree_file_copy_timeout_s)));
	else if (lapsed && is_pg_rewind() &&
			 pg_atomic_read_u64(&xt_registry->publications) != copied_publications)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("files of xtree indexes have changed since pg_rewind began to copy files"),
				 errdetail("It had not read any for longer than xtree.file_copy_timeout."),
				 errhint("Run pg_rewind again, on a new base backup if it refuses.")));
	if (!has_copied || lapsed)
		copied_publications = pg_atomic_read_u64(&xt_registry->publications);
}

static void
xtree_object_access(ObjectAccessType access, Oid classId, Oid objectId, int subId, void *arg)
{
	if (prev_object_access_hook)
		prev_object_access_hook(access, classId, objectId, subId, arg);
	if (access != OAT_FUNCTION_EXECUTE)
		return;
	/* Before the function runs: it publishes its redo point only afterwards. */
	if (objectId == F_PG_BACKUP_START && !in_backup)
		enter_backup();
	else if (objectId == F_PG_READ_BINARY_FILE_TEXT_INT8_INT8_BOOL && !copies_files)
		enter_file_copy();
}

/* --- Before the host copies files ------------------------------------------------------------- */
bool
XtIsXtreeIndex(Relation relation)
{
	return relation->rd_rel->relkind == RELKIND_INDEX && relation->rd_indam != NULL &&
		relation->rd_indam->ambuild == xtbuild;
}

/*
 * Empties an index's log. The caller's lock keeps writers out. A temporary index has none that would tell whether
 * its file holds everything.
 */
static void
settle_index(Relation index)
{
	XtHandle   *handle = XtOpen(index);

	/* The flusher's worker may be at it; a base backup may forbid it. */
	while ((!handle->logged || xt_log_bytes(handle->index) > 0) && !XtFoldNow(index))
	{
		if (XtBackupRunning())
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("cannot copy the files of xtree index \"%s\" while a base backup or pg_rewind is running",
							RelationGetRelationName(index)),
					 errhint("Try again when it has finished.")));
		CHECK_FOR_INTERRUPTS();
		pg_usleep(10000L);
		handle = XtOpen(index);
	}
}

/* Takes the lock that the command itself is going to take, and settles the index. */
static void
settle_before_move(Oid relid)
{
	Relation	index;

	/* The command says what is wrong with the request, if anything. */
	if (!OidIsValid(relid) || get_rel_relkind(relid) != RELKIND_INDEX ||
		!pg_class_ownercheck(relid, GetUserId()))
		return;
	index = try_relation_open(relid, AccessExclusiveLock);
	if (index == NULL)
		return;
	if (XtIsXtreeIndex(index) && !RELATION_IS_OTHER_TEMP(index))
		settle_index(index);
	relation_close(index, NoLock);
}

/* All xtree indexes of this database, in one tablespace if it is given. */
List *
XtListIndexes(Oid tablespace)
{
	List	   *result = NIL;
	Oid			am = get_am_oid("xtree", true);
	Relation	pg_class;
	TableScanDesc scan;
	HeapTuple	tuple;

	if (!OidIsValid(am))
		return NIL;
	pg_class = table_open(RelationRelationId, AccessShareLock);
	scan = table_beginscan_catalog(pg_class, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_class form = (Form_pg_class) GETSTRUCT(tuple);
		Oid			space = OidIsValid(form->reltablespace) ? form->reltablespace :
		MyDatabaseTableSpace;

		if (form->relkind == RELKIND_INDEX && form->relam == am &&
			(!OidIsValid(tablespace) || space == tablespace))
			result = lappend_oid(result, form->oid);
	}
	table_endscan(scan);
	table_close(pg_class, AccessShareLock);
	return result;
}

static bool
sets_tablespace(AlterTableStmt *stmt)
{
	ListCell   *lc;

	foreach(lc, stmt->cmds)
	{
		if (((AlterTableCmd *) lfirst(lc))->subtype == AT_SetTableSpace)
			return true;
	}
	return false;
}

static const char *
string_option(List *options, const char *name)
{
	ListCell   *lc;

	foreach(lc, options)
	{
		DefElem    *option = lfirst(lc);

		if (strcmp(option->defname, name) == 0 && option->arg != NULL)
			return defGetString(option);
	}
	return NULL;
}

/* Whether the command will be allowed to copy a database; if not, nothing is done for it. */
static bool
may_copy_database(Oid database)
{
	HeapTuple	tuple;
	bool		creates = superuser();
	bool		template = false;

	if (!OidIsValid(database))
		return false;
	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	if (HeapTupleIsValid(tuple))
	{
		creates |= ((Form_pg_authid) GETSTRUCT(tuple))->rolcreatedb;
		ReleaseSysCache(tuple);
	}
	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
	if (HeapTupleIsValid(tuple))
	{
		template = ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
		ReleaseSysCache(tuple);
	}
	return creates && (template || pg_database_ownercheck(database, GetUserId()));
}

static void
before_utility(Node *statement, bool top_level)
{
	ListCell   *lc;

	switch (nodeTag(statement))
	{
		case T_AlterTableStmt:
			{
				AlterTableStmt *stmt = (AlterTableStmt *) statement;

				if (sets_tablespace(stmt))
					settle_before_move(RangeVarGetRelid(stmt->relation, NoLock, true));
				break;
			}
		case T_AlterTableMoveAllStmt:
			{
				AlterTableMoveAllStmt *stmt = (AlterTableMoveAllStmt *) statement;
				Oid			from = get_tablespace_oid(stmt->orig_tablespacename, true);

				if (stmt->objtype == OBJECT_INDEX && OidIsValid(from))
					foreach(lc, XtListIndexes(from))
						settle_before_move(lfirst_oid(lc));
				break;
			}
		case T_CreatedbStmt:
			{
				CreatedbStmt *stmt = (CreatedbStmt *) statement;
				const char *template = string_option(stmt->options, "template");
				const char *strategy = string_option(stmt->options, "strategy");
				Oid			source = get_database_oid(template ? template : "template1",
														  true);

				/* The host says so, too, but after the worker has waited for this transaction's locks. */
				PreventInTransactionBlock(top_level, "CREATE DATABASE");
				if (may_copy_database(source))
					XtSettleDatabase(source,
									 strategy != NULL && pg_strcasecmp(strategy, "file_copy") == 0);
				break;
			}
		case T_AlterDatabaseStmt:
			{
				AlterDatabaseStmt *stmt = (AlterDatabaseStmt *) statement;

				Oid			database = get_database_oid(stmt->dbname, true);

				if (string_option(stmt->options, "tablespace") != NULL &&
					OidIsValid(database) && pg_database_ownercheck(database, GetUserId()))
				{
					PreventInTransactionBlock(top_level, "ALTER DATABASE SET TABLESPACE");
					XtSettleDatabase(database, true);
				}
				break;
			}
		case T_DropdbStmt:
			{
				Oid			database = get_database_oid(((DropdbStmt *) statement)->dbname, true);

				/* A fold worker is a session, which the command would wait for and then refuse. */
				if (OidIsValid(database) && pg_database_ownercheck(database, GetUserId()))
					XtStopFoldWorkers(database);
				break;
			}
		default:
			break;
	}
}

static void
xtree_ProcessUtility(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
					 ProcessUtilityContext context, ParamListInfo params,
					 QueryEnvironment *queryEnv, DestReceiver *dest, QueryCompletion *qc)
{
	if (!RecoveryInProgress())
		before_utility(pstmt->utilityStmt, context == PROCESS_UTILITY_TOPLEVEL);
	if (prev_ProcessUtility_hook)
		prev_ProcessUtility_hook(pstmt, queryString, readOnlyTree, context, params, queryEnv,
								 dest, qc);
	else
		standard_ProcessUtility(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest,
								qc);
}

void
XtHooksInit(void)
{
	prev_object_access_hook = object_access_hook;
	object_access_hook = xtree_object_access;
	prev_ProcessUtility_hook = ProcessUtility_hook;
	ProcessUtility_hook = xtree_ProcessUtility;
}
