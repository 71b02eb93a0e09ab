/*
 * xtcost.c: what an index scan costs the planner.
 *
 * How many rows a query returns is the host's estimate, from the operators' selectivity functions:
 * constants, for geometry. How much of the index and of the heap a scan touches is counted in the tree
 * itself where the query is known at planning time: the share of the top levels' boxes that the
 * query's window meets. It never fails: without preloading, or over a broken index, the generic model
 * remains, and the error comes when the index is used.
 */
#include "postgres.h"

#include <math.h>

#include "access/genam.h"
#include "access/xlog.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "utils/lsyscache.h"
#include "utils/selfuncs.h"
#include "utils/spccache.h"

#include "xtree.h"

/*
 * Comparing an entry takes a vector instruction its share of a nanosecond, where the generic model has
 * a function call in mind.
 */
#define ENTRY_CPU_SHARE		0.2

/* The scan key of an index clause, if its argument is known now. */
static bool
clause_scan_key(PlannerInfo *root, Node *clause, ScanKey key)
{
	memset(key, 0, sizeof(*key));
	key->sk_attno = 1;
	if (IsA(clause, NullTest))
	{
		key->sk_flags = SK_ISNULL;
		key->sk_flags |= ((NullTest *) clause)->nulltesttype == IS_NULL ?
			SK_SEARCHNULL : SK_SEARCHNOTNULL;
		return true;
	}
	if (IsA(clause, OpExpr) && list_length(((OpExpr *) clause)->args) == 2)
	{
		OpExpr	   *op = (OpExpr *) clause;
		Node	   *argument = estimate_expression_value(root, lsecond(op->args));

		if (!IsA(argument, Const))
			return false;
		key->sk_func.fn_oid = get_opcode(op->opno);
		key->sk_argument = ((Const *) argument)->constvalue;
		key->sk_flags = ((Const *) argument)->constisnull ? SK_ISNULL : 0;
		return true;
	}
	return false;
}

/*
 * xt_estimate, remembering the last answer: the planner asks for the plain and the bitmap path of one
 * query in turn. Only an estimate, so an answer about the same number of entries will do.
 */
static bool
estimate_fraction(XtHandle *handle, const XtPredicate *predicate, double *fraction)
{
	static struct
	{
		XtRelKey	key;
		uint64		entries;
		int			dims;
		XtPredicate predicate;
		double		fraction;
	}			last;
	const Size	bytes = sizeof(double) * handle->spec.dims;
	const uint64 entries = xt_entries(handle->index, XT_TREE_MAIN);
	XtError		error;

	if (last.dims == handle->spec.dims && last.entries == entries &&
		memcmp(&last.key, &handle->key, sizeof(XtRelKey)) == 0 &&
		memcmp(last.predicate.lo_min, predicate->lo_min, bytes) == 0 &&
		memcmp(last.predicate.lo_max, predicate->lo_max, bytes) == 0 &&
		memcmp(last.predicate.hi_min, predicate->hi_min, bytes) == 0 &&
		memcmp(last.predicate.hi_max, predicate->hi_max, bytes) == 0)
	{
		*fraction = last.fraction;
		return true;
	}

	last.dims = 0;
	while (!xt_estimate(handle->index, predicate, fraction, &error))
	{
		if (!XtProvideMemory(handle, &error))
			return false;
	}
	last.key = handle->key;
	last.entries = entries;
	last.dims = handle->spec.dims;
	last.predicate = *predicate;
	last.fraction = *fraction;
	return true;
}

/* The share of the index's entries that the path's clauses select, asked of the tree. */
static bool
tree_fraction(PlannerInfo *root, IndexPath *path, double *fraction)
{
	ScanKeyData keys[INDEX_MAX_KEYS];
	int			nkeys = 0;
	ListCell   *lc;
	Relation	index;
	XtHandle   *handle;
	XtQuery		query;
	bool		ok = false;

	foreach(lc, path->indexclauses)
	{
		IndexClause *clause = lfirst_node(IndexClause, lc);
		ListCell   *lc2;

		foreach(lc2, clause->indexquals)
		{
			RestrictInfo *rinfo = lfirst_node(RestrictInfo, lc2);

			if (nkeys >= INDEX_MAX_KEYS ||
				!clause_scan_key(root, (Node *) rinfo->clause, &keys[nkeys]))
				return false;
			nkeys++;
		}
	}
	if (nkeys == 0 || path->indexinfo->hypothetical)
		return false;

	/* The planner holds a lock on every index that it considers. */
	index = index_open(path->indexinfo->indexoid, NoLock);
	handle = XtOpenNoError(index);
	if (handle != NULL)
	{
		XtBuildQuery(&handle->spec, keys, nkeys, &query);
		if (!query.ordered && !query.nulls)
		{
			*fraction = 0.0;
			ok = true;
		}
		else if (query.ordered && !query.nulls)
			ok = estimate_fraction(handle, &query.predicate, fraction);
	}
	index_close(index, NoLock);
	return ok && *fraction >= 0.0 && *fraction <= 1.0;
}

/*
 * Turns an index-only path into one that reads the heap. Where the planner can make an index-only scan
 * it makes no other, and it asks nobody but amcanreturn: not at all for a query that needs no column,
 * and not about an order. On a standby index-only scans are not safe (xtgrace.c), and in an ordered
 * scan the executor does not sort again what comes with a lower bound of its distance. The path is not
 * costed further than its index yet; the caller has decided that pages which are all visible cost
 * nothing, so they are added here.
 */
static void
make_plain_scan(PlannerInfo *root, IndexPath *path, double loop_count, GenericCosts *costs)
{
	RelOptInfo *rel = path->indexinfo->rel;
	const double loops = Max(loop_count, 1.0);
	const double rows = clamp_row_est(costs->indexSelectivity * rel->tuples);
	const double pages = index_pages_fetched(rows * loops, rel->pages,
											 (double) path->indexinfo->pages, root) / loops;
	double		page_cost;

	get_tablespace_page_costs(rel->reltablespace, &page_cost, NULL);
	costs->indexTotalCost += pages * rel->allvisfrac * page_cost;
	path->path.pathtype = T_IndexScan;
}

void
xtcostestimate(PlannerInfo *root, IndexPath *path, double loop_count,
			   Cost *indexStartupCost, Cost *indexTotalCost,
			   Selectivity *indexSelectivity, double *indexCorrelation,
			   double *indexPages)
{
	IndexOptInfo *index = path->indexinfo;
	GenericCosts costs;
	double		fraction;
	bool		counted;
	Cost		entries_cost;
	Cost		descent_cost;

	memset(&costs, 0, sizeof(costs));
	counted = tree_fraction(root, path, &fraction);
	if (counted)
		costs.numIndexTuples = Max(fraction * index->tuples, 1.0);

	genericcostestimate(root, path, loop_count, &costs);
	if (counted && index->rel->tuples > 0)
		costs.indexSelectivity = Min(costs.numIndexTuples / index->rel->tuples, 1.0);

	entries_cost = costs.numIndexTuples *
		(cpu_index_tuple_cost + cpu_operator_cost * list_length(path->indexclauses));
	costs.indexTotalCost -= entries_cost * (1.0 - ENTRY_CPU_SHARE);

	/* One node a level, each a few vector compares; upper levels are taken to be in memory. */
	descent_cost = 0.0;
	if (index->pages > 1)
		descent_cost = ceil(log(index->pages) / log(100.0)) * 10.0 * cpu_operator_cost;
	costs.indexStartupCost += descent_cost;
	costs.indexTotalCost += descent_cost;

	if (path->path.pathtype == T_IndexOnlyScan && (path->indexorderbys != NIL || RecoveryInProgress()))
		make_plain_scan(root, path, loop_count, &costs);

	*indexStartupCost = costs.indexStartupCost;
	*indexTotalCost = Max(costs.indexTotalCost, costs.indexStartupCost);
	*indexSelectivity = costs.indexSelectivity;
	*indexCorrelation = costs.indexCorrelation;
	*indexPages = costs.numIndexPages;
}
