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
