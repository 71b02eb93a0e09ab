/*
 * xtquery.c: what scan keys mean to the engine: intervals on the corners of a key's box.
 *
 * Rule: an index scan returns exactly the rows that a sequential scan returns. Core geometry compares
 * with a tolerance (FPle and its kin, geo_decls.h), so each bound here is the *last double* on which
 * the host's own comparison says yes: found, not derived, since a + EPSILON rounds. Point and box
 * operators and the position operators of polygons are such comparisons and nothing else, so their
 * predicates are exact. Everything else gets a superset with a margin, and a recheck.
 *
 * A NaN in a query makes each comparison it takes part in false, and rows with a NaN in their key are
 * not in the main tree, so a predicate never meets one.
 *
 * What an operator means is decided by its function, not its strategy number: an operator class that
 * maps a number to something else gets slow answers, not wrong ones.
 */
#include "postgres.h"

#include <float.h>
#include <math.h>

#include "access/stratnum.h"
#include "utils/float.h"
#include "utils/fmgroids.h"
#include "utils/geo_decls.h"
#include "utils/regproc.h"

#include "xtree.h"

typedef enum XtCorner
{
	CORNER_LO, CORNER_HI, CORNER_BOTH	/* both: the key is a point */
} XtCorner;

/* How the host compares a coordinate of the key (left) with one of the query (right). */
typedef enum XtCompare
{
	CMP_LT, CMP_LE, CMP_GE, CMP_GT,
	CMP_FPLT, CMP_FPLE, CMP_FPGE, CMP_FPGT
} XtCompare;

/* Twice EPSILON and more: rounding of a tolerance never reaches it. */
#define MARGIN_ABSOLUTE		4.0e-6
/* Hundreds of times the relative rounding error of the few operations that a distance takes. */
#define MARGIN_RELATIVE		1.0e-13

/* --- The line of doubles as integers ---------------------------------------------------------- */

/* Maps doubles (NaN excluded) to integers in the same order; -0 comes just before 0. */
static int64
double_rank(double value)
{
	int64		bits;

	memcpy(&bits, &value, sizeof(bits));
	return bits < 0 ? PG_INT64_MIN - bits - 1 : bits;
}

static double
rank_double(int64 rank)
{
	int64		bits = rank < 0 ? PG_INT64_MIN - rank - 1 : rank;
	double		value;

	memcpy(&value, &bits, sizeof(value));
	return value;
}

/* The comparisons whose turning points are searched. Both are monotone in `a`. */
static bool
reaches(double a, double b)
{
	return FPge(a, b);
}

static bool
equals_from_below(double a, double b)
{
	return a >= b || FPeq(a, b);
}

/*
 * The least double on which `test(., b)` holds, for a test that holds from some value on. Gallops
 * away from a guess, which is a few steps off unless b is within a few EPSILON of it: near zero there
 * are 2^60 doubles within the rounding of a + EPSILON.
 */
static double
least_double(bool (*test) (double, double), double guess, double b)
{
	const int64 first = double_rank(-get_float8_infinity());
	const int64 last = double_rank(get_float8_infinity());
	int64		no = double_rank(guess);	/* test false here, or unknown */
	int64		yes = no;
	uint64		step = 1;		/* distances between ranks need all 64 bits */

	if (test(guess, b))
	{
		do
		{
			yes = no;
			if (yes == first)
				return rank_double(first);
			no = ((uint64) yes - (uint64) first > step) ? (int64) ((uint64) yes - step) : first;
			step *= 2;
		} while (test(rank_double(no), b));
	}
	else
	{
		do
		{
			no = yes;
			Assert(no < last);	/* infinity passes both tests */
			yes = ((uint64) last - (uint64) no > step) ? (int64) ((uint64) no + step) : last;
			step *= 2;
		} while (!test(rank_double(yes), b));
	}

	while ((uint64) yes - (uint64) no > 1)
	{
		const int64 middle = (int64) ((uint64) no + ((uint64) yes - (uint64) no) / 2);

		if (test(rank_double(middle), b))
			yes = middle;
		else
			no = middle;
	}
	return rank_double(yes);
}

static double
just_below(double value)
{
	return nextafter(value, -get_float8_infinity());
}

static double
just_above(double value)
{
	return nextafter(value, get_float8_infinity());
}

/* --- Restricting a predicate ------------------------------------------------------------------ */

static void
raise_min(double *min, double bound)
{
	if (bound > *min)
		*min = bound;
}

static void
lower_max(double *max, double bound)
{
	if (bound < *max)
		*max = bound;
}

static void
restrict_min(XtQuery *query, XtCorner corner, int dim, double bound)
{
	if (corner != CORNER_HI)
		raise_min(&query->predicate.lo_min[dim], bound);
	if (corner != CORNER_LO)
		raise_min(&query->predicate.hi_min[dim], bound);
}

static void
restrict_max(XtQuery *query, XtCorner corner, int dim, double bound)
{
	if (corner != CORNER_HI)
		lower_max(&query->predicate.lo_max[dim], bound);
	if (corner != CORNER_LO)
		lower_max(&query->predicate.hi_max[dim], bound);
}

/* Keeps the keys whose corner compares so with `value`; exactly those. */
static void
compare(XtQuery *query, XtCorner corner, int dim, XtCompare cmp, double value)
{
	double		bound = value;
	bool		strict = false;

	if (isnan(value))
	{
		query->ordered = false;
		return;
	}
	switch (cmp)
	{
		case CMP_LT:
			strict = true;
			/* FALLTHROUGH */
		case CMP_LE:
			break;
		case CMP_FPLT:
			/* key + EPSILON < value: below the least key that reaches the value. */
			bound = least_double(reaches, value - EPSILON, value);
			strict = true;
			break;
		case CMP_FPLE:
			bound = value + EPSILON;
			break;
		case CMP_GT:
			strict = true;
			/* FALLTHROUGH */
		case CMP_GE:
			break;
		case CMP_FPGE:
			bound = least_double(reaches, value - EPSILON, value);
			break;
		case CMP_FPGT:
			bound = value + EPSILON;
			strict = true;
			break;
	}
	if (cmp == CMP_LT || cmp == CMP_LE || cmp == CMP_FPLT || cmp == CMP_FPLE)
	{
		if (strict && bound == -get_float8_infinity())
			query->ordered = false;
		restrict_max(query, corner, dim, strict ? just_below(bound) : bound);
	}
	else
	{
		if (strict && bound == get_float8_infinity())
			query->ordered = false;
		restrict_min(query, corner, dim, strict ? just_above(bound) : bound);
	}
}

/* Keeps the keys whose corner is FPeq to `value`. */
static void
compare_equal(XtQuery *query, XtCorner corner, int dim, double value)
{
	if (isnan(value))
	{
		query->ordered = false;
		return;
	}
	restrict_min(query, corner, dim,
				 least_double(equals_from_below, value - EPSILON, value));
	/* FPeq(a, b) and FPeq(-a, -b) agree, so the upper end is the lower one mirrored. */
	restrict_max(query, corner, dim,
				 -least_double(equals_from_below, -value - EPSILON, -value));
}

/* --- Operators -------------------------------------------------------------------------------- */

static void
box_overlaps(XtQuery *query, const BOX *box)
{
	compare(query, CORNER_LO, 0, CMP_FPLE, box->high.x);
	compare(query, CORNER_HI, 0, CMP_FPGE, box->low.x);
	compare(query, CORNER_LO, 1, CMP_FPLE, box->high.y);
	compare(query, CORNER_HI, 1, CMP_FPGE, box->low.y);
}

static void
box_contains(XtQuery *query, const BOX *box)
{
	compare(query, CORNER_HI, 0, CMP_FPGE, box->high.x);
	compare(query, CORNER_LO, 0, CMP_FPLE, box->low.x);
	compare(query, CORNER_HI, 1, CMP_FPGE, box->high.y);
	compare(query, CORNER_LO, 1, CMP_FPLE, box->low.y);
}

static void
box_is_contained(XtQuery *query, const BOX *box)
{
	compare(query, CORNER_HI, 0, CMP_FPLE, box->high.x);
	compare(query, CORNER_LO, 0, CMP_FPGE, box->low.x);
	compare(query, CORNER_HI, 1, CMP_FPLE, box->high.y);
	compare(query, CORNER_LO, 1, CMP_FPGE, box->low.y);
}

static void
box_is_same(XtQuery *query, const BOX *box)
{
	compare_equal(query, CORNER_HI, 0, box->high.x);
	compare_equal(query, CORNER_LO, 0, box->low.x);
	compare_equal(query, CORNER_HI, 1, box->high.y);
	compare_equal(query, CORNER_LO, 1, box->low.y);
}

/* box_left and the rest; polygons compare their bounding boxes in the same way but plainly. */
static void
box_position(XtQuery *query, Oid function, const BOX *box)
{
	switch (function)
	{
		case F_BOX_LEFT:
			compare(query, CORNER_HI, 0, CMP_FPLT, box->low.x);
			break;
		case F_BOX_OVERLEFT:
			compare(query, CORNER_HI, 0, CMP_FPLE, box->high.x);
			break;
		case F_BOX_OVERRIGHT:
			compare(query, CORNER_LO, 0, CMP_FPGE, box->low.x);
			break;
		case F_BOX_RIGHT:
			compare(query, CORNER_LO, 0, CMP_FPGT, box->high.x);
			break;
		case F_BOX_BELOW:
			compare(query, CORNER_HI, 1, CMP_FPLT, box->low.y);
			break;
		case F_BOX_OVERBELOW:
			compare(query, CORNER_HI, 1, CMP_FPLE, box->high.y);
			break;
		case F_BOX_OVERABOVE:
			compare(query, CORNER_LO, 1, CMP_FPGE, box->low.y);
			break;
		case F_BOX_ABOVE:
			compare(query, CORNER_LO, 1, CMP_FPGT, box->high.y);
			break;
		case F_POLY_LEFT:
			compare(query, CORNER_HI, 0, CMP_LT, box->low.x);
			break;
		case F_POLY_OVERLEFT:
			compare(query, CORNER_HI, 0, CMP_LE, box->high.x);
			break;
		case F_POLY_OVERRIGHT:
			compare(query, CORNER_LO, 0, CMP_GE, box->low.x);
			break;
		case F_POLY_RIGHT:
			compare(query, CORNER_LO, 0, CMP_GT, box->high.x);
			break;
		case F_POLY_BELOW:
			compare(query, CORNER_HI, 1, CMP_LT, box->low.y);
			break;
		case F_POLY_OVERBELOW:
			compare(query, CORNER_HI, 1, CMP_LE, box->high.y);
			break;
		case F_POLY_OVERABOVE:
			compare(query, CORNER_LO, 1, CMP_GE, box->low.y);
			break;
		case F_POLY_ABOVE:
			compare(query, CORNER_LO, 1, CMP_GT, box->high.y);
			break;
		default:
			elog(ERROR, "unexpected function %u", function);
	}
}

static bool
box_is_finite(const BOX *box)
{
	return isfinite(box->high.x) && isfinite(box->high.y) &&
		isfinite(box->low.x) && isfinite(box->low.y);
}

/*
 * Points in a polygon. point_inside takes whatever is within EPSILON of an edge as on it and finds
 * nothing farther than that outside the bounding box, as long as all coordinates are finite.
 */
static void
point_in_polygon(XtQuery *query, const BOX *bound)
{
	query->recheck = true;
	if (!box_is_finite(bound))
		return;
	restrict_min(query, CORNER_BOTH, 0, just_below(bound->low.x - MARGIN_ABSOLUTE));
	restrict_max(query, CORNER_BOTH, 0, just_above(bound->high.x + MARGIN_ABSOLUTE));
	restrict_min(query, CORNER_BOTH, 1, just_below(bound->low.y - MARGIN_ABSOLUTE));
	restrict_max(query, CORNER_BOTH, 1, just_above(bound->high.y + MARGIN_ABSOLUTE));
}

static bool
circle_is_finite(const CIRCLE *circle)
{
	return isfinite(circle->center.x) && isfinite(circle->center.y) && isfinite(circle->radius);
}

/* The square around a circle, and how far the operators' rounding and tolerance can reach past it. */
static double
circle_bound(const CIRCLE *circle, BOX *bound)
{
	bound->low.x = circle->center.x - circle->radius;
	bound->low.y = circle->center.y - circle->radius;
	bound->high.x = circle->center.x + circle->radius;
	bound->high.y = circle->center.y + circle->radius;
	return MARGIN_ABSOLUTE + MARGIN_RELATIVE * (fabs(circle->center.x) + fabs(circle->center.y) +
												fabs(circle->radius));
}

static void
point_in_circle(XtQuery *query, const CIRCLE *circle)
{
	BOX			bound;
	double		margin;

	query->recheck = true;
	if (!circle_is_finite(circle))
		return;
	margin = circle_bound(circle, &bound);
	restrict_min(query, CORNER_BOTH, 0, bound.low.x - margin);
	restrict_max(query, CORNER_BOTH, 0, bound.high.x + margin);
	restrict_min(query, CORNER_BOTH, 1, bound.low.y - margin);
	restrict_max(query, CORNER_BOTH, 1, bound.high.y + margin);
}

/*
 * Circles: keys are squares rounded outward by XtFormKey, more so for greater coordinates. An upper
 * limit on a key's high corner, or a lower one on its low corner, is therefore only set where the
 * query bounds the key's magnitude; elsewhere the opposite corner, which is farther in, stands in.
 */
static void
circle_operator(XtQuery *query, Oid function, const CIRCLE *circle)
{
	BOX			bound;
	double		margin;

	query->recheck = true;
	if (!circle_is_finite(circle))
		return;
	margin = circle_bound(circle, &bound);
	switch (function)
	{
		case F_CIRCLE_LEFT:
			restrict_max(query, CORNER_LO, 0, bound.low.x + margin);
			break;
		case F_CIRCLE_OVERLEFT:
			restrict_max(query, CORNER_LO, 0, bound.high.x + margin);
			break;
		case F_CIRCLE_OVERRIGHT:
			restrict_min(query, CORNER_HI, 0, bound.low.x - margin);
			break;
		case F_CIRCLE_RIGHT:
			restrict_min(query, CORNER_HI, 0, bound.high.x - margin);
			break;
		case F_CIRCLE_BELOW:
			restrict_max(query, CORNER_LO, 1, bound.low.y + margin);
			break;
		case F_CIRCLE_OVERBELOW:
			restrict_max(query, CORNER_LO, 1, bound.high.y + margin);
			break;
		case F_CIRCLE_OVERABOVE:
			restrict_min(query, CORNER_HI, 1, bound.low.y - margin);
			break;
		case F_CIRCLE_ABOVE:
			restrict_min(query, CORNER_HI, 1, bound.high.y - margin);
			break;
		case F_CIRCLE_OVERLAP:
			restrict_max(query, CORNER_LO, 0, bound.high.x + margin);
			restrict_min(query, CORNER_HI, 0, bound.low.x - margin);
			restrict_max(query, CORNER_LO, 1, bound.high.y + margin);
			restrict_min(query, CORNER_HI, 1, bound.low.y - margin);
			break;
		case F_CIRCLE_SAME:
		case F_CIRCLE_CONTAIN:
			restrict_max(query, CORNER_LO, 0, bound.low.x + margin);
			restrict_min(query, CORNER_HI, 0, bound.high.x - margin);
			restrict_max(query, CORNER_LO, 1, bound.low.y + margin);
			restrict_min(query, CORNER_HI, 1, bound.high.y - margin);
			if (function == F_CIRCLE_CONTAIN)
				break;
			/* The same circle is also contained. */
			/* FALLTHROUGH */
		case F_CIRCLE_CONTAINED:
			restrict_min(query, CORNER_LO, 0, bound.low.x - margin);
			restrict_max(query, CORNER_HI, 0, bound.high.x + margin);
			restrict_min(query, CORNER_LO, 1, bound.low.y - margin);
			restrict_max(query, CORNER_HI, 1, bound.high.y + margin);
			break;
		default:
			elog(ERROR, "unexpected function %u", function);
	}
}

/* --- Scan keys -------------------------------------------------------------------------------- */

static void
apply_polygon_key(XtQuery *query, Oid function, Datum argument)
{
	POLYGON    *polygon = DatumGetPolygonP(argument);
	const BOX  *bound = &polygon->boundbox;

	switch (function)
	{
		case F_POLY_OVERLAP:
			box_overlaps(query, bound);
			query->recheck = true;
			break;
		case F_POLY_CONTAIN:
			box_contains(query, bound);
			query->recheck = true;
			break;
		case F_POLY_CONTAINED:
			box_is_contained(query, bound);
			query->recheck = true;
			break;
		case F_POLY_SAME:
			/* Corresponding vertices are FPeq, so the extremes are. */
			box_is_same(query, bound);
			query->recheck = true;
			break;
		case F_PT_CONTAINED_POLY:
			point_in_polygon(query, bound);
			break;
		default:
			box_position(query, function, bound);
			break;
	}
	if ((Pointer) polygon != DatumGetPointer(argument))
		pfree(polygon);
}

static void
apply_point_key(XtQuery *query, Oid function, const Point *point)
{
	switch (function)
	{
		case F_POINT_LEFT:
			compare(query, CORNER_BOTH, 0, CMP_FPLT, point->x);
			break;
		case F_POINT_RIGHT:
			compare(query, CORNER_BOTH, 0, CMP_FPGT, point->x);
			break;
		case F_POINT_BELOW:
			compare(query, CORNER_BOTH, 1, CMP_FPLT, point->y);
			break;
		case F_POINT_ABOVE:
			compare(query, CORNER_BOTH, 1, CMP_FPGT, point->y);
			break;
		case F_POINT_EQ:
			compare_equal(query, CORNER_BOTH, 0, point->x);
			compare_equal(query, CORNER_BOTH, 1, point->y);
			break;
		default:
			elog(ERROR, "unexpected function %u", function);
	}
}

static void
apply_box_key(XtQuery *query, Oid function, const BOX *box)
{
	switch (function)
	{
		case F_BOX_OVERLAP:
			box_overlaps(query, box);
			break;
		case F_BOX_CONTAIN:
			box_contains(query, box);
			break;
		case F_BOX_CONTAINED:
			box_is_contained(query, box);
			break;
		case F_BOX_SAME:
			box_is_same(query, box);
			break;
		case F_ON_PB:
			/* The one function here that compares plainly. */
			compare(query, CORNER_BOTH, 0, CMP_GE, box->low.x);
			compare(query, CORNER_BOTH, 0, CMP_LE, box->high.x);
			compare(query, CORNER_BOTH, 1, CMP_GE, box->low.y);
			compare(query, CORNER_BOTH, 1, CMP_LE, box->high.y);
			break;
		default:
			box_position(query, function, box);
			break;
	}
}

static void
apply_key(XtQuery *query, ScanKey key)
{
	const Oid	function = key->sk_func.fn_oid;

	switch (function)
	{
		case F_POINT_LEFT:
		case F_POINT_RIGHT:
		case F_POINT_BELOW:
		case F_POINT_ABOVE:
		case F_POINT_EQ:
			apply_point_key(query, function, DatumGetPointP(key->sk_argument));
			break;
		case F_ON_PB:
		case F_BOX_LEFT:
		case F_BOX_OVERLEFT:
		case F_BOX_OVERLAP:
		case F_BOX_OVERRIGHT:
		case F_BOX_RIGHT:
		case F_BOX_SAME:
		case F_BOX_CONTAIN:
		case F_BOX_CONTAINED:
		case F_BOX_BELOW:
		case F_BOX_OVERBELOW:
		case F_BOX_OVERABOVE:
		case F_BOX_ABOVE:
			apply_box_key(query, function, DatumGetBoxP(key->sk_argument));
			break;
		case F_PT_CONTAINED_POLY:
		case F_POLY_LEFT:
		case F_POLY_OVERLEFT:
		case F_POLY_OVERLAP:
		case F_POLY_OVERRIGHT:
		case F_POLY_RIGHT:
		case F_POLY_SAME:
		case F_POLY_CONTAIN:
		case F_POLY_CONTAINED:
		case F_POLY_BELOW:
		case F_POLY_OVERBELOW:
		case F_POLY_OVERABOVE:
		case F_POLY_ABOVE:
			apply_polygon_key(query, function, key->sk_argument);
			break;
		case F_PT_CONTAINED_CIRCLE:
			point_in_circle(query, DatumGetCircleP(key->sk_argument));
			break;
		case F_CIRCLE_LEFT:
		case F_CIRCLE_OVERLEFT:
		case F_CIRCLE_OVERLAP:
		case F_CIRCLE_OVERRIGHT:
		case F_CIRCLE_RIGHT:
		case F_CIRCLE_SAME:
		case F_CIRCLE_CONTAIN:
		case F_CIRCLE_CONTAINED:
		case F_CIRCLE_BELOW:
		case F_CIRCLE_OVERBELOW:
		case F_CIRCLE_OVERABOVE:
		case F_CIRCLE_ABOVE:
			circle_operator(query, function, DatumGetCircleP(key->sk_argument));
			break;
		default:
			query->recheck = true;
			break;
	}
}

static bool
predicate_is_possible(const XtSpec *spec, const XtPredicate *predicate)
{
	for (int dim = 0; dim < spec->dims; dim++)
	{
		if (predicate->lo_min[dim] > predicate->lo_max[dim] ||
			predicate->hi_min[dim] > predicate->hi_max[dim])
			return false;
	}
	return true;
}

void
XtBuildQuery(const XtSpec *spec, ScanKey keys, int nkeys, XtQuery *query)
{
	for (int dim = 0; dim < spec->dims; dim++)
	{
		query->predicate.lo_min[dim] = -get_float8_infinity();
		query->predicate.lo_max[dim] = get_float8_infinity();
		query->predicate.hi_min[dim] = -get_float8_infinity();
		query->predicate.hi_max[dim] = get_float8_infinity();
	}
	query->predicate.nan_matches = false;
	query->ordered = true;
	query->unordered = true;
	query->nulls = true;
	query->recheck = false;

	for (int i = 0; i < nkeys; i++)
	{
		ScanKey		key = &keys[i];

		if (key->sk_flags & SK_SEARCHNULL)
		{
			query->ordered = false;
			query->unordered = false;
			continue;
		}
		/* IS NOT NULL, or an operator; all of ours are strict. */
		query->nulls = false;
		if (key->sk_flags & SK_SEARCHNOTNULL)
			continue;
		if (key->sk_flags & SK_ISNULL)
		{
			query->ordered = false;
			query->unordered = false;
			continue;
		}
		apply_key(query, key);
	}
	if (!predicate_is_possible(spec, &query->predicate))
		query->ordered = false;
}

void
XtNullTreePredicate(bool unordered, XtPredicate *predicate)
{
	predicate->lo_min[0] = predicate->hi_min[0] = unordered ? -get_float8_infinity() : 0.0;
	predicate->lo_max[0] = predicate->hi_max[0] = unordered ? -1.0 : get_float8_infinity();
	predicate->nan_matches = false;
}

bool
XtUnboundedPart(const XtSpec *spec, const XtPredicate *all, int part, XtPredicate *predicate)
{
	*predicate = *all;
	for (int dim = 0; dim < spec->dims && 2 * dim <= part; dim++)
	{
		if (part == 2 * dim)
		{
			lower_max(&predicate->lo_max[dim], -get_float8_infinity());
			break;
		}
		raise_min(&predicate->lo_min[dim], -DBL_MAX);
		if (part == 2 * dim + 1)
		{
			raise_min(&predicate->hi_min[dim], get_float8_infinity());
			break;
		}
		lower_max(&predicate->hi_max[dim], DBL_MAX);
	}
	return predicate_is_possible(spec, predicate);
}

/* --- Distances -------------------------------------------------------------------------------- */

void
XtBuildOrder(const XtSpec *spec, ScanKey key, XtOrder *order)
{
	const Oid	function = key->sk_func.fn_oid;
	Point	   *point;

	if (key->sk_flags & SK_ISNULL)
	{
		order->kind = XT_ORDER_NULL;
		return;
	}
	if (function != F_POINT_DISTANCE && function != F_DIST_BP &&
		function != F_DIST_POLYP && function != F_DIST_CPOINT)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("access method \"xtree\" cannot order by function %s",
						format_procedure(function))));
	Assert(spec->dims == 2);
	point = DatumGetPointP(key->sk_argument);
	if (!isfinite(point->x) || !isfinite(point->y))
	{
		/* Infinity minus infinity: the order is then no longer a matter of distances. */
		order->kind = XT_ORDER_CONSTANT;
		return;
	}
	order->kind = function == F_POINT_DISTANCE ? XT_ORDER_EXACT : XT_ORDER_BOUND;
	order->point[0] = point->x;
	order->point[1] = point->y;
}

/*
 * A value that the operator's distance from the shape is never below, given the distance to its box.
 * The host's arithmetic errs: it takes slopes of edges shorter than EPSILON as level, accepts feet of
 * perpendiculars up to EPSILON off an edge, and loses digits in proportion to the coordinates. A bound
 * that is too low merely keeps a tuple a little longer in the executor's queue; one that is too high
 * would be an error there ("index returned tuples in wrong order").
 */
double
XtDistanceBound(const XtSpec *spec, const XtOrder *order, double distance,
				const double *lo, const double *hi)
{
	double		magnitude = 0.0;
	double		bound;

	for (int dim = 0; dim < spec->dims; dim++)
		magnitude += fabs(lo[dim]) + fabs(hi[dim]) + fabs(order->point[dim]);
	bound = distance - (MARGIN_ABSOLUTE + MARGIN_RELATIVE * magnitude);
	/* Also when the box is infinite and this is NaN. */
	return bound > 0.0 ? bound : 0.0;
}
