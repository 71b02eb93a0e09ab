/*
 * xtopclass.c: operator classes: what a type's values look like as keys, and which operators an
 * operator class may name.
 *
 * A key is the bounding box of a value in double precision: exactly for points, boxes and polygons
 * (whose values carry their box), rounded outward for circles. Values that cannot be put in order,
 * because a coordinate is NaN, get NaN keys; the engine keeps those beside the main tree and every
 * query rechecks them (src/README.md, "SQL surface").
 */
#include "postgres.h"

#include <math.h>

#include "access/amvalidate.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "catalog/pg_amop.h"
#include "catalog/pg_opclass.h"
#include "catalog/pg_opfamily.h"
#include "catalog/pg_type_d.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/float.h"
#include "utils/fmgroids.h"
#include "utils/geo_decls.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

#include "xtree.h"

/* Strategy numbers beyond stratnum.h, as core's point_ops for GiST has them. */
#define XT_STRATEGY_DISTANCE	15
#define XT_STRATEGY_IN_BOX		28
#define XT_STRATEGY_IN_POLYGON	48
#define XT_STRATEGY_IN_CIRCLE	68

/* An operator that an operator class may have. */
typedef struct XtOperator
{
	Oid			lefttype;
	Oid			righttype;
	int16		strategy;
	Oid			function;		/* 0 ends the list */
} XtOperator;

/* The twelve position operators of one type. */
#define POSITION_OPERATORS(type, prefix) \
	{type, type, RTLeftStrategyNumber, prefix##LEFT}, \
	{type, type, RTOverLeftStrategyNumber, prefix##OVERLEFT}, \
	{type, type, RTOverlapStrategyNumber, prefix##OVERLAP}, \
	{type, type, RTOverRightStrategyNumber, prefix##OVERRIGHT}, \
	{type, type, RTRightStrategyNumber, prefix##RIGHT}, \
	{type, type, RTSameStrategyNumber, prefix##SAME}, \
	{type, type, RTContainsStrategyNumber, prefix##CONTAIN}, \
	{type, type, RTContainedByStrategyNumber, prefix##CONTAINED}, \
	{type, type, RTOverBelowStrategyNumber, prefix##OVERBELOW}, \
	{type, type, RTBelowStrategyNumber, prefix##BELOW}, \
	{type, type, RTAboveStrategyNumber, prefix##ABOVE}, \
	{type, type, RTOverAboveStrategyNumber, prefix##OVERABOVE}

static const XtOperator xt_operators[] = {
	POSITION_OPERATORS(BOXOID, F_BOX_),
	POSITION_OPERATORS(POLYGONOID, F_POLY_),
	POSITION_OPERATORS(CIRCLEOID, F_CIRCLE_),
	{POINTOID, POINTOID, RTLeftStrategyNumber, F_POINT_LEFT},
	{POINTOID, POINTOID, RTRightStrategyNumber, F_POINT_RIGHT},
	{POINTOID, POINTOID, RTSameStrategyNumber, F_POINT_EQ},
	{POINTOID, POINTOID, RTBelowStrategyNumber, F_POINT_BELOW},
	{POINTOID, POINTOID, RTAboveStrategyNumber, F_POINT_ABOVE},
	{POINTOID, POINTOID, RTOldBelowStrategyNumber, F_POINT_BELOW},
	{POINTOID, POINTOID, RTOldAboveStrategyNumber, F_POINT_ABOVE},
	{POINTOID, BOXOID, XT_STRATEGY_IN_BOX, F_ON_PB},
	{POINTOID, POLYGONOID, XT_STRATEGY_IN_POLYGON, F_PT_CONTAINED_POLY},
	{POINTOID, CIRCLEOID, XT_STRATEGY_IN_CIRCLE, F_PT_CONTAINED_CIRCLE},
	{POINTOID, POINTOID, XT_STRATEGY_DISTANCE, F_POINT_DISTANCE},
	{BOXOID, POINTOID, XT_STRATEGY_DISTANCE, F_DIST_BP},
	{POLYGONOID, POINTOID, XT_STRATEGY_DISTANCE, F_DIST_POLYP},
	{CIRCLEOID, POINTOID, XT_STRATEGY_DISTANCE, F_DIST_CPOINT},
	{0, 0, 0, 0}
};

static bool
type_is_supported(Oid type)
{
	return type == POINTOID || type == BOXOID || type == POLYGONOID || type == CIRCLEOID;
}

/* --- Keys ------------------------------------------------------------------------------------- */

void
XtFillSpec(Relation index, XtSpec *spec)
{
	const XtreeOptions *options = (const XtreeOptions *) index->rd_options;
	const Oid	type = index->rd_opcintype[0];

	if (!type_is_supported(type))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("access method \"xtree\" cannot index type %s", format_type_be(type)),
				 errhint("Types point, box, polygon and circle can be indexed.")));
	memset(spec, 0, sizeof(*spec));
	spec->dims = 2;
	spec->coord = XT_F64;
	spec->kind = type == POINTOID ? XT_POINT : XT_BOX;
	spec->leaf_fill_percent = options ? options->fillfactor : XTREE_FILLFACTOR_DEFAULT;
}

static void
set_key(const BOX *box, double *lo, double *hi)
{
	lo[0] = box->low.x;
	lo[1] = box->low.y;
	hi[0] = box->high.x;
	hi[1] = box->high.y;
}

/*
 * The head of a polygon, with its bounding box, is enough; and where it is neither compressed nor elsewhere, it
 * is read where it lies, aligned or not.
 */
static void
polygon_key(struct varlena *value, double *lo, double *hi)
{
	struct varlena *head = value;
	BOX			box;

	if (VARATT_IS_EXTERNAL(value) || VARATT_IS_COMPRESSED(value))
		head = PG_DETOAST_DATUM_SLICE(value, 0, offsetof(POLYGON, p) - VARHDRSZ);
	memcpy(&box, VARDATA_ANY(head) + offsetof(POLYGON, boundbox) - VARHDRSZ, sizeof(box));
	set_key(&box, lo, hi);
	if (head != value)
		pfree(head);
}

/*
 * The square around a circle. The operators compute with center and radius, each step rounding in
 * proportion to those, so the square is widened in proportion to them too, whatever their difference.
 */
static void
circle_key(const CIRCLE *circle, double *lo, double *hi)
{
	const double r = circle->radius;
	const double center[2] = {circle->center.x, circle->center.y};

	for (int dim = 0; dim < 2; dim++)
	{
		const double slack = fabs(center[dim]) * 1.0e-15 + r * 1.0e-15;

		/* An infinite center or radius makes the slack infinite: then it must not spoil the sum. */
		lo[dim] = center[dim] - r;
		hi[dim] = center[dim] + r;
		if (isfinite(slack))
		{
			lo[dim] -= slack;
			hi[dim] += slack;
		}
	}
}

bool
XtFormKey(Relation index, const Datum *values, const bool *isnull, double *lo, double *hi)
{
	if (isnull[0])
		return false;

	switch (index->rd_opcintype[0])
	{
		case POINTOID:
			{
				Point	   *point = DatumGetPointP(values[0]);

				lo[0] = hi[0] = point->x;
				lo[1] = hi[1] = point->y;
				break;
			}
		case BOXOID:
			set_key(DatumGetBoxP(values[0]), lo, hi);
			break;
		case POLYGONOID:
			polygon_key((struct varlena *) DatumGetPointer(values[0]), lo, hi);
			break;
		case CIRCLEOID:
			circle_key(DatumGetCircleP(values[0]), lo, hi);
			break;
		default:
			elog(ERROR, "unexpected type %u in index \"%s\"",
				 index->rd_opcintype[0], RelationGetRelationName(index));
	}

	/*
	 * One NaN makes the whole key unordered. So does a box inside out, which no core function makes:
	 * pruning by it would be wrong, rechecking it is right.
	 */
	if (!(lo[0] <= hi[0] && lo[1] <= hi[1]))
		lo[0] = lo[1] = hi[0] = hi[1] = get_float8_nan();
	return true;
}

/* --- Validation ------------------------------------------------------------------------------- */

static const XtOperator *
find_operator(Oid lefttype, Oid righttype, int16 strategy)
{
	for (const XtOperator *op = xt_operators; op->function != 0; op++)
	{
		if (op->lefttype == lefttype && op->righttype == righttype && op->strategy == strategy)
			return op;
	}
	return NULL;
}

/* Whether one operator of the family is what its strategy number says; tells the user if not. */
static bool
validate_operator(Form_pg_amop amop, const char *family)
{
	const XtOperator *op = find_operator(amop->amoplefttype, amop->amoprighttype,
										 amop->amopstrategy);
	const char	purpose = amop->amopstrategy == XT_STRATEGY_DISTANCE ? AMOP_ORDER : AMOP_SEARCH;
	Oid			result_type = BOOLOID;

	if (op == NULL)
	{
		ereport(INFO,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("operator family \"%s\" of access method %s contains operator %s with invalid strategy number %d",
						family, "xtree", format_operator(amop->amopopr), amop->amopstrategy)));
		return false;
	}
	if (amop->amoppurpose != purpose ||
		(purpose == AMOP_ORDER &&
		 !opfamily_can_sort_type(amop->amopsortfamily, get_op_rettype(amop->amopopr))))
	{
		ereport(INFO,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("operator family \"%s\" of access method %s contains invalid ORDER BY specification for operator %s",
						family, "xtree", format_operator(amop->amopopr))));
		return false;
	}
	if (purpose == AMOP_ORDER)
		result_type = FLOAT8OID;
	if (!check_amop_signature(amop->amopopr, result_type, amop->amoplefttype,
							  amop->amoprighttype) ||
		get_opcode(amop->amopopr) != op->function)
	{
		ereport(INFO,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("operator family \"%s\" of access method %s contains operator %s with wrong signature",
						family, "xtree", format_operator(amop->amopopr)),
				 errdetail("Strategy number %d stands for function %s.",
						   amop->amopstrategy, format_procedure(op->function))));
		return false;
	}
	return true;
}

bool
xtvalidate(Oid opclassoid)
{
	bool		result = true;
	HeapTuple	classtup;
	HeapTuple	familytup;
	Form_pg_opclass classform;
	CatCList   *oprlist;
	CatCList   *proclist;
	char	   *family;

	classtup = SearchSysCache1(CLAOID, ObjectIdGetDatum(opclassoid));
	if (!HeapTupleIsValid(classtup))
		elog(ERROR, "cache lookup failed for operator class %u", opclassoid);
	classform = (Form_pg_opclass) GETSTRUCT(classtup);

	familytup = SearchSysCache1(OPFAMILYOID, ObjectIdGetDatum(classform->opcfamily));
	if (!HeapTupleIsValid(familytup))
		elog(ERROR, "cache lookup failed for operator family %u", classform->opcfamily);
	family = NameStr(((Form_pg_opfamily) GETSTRUCT(familytup))->opfname);

	if (!type_is_supported(classform->opcintype) || OidIsValid(classform->opckeytype))
	{
		ereport(INFO,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("operator class \"%s\" of access method %s has an unsupported type",
						NameStr(classform->opcname), "xtree")));
		result = false;
	}

	oprlist = SearchSysCacheList1(AMOPSTRATEGY, ObjectIdGetDatum(classform->opcfamily));
	for (int i = 0; i < oprlist->n_members; i++)
	{
		if (!validate_operator((Form_pg_amop) GETSTRUCT(&oprlist->members[i]->tuple), family))
			result = false;
	}

	proclist = SearchSysCacheList1(AMPROCNUM, ObjectIdGetDatum(classform->opcfamily));
	if (proclist->n_members > 0)
	{
		ereport(INFO,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("operator family \"%s\" of access method %s contains support functions, but none are used",
						family, "xtree")));
		result = false;
	}

	ReleaseCatCacheList(proclist);
	ReleaseCatCacheList(oprlist);
	ReleaseSysCache(familytup);
	ReleaseSysCache(classtup);
	return result;
}

/*
 * No query needs any one operator to be there, so members depend softly on their family: they may be
 * dropped from it.
 */
void
xtadjustmembers(Oid opfamilyoid, Oid opclassoid, List *operators, List *functions)
{
	ListCell   *lc;

	foreach(lc, operators)
	{
		OpFamilyMember *op = (OpFamilyMember *) lfirst(lc);

		op->ref_is_hard = false;
		op->ref_is_family = true;
		op->refobjid = opfamilyoid;
	}
}
