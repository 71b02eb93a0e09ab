# Goal: a database copied file by file holds whole xtree indexes on a standby too.
# Method: the standby folds in its own time, so its log may hold operations where the primary's is
# empty. Bring it there (fold on the primary alone), copy the database by either strategy, and compare
# both servers' copies with the source; then write to the copy and compare again.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use XTreeTest;

my $primary = new_server('primary');
create_table($primary, 't');
$primary->safe_psql('postgres', add_rows('t', 1, 5000));
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

my $question = "SELECT count(*), sum(id) FROM t WHERE b && box '((-200,-100),(200,100))'";
my $by_index = 'SET enable_seqscan = off; SET enable_bitmapscan = off;';

foreach my $strategy ('wal_log', 'file_copy')
{
	$primary->safe_psql('postgres', add_rows('t', 10000, 12000) . 'DELETE FROM t WHERE id >= 11000');
	$primary->safe_psql('postgres', "SELECT xtree_checkpoint('t_b'), xtree_checkpoint('t_p')");
	$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
	cmp_ok($standby->safe_psql('postgres', "SELECT log_bytes FROM xtree_stats('t_b')"),
		'>', 0, "$strategy: the standby's log holds operations");

	$primary->safe_psql('template1', "CREATE DATABASE copy_$strategy TEMPLATE postgres STRATEGY $strategy");
	$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
	my $expected = $primary->safe_psql('postgres', $question);
	foreach my $round ('copied', 'written to')
	{
		foreach my $node ($primary, $standby)
		{
			is($node->safe_psql("copy_$strategy", $by_index . $question),
				$expected, "$strategy, $round: the index on " . $node->name . ' answers as the source');
			my ($code, $out, $err) =
			  $node->psql("copy_$strategy", "SELECT xtree_check('t_b', true), xtree_check('t_p', true)");
			is($code, 0, "$strategy, $round: xtree_check on " . $node->name) or diag($err);
		}
		last if $round eq 'written to';
		$primary->safe_psql("copy_$strategy", add_rows('t', 20000, 21000));
		$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
		$expected = $primary->safe_psql("copy_$strategy", "SET enable_indexscan = off; SET enable_bitmapscan = off; $question");
	}
	$primary->safe_psql('postgres', 'DELETE FROM t WHERE id >= 10000');
}
$standby->stop;
$primary->stop;
unlike(slurp_file($standby->logfile), qr/broken|could not fold/, "the standby's log has no bad news");
done_testing();
