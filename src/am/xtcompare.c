/*
 * xtcompare.c: the host's comparisons as bounds on doubles.
 *
 * Core geometry compares with a tolerance (FPle and its kin, geo_decls.h). A bound here is the *last
 * double* on which the host's own comparison says yes: found, not derived, since a + EPSILON rounds.
 */
#include "postgres.h"

#include <math.h>

#include "utils/float.h"
#include "utils/geo_decls.h"

#include "xtquery.h"

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

void
XtRestrictMin(XtQuery *query, XtCorner corner, int dim, double bound)
{
	if (corner != CORNER_HI)
		raise_min(&query->predicate.lo_min[dim], bound);
	if (corner != CORNER_LO)
		raise_min(&query->predicate.hi_min[dim], bound);
}

void
XtRestrictMax(XtQuery *query, XtCorner corner, int dim, double bound)
{
	if (corner != CORNER_HI)
		lower_max(&query->predicate.lo_max[dim], bound);
	if (corner != CORNER_LO)
		lower_max(&query->predicate.hi_max[dim], bound);
}

/* Keeps the keys whose corner compares so with `value`; exactly those. */
void
XtCompareCorner(XtQuery *query, XtCorner corner, int dim, XtCompare cmp, double value)
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
		XtRestrictMax(query, corner, dim, strict ? just_below(bound) : bound);
	}
	else
	{
		if (strict && bound == get_float8_infinity())
			query->ordered = false;
		XtRestrictMin(query, corner, dim, strict ? just_above(bound) : bound);
	}
}

/* Keeps the keys whose corner is FPeq to `value`. */
void
XtCompareEqual(XtQuery *query, XtCorner corner, int dim, double value)
{
	if (isnan(value))
	{
		query->ordered = false;
		return;
	}
	XtRestrictMin(query, corner, dim,
				 least_double(equals_from_below, value - EPSILON, value));
	/* FPeq(a, b) and FPeq(-a, -b) agree, so the upper end is the lower one mirrored. */
	XtRestrictMax(query, corner, dim,
				 -least_double(equals_from_below, -value - EPSILON, -value));
}
