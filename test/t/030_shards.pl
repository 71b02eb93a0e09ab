# Goal: a table over several servers is searched by the servers' own xtree indexes: predicates and the
# order of nearest queries are sent to them, and the answers are those of one server.
# Method: three servers; a table in hash partitions, one local and two on the others through postgres_fdw;
# a copy of all rows in one table. Plans show what is sent, the shards' statistics what was read there.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use XTreeTest;

my $front = new_server('front');
my @shards = map { new_server("shard$_") } 1 .. 2;
my $rows = 9000;

$front->safe_psql('postgres', q(
	CREATE EXTENSION postgres_fdw;
	CREATE TABLE places (id bigint, p point, b box) PARTITION BY HASH (id);
	CREATE TABLE places_0 PARTITION OF places FOR VALUES WITH (MODULUS 3, REMAINDER 0);
	CREATE INDEX places_0_p ON places_0 USING xtree (p);
	CREATE INDEX places_0_b ON places_0 USING xtree (b);));
foreach my $i (1 .. 2)
{
	my $shard = $shards[ $i - 1 ];
	my ($host, $port) = ($shard->host, $shard->port);

	create_table($shard, "places_$i");
	$front->safe_psql('postgres', qq(
		CREATE SERVER shard$i FOREIGN DATA WRAPPER postgres_fdw
			OPTIONS (host '$host', port '$port', dbname 'postgres', async_capable 'true', batch_size '500');
		CREATE USER MAPPING FOR CURRENT_USER SERVER shard$i;
		CREATE FOREIGN TABLE places_$i PARTITION OF places FOR VALUES WITH (MODULUS 3, REMAINDER $i)
			SERVER shard$i;));
}
create_table($front, 'one');

# --- Rows go where they belong, and every server indexes its own.
$front->safe_psql('postgres', add_rows('places', 1, $rows) . add_rows('one', 1, $rows));
my $moves = sub { my $table = shift; return qq(
	DELETE FROM $table WHERE id % 31 = 7;
	UPDATE $table SET p = point(1 - id % 17, id % 13), b = box(point(id % 17, 2), point(0, id % 11)) WHERE id % 29 = 5;) };
$front->safe_psql('postgres', $moves->('places') . $moves->('one'));
$_->safe_psql('postgres', 'ANALYZE') foreach @shards;
$front->safe_psql('postgres', 'ANALYZE');
foreach my $i (1 .. 2)
{
	cmp_ok($shards[ $i - 1 ]->safe_psql('postgres', "SELECT count(*) FROM places_$i"),
		'>', $rows / 4, "shard $i has its share of the rows");
	index_equals_heap($shards[ $i - 1 ], "places_$i", "shard $i");
}

# --- What one server answers, three do.
my $expected = answers_by($front, 'one', 'seq');
is(answers_by($front, 'places', 'index'), $expected, 'the servers together answer as one');

# --- What is sent.
my $by_index = 'SET enable_seqscan = off; SET enable_bitmapscan = off;';
sub plan_of
{
	return $front->safe_psql('postgres', "$by_index EXPLAIN (VERBOSE, COSTS OFF) $_[0]");
}
sub remote_of
{
	return plan_of($_[0]) =~ /Remote SQL: (.*)/g;
}
my $window = "'(31,22),(-20,-15)'::box";
foreach my $case ([ 'p', '<@' ], [ 'b', '&&' ], [ 'b', '<@' ], [ 'b', '<<' ], [ 'b', '|>>' ])
{
	my ($column, $operator) = @$case;
	my $sql = "SELECT id FROM places WHERE $column $operator $window";
	my @remote = remote_of($sql);

	is(scalar(grep { /WHERE \(\($column \Q$operator\E '\(31,22\),\(-20,-15\)'(::box)?\)\)/ } @remote),
		2, "$column $operator is sent to both shards");
	unlike(plan_of($sql), qr/^\s*Filter:/m, 'and nothing is left to filter here');
}
like(plan_of("SELECT id FROM places WHERE b && $window"), qr/(Async Foreign Scan.*){2}/s,
	'the shards search at the same time');
like(plan_of("SELECT id FROM places WHERE b && $window"), qr/Index Scan using places_0_b/,
	'and the local partition is searched by its index');
like(plan_of("SELECT count(*) FROM places_1 WHERE b && $window"), qr/Remote SQL: SELECT count\(\*\)/,
	'one shard counts by itself');

my $nearest = q(ORDER BY p <-> '(8.2,-3.7)'::point);
my @remote = remote_of("SELECT id FROM places $nearest LIMIT 20");
is(scalar(grep { /ORDER BY \(p <-> '\(8.2,-3.7\)'(::point)?\) ASC NULLS LAST/ } @remote),
	2, 'each shard is asked for its rows in order of distance');
my $plan = plan_of("SELECT id FROM places $nearest LIMIT 20");
like($plan, qr/Limit.*Merge Append/s, 'the ordered answers are merged, and the merge is cut off');
unlike($plan, qr/^\s*(->)?\s*Sort$/m, 'and nothing is sorted here');
like((remote_of("SELECT id FROM places_1 $nearest LIMIT 20"))[0],
	qr/ORDER BY \(p <-> '\(8.2,-3.7\)'(::point)?\) ASC NULLS LAST LIMIT 20::bigint/,
	'to a single shard the limit is sent, too');

# --- What is read there: an ordered answer stops after a batch of rows, the shard's index being read no
# further.
my $read = sub { $_[0]->safe_psql('postgres', "SELECT idx_scan || ' ' || idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname ~ '_p\$' AND indexrelname !~ '^one'") };
$_->safe_psql('postgres', 'SELECT pg_stat_reset()') foreach @shards;
my $best = $front->safe_psql('postgres', "$by_index SELECT string_agg(d::text, ' ') FROM
	(SELECT p <-> '(8.2,-3.7)'::point AS d FROM places $nearest LIMIT 20) AS n");
is($best, $front->safe_psql('postgres', "SELECT string_agg(d::text, ' ') FROM
	(SELECT p <-> '(8.2,-3.7)'::point AS d FROM one $nearest LIMIT 20) AS n"), 'the nearest are the nearest of all');
foreach my $i (1 .. 2)
{
	my $shard = $shards[ $i - 1 ];

	ok($shard->poll_query_until('postgres', "SELECT idx_scan = 1 AND idx_tup_read BETWEEN 20 AND 400
		FROM pg_stat_user_indexes WHERE indexrelname = 'places_${i}_p'"),
		"shard $i has read a batch from its index, not the table")
	  or diag($read->($shard));
}

# --- A shard that crashes comes back with what was committed.
$shards[0]->stop('immediate');
$shards[0]->start;
is(answers_by($front, 'places', 'index'), $expected, 'after the crash of a shard the answers are the same');
$_->stop foreach $front, @shards;
done_testing();
