# Goal: after the server is stopped at once, at any moment, index and heap agree.
# Method: rounds of insert, update, delete and vacuum with a checkpoint in some of them, each ended by
# an immediate stop; one round has uncommitted work open, others are stopped while sessions write.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use XTreeTest;

my $node = new_server('crash');
create_table($node, 't');

# Nothing but the CREATE is in the WAL.
$node->stop('immediate');
$node->start;
index_equals_heap($node, 't', 'empty index');

# The rest of each round depends on what the rounds before left in data file, log and WAL.
my $rows = 0;
foreach my $round (1 .. 6)
{
	my ($from, $to) = ($rows + 1, $rows + 3000);

	$node->safe_psql('postgres', add_rows('t', $from, $to - 1000));
	$node->safe_psql('postgres', 'CHECKPOINT') if $round % 3 == 0;
	$node->safe_psql('postgres', add_rows('t', $to - 999, $to));
	$node->safe_psql('postgres', "UPDATE t SET p = point(p[0] + 1, p[1]) WHERE id % 11 = $round");
	$node->safe_psql('postgres', "DELETE FROM t WHERE id % 13 = $round");
	$node->safe_psql('postgres', 'VACUUM t') if $round % 2 == 0;
	$node->safe_psql('postgres', "SELECT xtree_checkpoint('t_p')") if $round == 4;
	$rows = $to;
	my $before = answers_by($node, 't', 'seq');
	$node->stop('immediate');
	$node->start;
	is(index_equals_heap($node, 't', "round $round"), $before, "round $round: all rows are there");
}

# Work that is not committed is not found, and does not disturb what is.
my $session = $node->background_psql('postgres');
$session->query_safe('BEGIN');
$session->query_safe(add_rows('t', 100001, 102000) =~ s/\s+/ /gr);
$node->safe_psql('postgres', 'SELECT pg_switch_wal()');
$node->stop('immediate');
eval { $session->quit };
$node->start;
index_equals_heap($node, 't', 'open transaction');
is($node->safe_psql('postgres', 'SELECT count(*) FROM t WHERE id > 100000'), '0',
	'rows of the open transaction are gone');
$node->safe_psql('postgres', 'VACUUM t');
index_equals_heap($node, 't', 'vacuum of what the open transaction left');

# Stopped in the middle of writing, several sessions at once.
foreach my $round (1 .. 3)
{
	my @writers;
	foreach my $writer (1 .. 3)
	{
		my $base = 1_000_000 * ($round * 10 + $writer);
		my $script = join("\n", map { add_rows('t', $base + $_ * 100, $base + $_ * 100 + 99) } 0 .. 199);
		push @writers, start_session($node, $script);
	}
	my $enough = $node->poll_query_until('postgres',
		"SELECT count(*) >= 600 FROM t WHERE id >= $round * 10000000 AND id < ($round + 1) * 10000000");
	ok($enough, "writers of round $round got going");
	$node->safe_psql('postgres', 'CHECKPOINT') if $round == 2;
	$node->safe_psql('postgres', 'VACUUM t') if $round == 3;
	$node->stop('immediate');
	eval { $_->finish } foreach @writers;
	$node->start;
	index_equals_heap($node, 't', "stopped while writing, round $round");
}

# A build that the WAL alone must bring back: no checkpoint since.
$node->safe_psql('postgres', 'CHECKPOINT');
$node->safe_psql('postgres', 'REINDEX TABLE t');
$node->safe_psql('postgres', add_rows('t', 200001, 201000));
$node->stop('immediate');
$node->start;
index_equals_heap($node, 't', 'rebuilt, then stopped');

# A record takes no more bytes than the digits of its key need, and gives back each bit.
$node->safe_psql('postgres', 'CREATE TABLE k (b box, p point); CREATE INDEX k_b ON k USING xtree (b);
	CREATE INDEX k_p ON k USING xtree (p); CHECKPOINT;');
my $start_lsn = $node->lsn('insert');
$node->safe_psql('postgres', "INSERT INTO k VALUES (box(point(-122.4194155, 37.7749295), point(179.9999999, 89)), point(0.1, -0.0000001)),
	(box(point(1 / 3.0, 0), point(1, 1)), point(-0.1, 1 / 3.0)), (box(point(0.5, -0.25), point('Infinity', 3e38::float4)), point(-0.0, '-Infinity')),
	(box(point(0.1, '-0'), point(0.2, 0.3)), point('-0', 0.1)), (box(point('NaN', 0), point(1, 1)), point('NaN', 'NaN')), (NULL, NULL)");
my ($records) = run_command([ 'pg_waldump', '-p', $node->data_dir . '/pg_wal', '-s', $start_lsn, '-e', $node->lsn('flush'), '-r', 'custom158' ]);
is(join(' ', $records =~ m{len \(rec/tot\): +(\d+)/}g), '62 54 78 62 62 54 78 62 62 54 46 46', 'the bytes of records');
my $exact = "SET enable_seqscan = off; SET enable_bitmapscan = off; SELECT %s::text FROM k WHERE %s ORDER BY 1";
my @asked = (sprintf($exact, 'b', "b && box '((-1000,-1000),(1000,1000))'"), sprintf($exact, 'p', "p <@ box '((-1000,-Infinity),(1000,1000))'"));
$node->safe_psql('postgres', 'VACUUM k'); # For index-only scans.
my @exactly = map { $node->safe_psql('postgres', $_) } @asked;
$node->stop('immediate');
$node->start;
is($node->safe_psql('postgres', $asked[$_]), $exactly[$_], "answers of the index alone, $_") foreach 0 .. 1;
is($node->safe_psql('postgres', 'SELECT xtree_check(oid, true) FROM pg_class WHERE relname ~ $$^k_$$'), "\n", 'keys of all kinds of digits');

# Twice in a row: recovery itself leaves a state that recovers.
$node->stop('immediate');
$node->start;
$node->stop('immediate');
$node->start;
index_equals_heap($node, 't', 'stopped three times in a row');
$node->stop;
$node->start;
index_equals_heap($node, 't', 'clean stop');

unlike(slurp_file($node->logfile), qr/PANIC|broken|terminated by signal 11/, 'the log has no bad news');
done_testing();
