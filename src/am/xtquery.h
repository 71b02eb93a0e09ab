/*
 * xtquery.h: what xtquery.c, xtcompare.c and xtorder.c share.
 */
#ifndef XTQUERY_H
#define XTQUERY_H

#include "xtree.h"

/* A corner of a key's box. */
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

/* xtcompare.c: narrow a predicate, the last two to exactly the keys on which the host says yes. */
extern void XtRestrictMin(XtQuery *query, XtCorner corner, int dim, double bound);
extern void XtRestrictMax(XtQuery *query, XtCorner corner, int dim, double bound);
extern void XtCompareCorner(XtQuery *query, XtCorner corner, int dim, XtCompare cmp, double value);
extern void XtCompareEqual(XtQuery *query, XtCorner corner, int dim, double value);

/* xtquery.c: false if no key can match. */
extern bool XtPredicateIsPossible(const XtSpec *spec, const XtPredicate *predicate);

#endif							/* XTQUERY_H */
