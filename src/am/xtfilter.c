/*
 * xtfilter.c: operators that no interval on a key expresses, but that the key alone decides:
 * point <@ polygon and point <@ circle, since a point's key is the point.
 *
 * They are evaluated on each batch of keys, so that the executor need not recheck them on the rows,
 * where it would detoast the polygon once a row. The answers are the host's (point_inside, point_dt),
 * bit for bit; queries whose arithmetic could overflow, where the host raises an error, are left to
 * the executor: keys here may belong to rows that nobody can see.
 *
 * A polygon of many edges is cut into level strips, each with the edges that come near it: edges that
 * lie wholly above or below the point contribute nothing to the host's sum.
 */
#include "postgres.h"

#include <math.h>

#include "utils/fmgroids.h"
#include "utils/geo_decls.h"
#include "utils/memutils.h"

#include "xtquery.h"

/* Coordinates up to here can be subtracted and multiplied without overflow. */
#define COORDINATE_MAX		1.0e150

/* Fewer edges than these are not worth strips; nor are fewer points. */
#define STRIP_EDGES_MIN		24
#define STRIP_POINTS_MIN	4
#define STRIPS_MAX			4096
/* Edges over all strips, for each edge of the polygon. */
#define STRIP_COPIES_MAX	6

typedef struct XtEdge
{
	double		from_x;
	double		from_y;
	double		to_x;
	double		to_y;
} XtEdge;

typedef struct XtFilterItem
{
	const CIRCLE *circle;		/* either this */
	const POLYGON *polygon;		/* or this, detoasted */
	int			strip_count;	/* 0: none made */
	double		strip_scale;	/* strips per unit of y */
	uint32	   *strip_starts;	/* in `edges`; strip_count + 1 */
	XtEdge	   *edges;
} XtFilterItem;

struct XtFilter
{
	MemoryContext context;
	uint64		points;			/* tested since the filter was set */
	int			count;
	XtFilterItem items[XT_FILTER_KEYS_MAX];
};

/* --- The host's arithmetic -------------------------------------------------------------------- */

#define ON_EDGE				INT_MAX

static inline int
sign_of(double value)
{
	return value > EPSILON ? 1 : value < -EPSILON ? -1 : 0;
}

/*
 * What the edge from (fx,fy) to (tx,ty), relative to the point, adds to the sum that is zero outside:
 * two for a crossing of the positive x axis, one for an end on it, by direction. ON_EDGE: the point is on
 * the edge. "Zero" is whatever is within EPSILON.
 */
static inline int
edge_crossing(double fx, double fy, double tx, double ty)
{
	const int	from = sign_of(fy);
	const int	to = sign_of(ty);
	volatile double left;		/* kept from being fused into one rounding */
	volatile double right;
	double		z;

	if (from == to && to != 0)
		return 0;
	if (to == 0)
	{
		const int	side = sign_of(tx);

		if (side == 0)
			return ON_EDGE;
		if (from == 0)
			return sign_of(fx) == side ? 0 : ON_EDGE;
		return side > 0 ? -from : 0;
	}
	if (from == 0)
		return sign_of(fx) < 0 ? 0 : to;
	if (tx >= -EPSILON && fx > EPSILON)
		return 2 * to;
	if (tx < -EPSILON && fx <= EPSILON)
		return 0;
	left = (tx - fx) * ty;
	right = (ty - fy) * tx;
	z = left - right;
	if (sign_of(z) == 0)
		return ON_EDGE;
	return sign_of(z) == to ? 0 : 2 * to;
}

static bool
in_polygon(const POLYGON *polygon, double x, double y)
{
	const Point *from = &polygon->p[polygon->npts - 1];
	int			sum = 0;

	for (int i = 0; i < polygon->npts; i++)
	{
		const Point *to = &polygon->p[i];
		const int	crossing = edge_crossing(from->x - x, from->y - y, to->x - x, to->y - y);

		if (crossing == ON_EDGE)
			return true;
		sum += crossing;
		from = to;
	}
	return sum != 0;
}

/* As point_dt() <= radius. */
static bool
in_circle(const CIRCLE *circle, double x, double y)
{
	double		dx = fabs(circle->center.x - x);
	double		dy = fabs(circle->center.y - y);
	double		ratio;
	volatile double square;

	if (dx < dy)
	{
		const double swap = dx;

		dx = dy;
		dy = swap;
	}
	if (dy == 0.0)
		return dx <= circle->radius;
	ratio = dy / dx;
	square = ratio * ratio;
	return dx * sqrt(1.0 + square) <= circle->radius;
}

/* --- Strips ----------------------------------------------------------------------------------- */

/* Grows with y, so that what lies between two ys has strips between theirs. */
static inline int
strip_of(const XtFilterItem *item, double y)
{
	const double strip = (y - item->polygon->boundbox.low.y) * item->strip_scale;

	if (!(strip > 0.0))
		return 0;
	return strip < item->strip_count ? (int) strip : item->strip_count - 1;
}

static inline void
edge_strips(const XtFilterItem *item, const Point *from, const Point *to, int *first, int *last)
{
	*first = strip_of(item, Min(from->y, to->y) - MARGIN_ABSOLUTE);
	*last = strip_of(item, Max(from->y, to->y) + MARGIN_ABSOLUTE);
}

/* Counts the edges of each strip into strip_starts, one place up. Returns their sum. */
static uint64
count_strips(XtFilterItem *item)
{
	const POLYGON *polygon = item->polygon;
	uint64		total = 0;

	memset(item->strip_starts, 0, sizeof(uint32) * (item->strip_count + 2));
	for (int i = 0; i < polygon->npts; i++)
	{
		int			first;
		int			last;

		edge_strips(item, &polygon->p[i > 0 ? i - 1 : polygon->npts - 1], &polygon->p[i],
					&first, &last);
		for (int strip = first; strip <= last; strip++)
			item->strip_starts[strip + 2]++;
		total += last - first + 1;
	}
	return total;
}

static void
make_strips(XtFilter *filter, XtFilterItem *item)
{
	const POLYGON *polygon = item->polygon;
	const double height = polygon->boundbox.high.y - polygon->boundbox.low.y;
	int			strips = Min(polygon->npts, STRIPS_MAX);
	MemoryContext oldcontext;
	uint64		total;

	/* Strips thinner than the margin would share all their edges. */
	if (height / MARGIN_ABSOLUTE < strips)
		return;
	oldcontext = MemoryContextSwitchTo(filter->context);
	item->strip_starts = palloc(sizeof(uint32) * (strips + 2));
	for (;; strips /= 2)
	{
		item->strip_count = strips;
		item->strip_scale = strips / height;
		total = count_strips(item);
		/* Long edges are in many strips: fewer strips then. One strip has each edge once. */
		if (strips == 1 || total <= (uint64) STRIP_COPIES_MAX * polygon->npts)
			break;
	}
	/* Starts of strip s are now at s + 1, and move down to s as the edges are put in their places. */
	for (int strip = 0; strip < strips; strip++)
		item->strip_starts[strip + 1] += item->strip_starts[strip];
	item->edges = palloc(sizeof(XtEdge) * total);
	for (int i = 0; i < polygon->npts; i++)
	{
		const Point *from = &polygon->p[i > 0 ? i - 1 : polygon->npts - 1];
		const Point *to = &polygon->p[i];
		int			first;
		int			last;

		edge_strips(item, from, to, &first, &last);
		for (int strip = first; strip <= last; strip++)
		{
			XtEdge	   *edge = &item->edges[item->strip_starts[strip + 1]++];

			edge->from_x = from->x;
			edge->from_y = from->y;
			edge->to_x = to->x;
			edge->to_y = to->y;
		}
	}
	MemoryContextSwitchTo(oldcontext);
}

static bool
in_strip(const XtFilterItem *item, double x, double y)
{
	const int	strip = strip_of(item, y);
	const XtEdge *end = item->edges + item->strip_starts[strip + 1];
	int			sum = 0;

	for (const XtEdge *edge = item->edges + item->strip_starts[strip]; edge < end; edge++)
	{
		const int	crossing = edge_crossing(edge->from_x - x, edge->from_y - y,
											 edge->to_x - x, edge->to_y - y);

		if (crossing == ON_EDGE)
			return true;
		sum += crossing;
	}
	return sum != 0;
}

/* --- Filters ---------------------------------------------------------------------------------- */

XtFilter *
XtFilterCreate(void)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "xtree filter",
												  ALLOCSET_SMALL_SIZES);
	XtFilter   *filter = palloc0(sizeof(XtFilter));

	filter->context = context;
	return filter;
}

static bool
is_small(double value)
{
	return fabs(value) <= COORDINATE_MAX;	/* false for NaN */
}

bool
XtFilterSet(XtFilter *filter, ScanKey keys, int nkeys)
{
	MemoryContext oldcontext;
	bool		all = true;

	MemoryContextReset(filter->context);
	oldcontext = MemoryContextSwitchTo(filter->context);
	filter->points = 0;
	filter->count = 0;
	for (int i = 0; i < nkeys; i++)
	{
		XtFilterItem *item = &filter->items[filter->count];
		bool		usable = false;

		if (keys[i].sk_flags & SK_ISNULL)
			continue;
		if (keys[i].sk_func.fn_oid != F_PT_CONTAINED_POLY &&
			keys[i].sk_func.fn_oid != F_PT_CONTAINED_CIRCLE)
			continue;
		if (filter->count < XT_FILTER_KEYS_MAX)
		{
			memset(item, 0, sizeof(*item));
			if (keys[i].sk_func.fn_oid == F_PT_CONTAINED_CIRCLE)
			{
				item->circle = DatumGetCircleP(keys[i].sk_argument);
				usable = is_small(item->circle->center.x) && is_small(item->circle->center.y) &&
					is_small(item->circle->radius);
			}
			else
			{
				const BOX  *bound;

				item->polygon = DatumGetPolygonP(keys[i].sk_argument);
				bound = &item->polygon->boundbox;
				usable = item->polygon->npts > 0 && is_small(bound->low.x) &&
					is_small(bound->low.y) && is_small(bound->high.x) && is_small(bound->high.y);
			}
		}
		if (usable)
			filter->count++;
		else
			all = false;
	}
	MemoryContextSwitchTo(oldcontext);
	return all;
}

int
XtFilterApply(XtFilter *filter, uint64 *record_ids, double *keys, double *distances, int count)
{
	int			kept = 0;

	if (filter->count == 0)
		return count;
	filter->points += count;
	for (int i = 0; i < filter->count; i++)
	{
		XtFilterItem *item = &filter->items[i];

		if (item->polygon != NULL && item->strip_count == 0 &&
			item->polygon->npts >= STRIP_EDGES_MIN && filter->points >= STRIP_POINTS_MIN)
			make_strips(filter, item);
	}
	for (int row = 0; row < count; row++)
	{
		const double x = keys[2 * row];
		const double y = keys[2 * row + 1];
		bool		inside = true;

		for (int i = 0; i < filter->count && inside; i++)
		{
			const XtFilterItem *item = &filter->items[i];

			if (item->circle != NULL)
				inside = in_circle(item->circle, x, y);
			else if (item->strip_count > 0)
				inside = in_strip(item, x, y);
			else
				inside = in_polygon(item->polygon, x, y);
		}
		if (!inside)
			continue;
		record_ids[kept] = record_ids[row];
		keys[2 * kept] = x;
		keys[2 * kept + 1] = y;
		if (distances != NULL)
			distances[kept] = distances[row];
		kept++;
	}
	return kept;
}
