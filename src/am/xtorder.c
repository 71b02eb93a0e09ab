/*
 * xtorder.c: ORDER BY key <-> point: what the engine's distances say about the host's.
 *
 * The engine's distance is the geometric one to a key's box, and in two dimensions bit for bit what
 * point <-> point computes. box <-> point computes the same in a roundabout way, with exceptions. For
 * polygons and circles it is a lower bound, after a margin.
 */
#include "postgres.h"

#include <float.h>
#include <math.h>

#include "utils/float.h"
#include "utils/fmgroids.h"
#include "utils/geo_decls.h"
#include "utils/regproc.h"

#include "xtquery.h"

/* Up to here the sum of two lengths is exact to less than EPSILON. */
#define EDGE_LENGTH_MAX		1.0e8

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
	if (function == F_POINT_DISTANCE)
		order->kind = XT_ORDER_EXACT;
	else
		order->kind = function == F_DIST_BP ? XT_ORDER_BOX : XT_ORDER_BOUND;
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
static double
shape_distance_bound(const XtSpec *spec, const XtOrder *order, double distance,
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

/*
 * box <-> point (box_closept_point) takes the least distance to the four edges, each to the foot of the
 * perpendicular or to an end. The edges are level or upright, so both come out without rounding, and
 * the distance is the engine's, with these exceptions:
 * - A foot within EPSILON of an end of its edge is taken for the end: then the distance is more.
 * - Of edges shorter than that, the wrong end may be taken (more, too); and between corners that are
 *   nearly one, pg_hypot may round in the wrong direction.
 * - Feet far off a very long edge count as on it: lengths are compared, which lose EPSILON then.
 */
static double
box_distance(const XtSpec *spec, const XtOrder *order, double distance,
			 const double *lo, const double *hi, bool *exact)
{
	bool		outside[2];
	bool		minute = false;
	double		magnitude = 0.0;

	*exact = true;
	for (int dim = 0; dim < 2; dim++)
	{
		const double size = hi[dim] - lo[dim];

		if (size > EDGE_LENGTH_MAX)
		{
			*exact = false;
			return shape_distance_bound(spec, order, distance, lo, hi);
		}
		outside[dim] = order->point[dim] < lo[dim] || order->point[dim] > hi[dim];
		magnitude = Max(magnitude, fabs(order->point[dim]));
		magnitude = Max(magnitude, Max(fabs(lo[dim]), fabs(hi[dim])));
	}
	for (int dim = 0; dim < 2; dim++)
	{
		const double size = hi[dim] - lo[dim];

		minute |= size > 0.0 && size < Max(MARGIN_ABSOLUTE, 1.0e-9 * magnitude);
	}
	if (minute && (outside[0] || outside[1]))
	{
		*exact = false;
		distance -= distance * 1.0e-15;
	}
	else if (outside[0] != outside[1])
	{
		const int	along = outside[0] ? 1 : 0;
		const double p = order->point[along];

		*exact = p - lo[along] > MARGIN_ABSOLUTE && hi[along] - p > MARGIN_ABSOLUTE;
	}
	return distance;
}

double
XtDistanceBound(const XtSpec *spec, const XtOrder *order, double distance,
				const double *lo, const double *hi, bool *exact)
{
	if (order->kind == XT_ORDER_BOX)
		return box_distance(spec, order, distance, lo, hi, exact);
	*exact = false;
	return shape_distance_bound(spec, order, distance, lo, hi);
}

bool
XtUnboundedPart(const XtSpec *spec, const XtPredicate *all, int part, XtPredicate *predicate)
{
	*predicate = *all;
	for (int dim = 0; dim < spec->dims && 2 * dim <= part; dim++)
	{
		if (part == 2 * dim)
		{
			predicate->lo_max[dim] = -get_float8_infinity();
			break;
		}
		predicate->lo_min[dim] = Max(predicate->lo_min[dim], -DBL_MAX);
		if (part == 2 * dim + 1)
		{
			predicate->hi_min[dim] = get_float8_infinity();
			break;
		}
		predicate->hi_max[dim] = Min(predicate->hi_max[dim], DBL_MAX);
	}
	return XtPredicateIsPossible(spec, predicate);
}
