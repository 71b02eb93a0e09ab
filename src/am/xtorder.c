/*
 * xtorder.c: ORDER BY key <-> point: what the engine's distances say about the host's.
 *
 * The engine's distance is the geometric one to a key's box, and in two dimensions bit for bit what
 * point <-> point computes. For the other types it is a lower bound, after a margin.
 */
#include "postgres.h"

#include <float.h>
#include <math.h>

#include "utils/float.h"
#include "utils/fmgroids.h"
#include "utils/geo_decls.h"
#include "utils/regproc.h"

#include "xtquery.h"

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
