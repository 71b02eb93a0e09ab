/*
 * xtquery.c: what scan keys mean to the engine: intervals on the corners of a key's box.
 *
 * Rule: an index scan returns exactly the rows that a sequential scan returns. Core geometry compares
 * with a tolerance (FPle and its kin, geo_decls.h), so each bound here is the *last double* on which
 * the host's own comparison says yes: found, not derived, since a + EPSILON rounds. Point and box
 * operators and the position operators of polygons are such comparisons and nothing else, so their
 * predicates are exact. Everything else gets a superset with a margin, and a recheck, which rows whose box
 * alone decides are spared (polygon_overlaps).
 *
 * A NaN in a query makes each comparison it takes part in false, and rows with a NaN in their key are
 * not in the main tree, so a predicate never meets one.
 *
 * What an operator means is decided by its function, not its strategy number: an operator class that
 * maps a number to something else gets slow answers, not wrong ones.
 */
#include "postgres.h"

#include <math.h>

#include "access/stratnum.h"
#include "utils/float.h"
#include "utils/fmgroids.h"
#include "utils/geo_decls.h"

#include "xtquery.h"

/* Coordinates up to here meet no overflow in the products of slopes and coordinates of segments. */
#define SURE_MAX			1.0e15

/* --- Operators -------------------------------------------------------------------------------- */

static void
box_overlaps(XtQuery *query, const BOX *box)
{
	XtCompareCorner(query, CORNER_LO, 0, CMP_FPLE, box->high.x);
	XtCompareCorner(query, CORNER_HI, 0, CMP_FPGE, box->low.x);
	XtCompareCorner(query, CORNER_LO, 1, CMP_FPLE, box->high.y);
	XtCompareCorner(query, CORNER_HI, 1, CMP_FPGE, box->low.y);
}

static void
box_contains(XtQuery *query, const BOX *box)
{
	XtCompareCorner(query, CORNER_HI, 0, CMP_FPGE, box->high.x);
	XtCompareCorner(query, CORNER_LO, 0, CMP_FPLE, box->low.x);
	XtCompareCorner(query, CORNER_HI, 1, CMP_FPGE, box->high.y);
	XtCompareCorner(query, CORNER_LO, 1, CMP_FPLE, box->low.y);
}

static void
box_is_contained(XtQuery *query, const BOX *box)
{
	XtCompareCorner(query, CORNER_HI, 0, CMP_FPLE, box->high.x);
	XtCompareCorner(query, CORNER_LO, 0, CMP_FPGE, box->low.x);
	XtCompareCorner(query, CORNER_HI, 1, CMP_FPLE, box->high.y);
	XtCompareCorner(query, CORNER_LO, 1, CMP_FPGE, box->low.y);
}

static void
box_is_same(XtQuery *query, const BOX *box)
{
	XtCompareEqual(query, CORNER_HI, 0, box->high.x);
	XtCompareEqual(query, CORNER_LO, 0, box->low.x);
	XtCompareEqual(query, CORNER_HI, 1, box->high.y);
	XtCompareEqual(query, CORNER_LO, 1, box->low.y);
}

/* box_left and the rest; polygons compare their bounding boxes in the same way but plainly. */
static void
box_position(XtQuery *query, Oid function, const BOX *box)
{
	switch (function)
	{
		case F_BOX_LEFT:
			XtCompareCorner(query, CORNER_HI, 0, CMP_FPLT, box->low.x);
			break;
		case F_BOX_OVERLEFT:
			XtCompareCorner(query, CORNER_HI, 0, CMP_FPLE, box->high.x);
			break;
		case F_BOX_OVERRIGHT:
			XtCompareCorner(query, CORNER_LO, 0, CMP_FPGE, box->low.x);
			break;
		case F_BOX_RIGHT:
			XtCompareCorner(query, CORNER_LO, 0, CMP_FPGT, box->high.x);
			break;
		case F_BOX_BELOW:
			XtCompareCorner(query, CORNER_HI, 1, CMP_FPLT, box->low.y);
			break;
		case F_BOX_OVERBELOW:
			XtCompareCorner(query, CORNER_HI, 1, CMP_FPLE, box->high.y);
			break;
		case F_BOX_OVERABOVE:
			XtCompareCorner(query, CORNER_LO, 1, CMP_FPGE, box->low.y);
			break;
		case F_BOX_ABOVE:
			XtCompareCorner(query, CORNER_LO, 1, CMP_FPGT, box->high.y);
			break;
		case F_POLY_LEFT:
			XtCompareCorner(query, CORNER_HI, 0, CMP_LT, box->low.x);
			break;
		case F_POLY_OVERLEFT:
			XtCompareCorner(query, CORNER_HI, 0, CMP_LE, box->high.x);
			break;
		case F_POLY_OVERRIGHT:
			XtCompareCorner(query, CORNER_LO, 0, CMP_GE, box->low.x);
			break;
		case F_POLY_RIGHT:
			XtCompareCorner(query, CORNER_LO, 0, CMP_GT, box->high.x);
			break;
		case F_POLY_BELOW:
			XtCompareCorner(query, CORNER_HI, 1, CMP_LT, box->low.y);
			break;
		case F_POLY_OVERBELOW:
			XtCompareCorner(query, CORNER_HI, 1, CMP_LE, box->high.y);
			break;
		case F_POLY_OVERABOVE:
			XtCompareCorner(query, CORNER_LO, 1, CMP_GE, box->low.y);
			break;
		case F_POLY_ABOVE:
			XtCompareCorner(query, CORNER_LO, 1, CMP_GT, box->high.y);
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
	query->filter = true;
	if (!box_is_finite(bound))
		return;
	XtRestrictMin(query, CORNER_BOTH, 0, bound->low.x - MARGIN_ABSOLUTE);
	XtRestrictMax(query, CORNER_BOTH, 0, bound->high.x + MARGIN_ABSOLUTE);
	XtRestrictMin(query, CORNER_BOTH, 1, bound->low.y - MARGIN_ABSOLUTE);
	XtRestrictMax(query, CORNER_BOTH, 1, bound->high.y + MARGIN_ABSOLUTE);
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

	query->filter = true;
	if (!circle_is_finite(circle))
		return;
	margin = circle_bound(circle, &bound);
	XtRestrictMin(query, CORNER_BOTH, 0, bound.low.x - margin);
	XtRestrictMax(query, CORNER_BOTH, 0, bound.high.x + margin);
	XtRestrictMin(query, CORNER_BOTH, 1, bound.low.y - margin);
	XtRestrictMax(query, CORNER_BOTH, 1, bound.high.y + margin);
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

	XtRecheckAll(query);
	if (!circle_is_finite(circle))
		return;
	margin = circle_bound(circle, &bound);
	switch (function)
	{
		case F_CIRCLE_LEFT:
			XtRestrictMax(query, CORNER_LO, 0, bound.low.x + margin);
			break;
		case F_CIRCLE_OVERLEFT:
			XtRestrictMax(query, CORNER_LO, 0, bound.high.x + margin);
			break;
		case F_CIRCLE_OVERRIGHT:
			XtRestrictMin(query, CORNER_HI, 0, bound.low.x - margin);
			break;
		case F_CIRCLE_RIGHT:
			XtRestrictMin(query, CORNER_HI, 0, bound.high.x - margin);
			break;
		case F_CIRCLE_BELOW:
			XtRestrictMax(query, CORNER_LO, 1, bound.low.y + margin);
			break;
		case F_CIRCLE_OVERBELOW:
			XtRestrictMax(query, CORNER_LO, 1, bound.high.y + margin);
			break;
		case F_CIRCLE_OVERABOVE:
			XtRestrictMin(query, CORNER_HI, 1, bound.low.y - margin);
			break;
		case F_CIRCLE_ABOVE:
			XtRestrictMin(query, CORNER_HI, 1, bound.high.y - margin);
			break;
		case F_CIRCLE_OVERLAP:
			XtRestrictMax(query, CORNER_LO, 0, bound.high.x + margin);
			XtRestrictMin(query, CORNER_HI, 0, bound.low.x - margin);
			XtRestrictMax(query, CORNER_LO, 1, bound.high.y + margin);
			XtRestrictMin(query, CORNER_HI, 1, bound.low.y - margin);
			break;
		case F_CIRCLE_SAME:
		case F_CIRCLE_CONTAIN:
			XtRestrictMax(query, CORNER_LO, 0, bound.low.x + margin);
			XtRestrictMin(query, CORNER_HI, 0, bound.high.x - margin);
			XtRestrictMax(query, CORNER_LO, 1, bound.low.y + margin);
			XtRestrictMin(query, CORNER_HI, 1, bound.high.y - margin);
			if (function == F_CIRCLE_CONTAIN)
				break;
			/* The same circle is also contained. */
			/* FALLTHROUGH */
		case F_CIRCLE_CONTAINED:
			XtRestrictMin(query, CORNER_LO, 0, bound.low.x - margin);
			XtRestrictMax(query, CORNER_HI, 0, bound.high.x + margin);
			XtRestrictMin(query, CORNER_LO, 1, bound.low.y - margin);
			XtRestrictMax(query, CORNER_HI, 1, bound.high.y + margin);
			break;
		default:
			elog(ERROR, "unexpected function %u", function);
	}
}

/* Whether a polygon is a rectangle along the axes: each corner once, one after the other. */
static bool
polygon_is_rectangle(const POLYGON *polygon)
{
	const Point *p = polygon->p;
	bool		first_level;	/* the first edge, and so the third */

	if (polygon->npts != 4)
		return false;
	first_level = p[0].y == p[1].y;
	for (int i = 0; i < 4; i++)
	{
		const Point *next = &p[(i + 1) % 4];
		const bool	level = first_level == (i % 2 == 0);

		if (level ? p[i].y != next->y || p[i].x == next->x : p[i].x != next->x || p[i].y == next->y)
			return false;
	}
	return true;
}

/*
 * poly_overlap says yes if edges meet or point_inside finds the key's first corner in the query. If the
 * query is a rectangle and the corner lies in it by more than EPSILON on every side, no comparison of
 * point_inside is near its tolerance: it counts one crossing, that of the side to the right, and finds
 * the corner inside. The key's box has all corners, so a key whose box lies so needs no look at the row.
 * Coordinates that are too large for the host's arithmetic are left to it and its errors. (One that is next to
 * nothing can make it fail, too, by underflow; it cannot be told by a box, and then the row is the answer here.)
 */
static void
polygon_overlaps(XtQuery *query, const POLYGON *polygon)
{
	const BOX  *bound = &polygon->boundbox;

	query->recheck = true;
	if (!polygon_is_rectangle(polygon) ||
		!(fabs(bound->low.x) <= SURE_MAX && fabs(bound->low.y) <= SURE_MAX &&
		  fabs(bound->high.x) <= SURE_MAX && fabs(bound->high.y) <= SURE_MAX))
	{
		XtRecheckAll(query);
		return;
	}
	query->sure_lo[0] = Max(query->sure_lo[0], bound->low.x);
	query->sure_lo[1] = Max(query->sure_lo[1], bound->low.y);
	query->sure_hi[0] = Min(query->sure_hi[0], bound->high.x);
	query->sure_hi[1] = Min(query->sure_hi[1], bound->high.y);
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
			polygon_overlaps(query, polygon);
			break;
		case F_POLY_CONTAIN:
			box_contains(query, bound);
			XtRecheckAll(query);
			break;
		case F_POLY_CONTAINED:
			box_is_contained(query, bound);
			XtRecheckAll(query);
			break;
		case F_POLY_SAME:
			/* Corresponding vertices are FPeq, so the extremes are. */
			box_is_same(query, bound);
			XtRecheckAll(query);
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
			XtCompareCorner(query, CORNER_BOTH, 0, CMP_FPLT, point->x);
			break;
		case F_POINT_RIGHT:
			XtCompareCorner(query, CORNER_BOTH, 0, CMP_FPGT, point->x);
			break;
		case F_POINT_BELOW:
			XtCompareCorner(query, CORNER_BOTH, 1, CMP_FPLT, point->y);
			break;
		case F_POINT_ABOVE:
			XtCompareCorner(query, CORNER_BOTH, 1, CMP_FPGT, point->y);
			break;
		case F_POINT_EQ:
			XtCompareEqual(query, CORNER_BOTH, 0, point->x);
			XtCompareEqual(query, CORNER_BOTH, 1, point->y);
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
			XtCompareCorner(query, CORNER_BOTH, 0, CMP_GE, box->low.x);
			XtCompareCorner(query, CORNER_BOTH, 0, CMP_LE, box->high.x);
			XtCompareCorner(query, CORNER_BOTH, 1, CMP_GE, box->low.y);
			XtCompareCorner(query, CORNER_BOTH, 1, CMP_LE, box->high.y);
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
			XtRecheckAll(query);
			break;
	}
}

bool
XtPredicateIsPossible(const XtSpec *spec, const XtPredicate *predicate)
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
	for (int dim = 0; dim < XT_SURE_DIMS; dim++)
	{
		query->sure_lo[dim] = -get_float8_infinity();
		query->sure_hi[dim] = get_float8_infinity();
	}
	query->predicate.nan_matches = false;
	query->ordered = true;
	query->unordered = true;
	query->nulls = true;
	query->filter = false;
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
	if (!XtPredicateIsPossible(spec, &query->predicate))
		query->ordered = false;
}

void
XtRecheckAll(XtQuery *query)
{
	query->recheck = true;
	query->sure_lo[0] = get_float8_infinity();
}

bool
XtMayBeSure(const XtSpec *spec, const XtQuery *query)
{
	return query->recheck && spec->kind == XT_BOX && spec->dims == XT_SURE_DIMS &&
		query->sure_lo[0] < query->sure_hi[0] && query->sure_lo[1] < query->sure_hi[1];
}

void
XtMarkSure(const XtQuery *query, const double *lo, const double *hi, uint64 *record_ids, int count)
{
	for (int row = 0; row < count; row++, lo += XT_SURE_DIMS, hi += XT_SURE_DIMS)
	{
		bool		sure = true;

		for (int dim = 0; dim < XT_SURE_DIMS; dim++)
			sure &= lo[dim] - query->sure_lo[dim] > EPSILON && query->sure_hi[dim] - hi[dim] > EPSILON;
		if (sure)
			record_ids[row] |= XT_RECORD_SURE;
	}
}

void
XtNullTreePredicate(bool unordered, XtPredicate *predicate)
{
	predicate->lo_min[0] = predicate->hi_min[0] = unordered ? -get_float8_infinity() : 0.0;
	predicate->lo_max[0] = predicate->hi_max[0] = unordered ? -1.0 : get_float8_infinity();
	predicate->nan_matches = false;
}
