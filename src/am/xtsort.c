/*
 * xtsort.c: puts the rows of a batch in the order of their heap pages, so that each page is pinned and
 * locked once.
 *
 * A radix sort over the bits in which the pages differ: a comparison sort took a quarter of the time of
 * a query with many rows. The order of rows within a page does not matter.
 */
#include "postgres.h"

#include "port/pg_bitutils.h"

#include "xtree.h"

#define ST_SORT sort_record_ids
#define ST_ELEMENT_TYPE uint64
/* Without the mark. */
#define ST_COMPARE(a, b) (*(a) << 1 < *(b) << 1 ? -1 : *(a) << 1 > *(b) << 1)
#define ST_SCOPE static
#define ST_DEFINE
#include "lib/sort_template.h"

/* Below this, counting into buckets costs more than comparing. */
#define RADIX_ROWS_MIN		48
#define DIGIT_BITS_MAX		8

static inline uint64
block_of(uint64 record_id)
{
	return (record_id & ~XT_RECORD_SURE) >> 16;
}

void
XtSortByBlock(uint64 *record_ids, uint64 *spare, int count)
{
	uint64		least;
	uint64		most;
	uint64		last;
	bool		in_order = true;
	int			bits;
	int			digit_bits;
	uint64	   *from = record_ids;
	uint64	   *to = spare;

	if (count < RADIX_ROWS_MIN)
	{
		sort_record_ids(record_ids, count);
		return;
	}
	least = most = last = block_of(record_ids[0]);
	for (int i = 1; i < count; i++)
	{
		const uint64 block = block_of(record_ids[i]);

		in_order &= block >= last;
		least = Min(least, block);
		most = Max(most, block);
		last = block;
	}
	if (in_order)
		return;

	/* As few passes as digits of at most eight bits need, and those of equal size. */
	bits = pg_leftmost_one_pos64(most - least) + 1;
	digit_bits = (bits + DIGIT_BITS_MAX - 1) / DIGIT_BITS_MAX;
	digit_bits = (bits + digit_bits - 1) / digit_bits;
	for (int shift = 0; shift < bits; shift += digit_bits)
	{
		const uint32 mask = (1u << digit_bits) - 1;
		uint16		starts[1 << DIGIT_BITS_MAX];
		uint16		start = 0;
		uint64	   *swap;

		memset(starts, 0, sizeof(uint16) << digit_bits);
		for (int i = 0; i < count; i++)
			starts[((block_of(from[i]) - least) >> shift) & mask]++;
		for (uint32 digit = 0; digit <= mask; digit++)
		{
			const uint16 rows = starts[digit];

			starts[digit] = start;
			start += rows;
		}
		for (int i = 0; i < count; i++)
			to[starts[((block_of(from[i]) - least) >> shift) & mask]++] = from[i];
		swap = from;
		from = to;
		to = swap;
	}
	if (from != record_ids)
		memcpy(record_ids, from, sizeof(uint64) * count);
}
