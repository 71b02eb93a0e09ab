# Goal: host checkpoints and the engine's own (folds), at any place among inserts, deletes and
# crashes, lose and repeat nothing.
# Method: a small log limit, so that folds are frequent; checkpoints before, between and after
# operations, each pattern ended by an immediate stop; then all at once by several sessions.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use XTreeTest;

my $node = new_server('checkpoint', conf => "xtree.max_log_size = '256kB'\n");
create_table($node, 't');

my %step = (
	i => sub { $node->safe_psql('postgres', add_rows('t', $_[0], $_[0] + 399)) },
	d => sub { $node->safe_psql('postgres', "DELETE FROM t WHERE id % 23 = $_[0] % 23; VACUUM t") },
	C => sub { $node->safe_psql('postgres', 'CHECKPOINT') },
	F => sub { $node->safe_psql('postgres', "SELECT xtree_checkpoint('t_p'), xtree_checkpoint('t_b')") });
my $next = 1;
foreach my $pattern (qw(iC iF iCi iFi iCFi iFCi iFFi iCCi iFiC iCiF idFdi iFdCd diCid FF CC FC F C i))
{
	foreach my $letter (split //, $pattern)
	{
		$step{$letter}->($next);
		$next += 400 if $letter eq 'i';
	}
	my $before = answers_by($node, 't', 'seq');
	$node->stop('immediate');
	$node->start;
	is(answers_by($node, 't', 'index'), $before, "$pattern, then stopped");
}
index_equals_heap($node, 't', 'after all patterns');

# A checkpoint just behind the last record, before the commit: its end is the redo point.
foreach my $round (1 .. 20)
{
	$node->safe_psql('postgres', "BEGIN; INSERT INTO t VALUES (500000 + $round, point($round, $round), box(point($round, $round), point(0, 0))); CHECKPOINT; COMMIT");
	$node->safe_psql('postgres', add_rows('t', 510000 + $round, 510000 + $round)) if $round % 2;
}
my $before = answers_by($node, 't', 'seq');
$node->stop('immediate');
$node->start;
is(index_equals_heap($node, 't', 'redo points'), $before, 'records around redo points are there once');

# The log limit starts folds by itself.
my $folds = q(SELECT checkpoints > 0 FROM xtree_stats('t_p'));
$node->safe_psql('postgres', add_rows('t', 600000, 640000));
ok($node->poll_query_until('postgres', $folds), 'a long log was folded without being asked');
ok($node->poll_query_until('postgres', q(SELECT log_bytes < 8 * 1024 * 1024 FROM xtree_stats('t_p'))),
	'and stays short');
index_equals_heap($node, 't', 'folded by the worker');

# Everything at once.
my @sessions;
sub session
{
	push @sessions, start_session($node, @_);
}
foreach my $writer (1 .. 2)
{
	my $base = 1_000_000 * $writer;
	session(join("\n", map { add_rows('t', $base + $_ * 200, $base + $_ * 200 + 199) } 0 .. 59));
}
session("CHECKPOINT;\nSELECT pg_sleep(0.05);\n" x 20);
session("SELECT xtree_checkpoint('t_p'), xtree_checkpoint('t_b');\nSELECT pg_sleep(0.03);\n" x 20);
session("DELETE FROM t WHERE id % 29 = 3 AND id < 600000;\nVACUUM t;\n" x 3);
session(q(SET enable_seqscan = off; SELECT count(*) FROM t WHERE b && box '((-90,-90),(90,90))';) x 50);
$_->finish foreach @sessions;
index_equals_heap($node, 't', 'checkpoints, folds, vacuum, scans and inserts together');
$before = answers_by($node, 't', 'seq');
$node->stop('immediate');
$node->start;
is(index_equals_heap($node, 't', 'the same, then stopped'), $before, 'no row was lost');
$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|broken|terminated by signal 11/, 'the log has no bad news');
done_testing();
