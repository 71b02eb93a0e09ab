/*
 * xtcost.c: what an index scan costs the planner.
 *
 * How many rows a query returns is the host's estimate, from the operators' selectivity functions:
 * constants, for geometry. How much of the index and of the heap a scan touches is counted in the tree
 * itself where the query is known at planning time: the share of the top levels' boxes that the
 * query's window meets. How many heap pages those rows lie on is judged by a sample of leaves, for
 * neighbours in space often were neighbours when they were loaded. It never fails: without
 * preloading, or over a broken index, the generic model remains, and the error comes when the index
 * is used.
 */
#include "xtregistry.h"

#include <math.h>

#include "access/genam.h"
#include "access/xlog.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "utils/lsyscache.h"
#include "utils/selfuncs.h"
#include "utils/spccache.h"

/*
 * Comparing an entry takes a vector instruction its share of a nanosecond, where the generic model has
 * a function call in mind.
 */
#define ENTRY_CPU_SHARE		0.2

/* The sample of leaves, and how much of each. */
#define ORDER_LEAVES		8
#define ORDER_ROWS_MAX		64
#define ORDER_ROWS_MIN		8
/* How heap_order is packed: the entries when it was sampled, above 1 + thousandths. */
#define ORDER_BITS			10
#define ORDER_MAX			1000

/* What the tree says about a path. */
typedef struct TreeAnswer
{
	bool		counted;		/* `fraction` is known */
	double		fraction;		/* of the entries, that the clauses select */
	double		order;			/* of the heap: see heap_order */
} TreeAnswer;

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

#define ST_SORT sort_blocks
#define ST_ELEMENT_TYPE uint64
#define ST_COMPARE(a, b) (*(a) < *(b) ? -1 : *(a) > *(b))
#define ST_SCOPE static
#define ST_DEFINE
#include "lib/sort_template.h"

static int
count_pages(uint64 *record_ids, int count)
{
	int			pages = 0;

	sort_blocks(record_ids, count);
	for (int i = 0; i < count; i++)
		pages += i == 0 || record_ids[i] >> 16 != record_ids[i - 1] >> 16;
	return pages;
}

/*
 * Samples the heap's order: 1 if neighbours in the tree lie on as few pages as they fit on, 0 if on
 * as many as rows in random order would.
 */
static bool
sample_order(XtHandle *handle, const RelOptInfo *rel, double *order)
{
	const double rows_per_page = rel->tuples / rel->pages;
	double		random = 0.0;
	double		least = 0.0;
	double		found = 0.0;

	for (int i = 0; i < ORDER_LEAVES; i++)
	{
		uint64		record_ids[ORDER_ROWS_MAX];
		uint32		count;
		XtError		error;

		while (!xt_sample(handle->index, (i + 0.5) / ORDER_LEAVES, record_ids, ORDER_ROWS_MAX,
						  &count, &error))
		{
			if (!XtProvideMemory(handle, &error))
				return false;
		}
		if (count < ORDER_ROWS_MIN)
			continue;
		found += count_pages(record_ids, count);
		random += rel->pages * (1.0 - pow(1.0 - 1.0 / rel->pages, count));
		least += Max(count / rows_per_page, 1.0);
	}
	*order = random > least ? Max(0.0, Min((random - found) / (random - least), 1.0)) : 0.0;
	return true;
}

/*
 * The sampled order, taken anew when the index has become a quarter larger or smaller. It is shared:
 * a new connection would have to read pages only to get it.
 */
static double
heap_order(XtHandle *handle, const RelOptInfo *rel)
{
	const uint64 packed = pg_atomic_read_u64(&handle->shared->heap_order);
	const uint64 then = packed >> ORDER_BITS;
	const uint64 entries = xt_entries(handle->index, XT_TREE_MAIN);
	double		order;

	if (packed != 0 && entries >= then - then / 4 && entries <= then + then / 4)
		return (double) ((packed & ((1 << ORDER_BITS) - 1)) - 1) / ORDER_MAX;
	if (rel->pages == 0 || rel->tuples < 1 || !sample_order(handle, rel, &order))
		return 0.0;
	pg_atomic_write_u64(&handle->shared->heap_order,
						entries << ORDER_BITS | (1 + (uint64) rint(order * ORDER_MAX)));
	return order;
}

/* The scan keys of a path's clauses, if all arguments are known now. How many; 0 otherwise. */
static int
path_scan_keys(PlannerInfo *root, IndexPath *path, ScanKey keys)
{
	int			nkeys = 0;
	ListCell   *lc;

	foreach(lc, path->indexclauses)
	{
		IndexClause *clause = lfirst_node(IndexClause, lc);
		ListCell   *lc2;

		foreach(lc2, clause->indexquals)
		{
			RestrictInfo *rinfo = lfirst_node(RestrictInfo, lc2);

			if (nkeys >= INDEX_MAX_KEYS ||
				!clause_scan_key(root, (Node *) rinfo->clause, &keys[nkeys]))
				return 0;
			nkeys++;
		}
	}
	return nkeys;
}

/* Asks the tree, and leaves alone what it cannot tell. */
static void
ask_tree(PlannerInfo *root, IndexPath *path, TreeAnswer *answer)
{
	ScanKeyData keys[INDEX_MAX_KEYS];
	const int	nkeys = path_scan_keys(root, path, keys);
	Relation	index;
	XtHandle   *handle;
	XtQuery		query;

	memset(answer, 0, sizeof(*answer));
	if (path->indexinfo->hypothetical)
		return;

	/* The planner holds a lock on every index that it considers. */
	index = index_open(path->indexinfo->indexoid, NoLock);
	handle = XtOpenNoError(index);
	if (handle != NULL)
	{
		answer->order = heap_order(handle, path->indexinfo->rel);
		if (nkeys > 0)
		{
			XtBuildQuery(&handle->spec, keys, nkeys, &query);
			if (!query.ordered && !query.nulls)
				answer->counted = true;
			else if (query.ordered && !query.nulls)
				answer->counted = estimate_fraction(handle, &query.predicate, &answer->fraction) &&
					answer->fraction >= 0.0 && answer->fraction <= 1.0;
		}
	}
	index_close(index, NoLock);
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
make_plain_scan(PlannerInfo *root, IndexPath *path, double loop_count, double order,
				GenericCosts *costs)
{
	RelOptInfo *rel = path->indexinfo->rel;
	const double loops = Max(loop_count, 1.0);
	const double rows = clamp_row_est(costs->indexSelectivity * rel->tuples);
	const double pages = index_pages_fetched(rows * loops, rel->pages,
											 (double) path->indexinfo->pages, root) / loops;
	double		random_page_cost;
	double		seq_page_cost;

	get_tablespace_page_costs(rel->reltablespace, &random_page_cost, &seq_page_cost);
	costs->indexTotalCost += rel->allvisfrac *
		((1.0 - order) * pages * random_page_cost +
		 order * ceil(costs->indexSelectivity * rel->pages) * seq_page_cost);
	path->path.pathtype = T_IndexScan;
}

/*
 * The heap's order as the planner shall take it for a plain scan. The host prices a bitmap scan as
 * if rows lay at random, and so takes it for dearer than a plain scan of an ordered heap. It is not:
 * both read the same pages, and a bitmap scan handles all rows of a page at once, in about half the
 * time. So a plain scan of more than a batch (within which it goes by page, too) must not seem
 * cheaper. Where a LIMIT may end it early it must: the host believes in fewer rows than there are,
 * and would wait for the whole bitmap.
 */
static double
plain_scan_order(PlannerInfo *root, const IndexPath *path, const GenericCosts *costs, double order)
{
	const RelOptInfo *rel = path->indexinfo->rel;
	const double rows = costs->indexSelectivity * rel->tuples;
	const double heap_pages = Max(rel->pages, 1.0);
	double		random_page_cost;
	double		seq_page_cost;
	double		bitmap_pages;
	double		bitmap_cost;
	double		most;
	double		least;

	if (rows <= XT_SCAN_BATCH_MIN || order <= 0.0 ||
		root->limit_tuples > 0 || root->tuple_fraction > 0)
		return order;
	get_tablespace_page_costs(rel->reltablespace, &random_page_cost, &seq_page_cost);
	bitmap_pages = Min(2.0 * heap_pages * rows / (2.0 * heap_pages + rows), heap_pages);
	bitmap_cost = bitmap_pages * (random_page_cost - (random_page_cost - seq_page_cost) *
								  sqrt(bitmap_pages / heap_pages));
	/* What the host adds to bitmap scans alone: a tenth for the bitmap, and the clauses again. */
	bitmap_cost += rows * cpu_operator_cost * (0.1 + list_length(path->indexclauses));
	/* It takes paths whose costs differ by 1 % for equal. */
	bitmap_cost += 0.02 * (costs->indexTotalCost + bitmap_cost + rows * cpu_tuple_cost);
	most = index_pages_fetched(rows, rel->pages, (double) path->indexinfo->pages, root) *
		random_page_cost;
	least = random_page_cost + (ceil(costs->indexSelectivity * heap_pages) - 1.0) * seq_page_cost;
	if (most <= least)
		return order;
	return Max(0.0, Min(order, (most - bitmap_cost) / (most - least)));
}

void
xtcostestimate(PlannerInfo *root, IndexPath *path, double loop_count,
			   Cost *indexStartupCost, Cost *indexTotalCost,
			   Selectivity *indexSelectivity, double *indexCorrelation,
			   double *indexPages)
{
	IndexOptInfo *index = path->indexinfo;
	GenericCosts costs;
	TreeAnswer	answer;
	Cost		entries_cost;
	Cost		descent_cost;

	memset(&costs, 0, sizeof(costs));
	ask_tree(root, path, &answer);
	if (answer.counted)
		costs.numIndexTuples = Max(answer.fraction * index->tuples, 1.0);

	genericcostestimate(root, path, loop_count, &costs);
	if (answer.counted && index->rel->tuples > 0)
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
		make_plain_scan(root, path, loop_count, answer.order, &costs);

	*indexStartupCost = costs.indexStartupCost;
	*indexTotalCost = Max(costs.indexTotalCost, costs.indexStartupCost);
	*indexSelectivity = costs.indexSelectivity;
	/* The host takes the square for the share of pages that are read in order. */
	*indexCorrelation = sqrt(loop_count > 1.0 ? answer.order :
							 plain_scan_order(root, path, &costs, answer.order));
	*indexPages = costs.numIndexPages;
}
