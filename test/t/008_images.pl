# Goal: a redo point within the WAL images of an index's build, and later folds of that index, leave
# what was committed. Replay then restores some of the images and not the others.
# Method: a checkpoint as soon as a build says that it logs its images, until a redo point falls among them;
# then inserts, deletes and asks for folds, with no further checkpoint; an immediate stop; comparison.
# XTREE_IMAGES_ROUNDS: how often (default 1).
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use XTreeTest;

my $rounds = $ENV{XTREE_IMAGES_ROUNDS} // 1;
my $attempts_max = 15;
my $node = new_server('images', conf => "xtree.max_log_size = '64kB'\nwal_buffers = '64kB'\n");
create_table($node, 't');
$node->safe_psql('postgres', add_rows('t', 1, 120000));

# WAL images of a relation from an LSN on.
sub images_from
{
	my ($lsn, $path) = @_;
	my ($relation) = $path =~ m{(\d+/\d+)$};
	my $end = $node->safe_psql('postgres', 'SELECT pg_current_wal_flush_lsn()');
	my ($out, $err) = run_command([ 'pg_waldump', '--path', $node->data_dir . '/pg_wal', '--rmgr', 'XLOG',
			'--start', $lsn, '--end', $end ]);
	return scalar(() = $out =~ m{FPI.*?rel \d+/\Q$relation\E }g);
}

my $hits = 0;
my $next = 200000;
foreach my $round (1 .. $rounds)
{
	my $among = 0;
	foreach my $attempt (1 .. $attempts_max)
	{
		my $start = $node->safe_psql('postgres', 'SELECT pg_current_wal_insert_lsn()');
		my $build = start_session($node, 'REINDEX INDEX t_b;');
		# It may come too late; which it was is seen afterwards.
		$node->safe_psql('postgres', q(
			DO $$
			BEGIN
				FOR i IN 1..5000 LOOP
					PERFORM pg_stat_clear_snapshot();
					EXIT WHEN EXISTS (SELECT FROM pg_stat_progress_create_index WHERE phase LIKE '%writing WAL');
					PERFORM pg_sleep(0.001);
				END LOOP;
			END $$;
			CHECKPOINT));
		$build->finish;
		$node->safe_psql('postgres', 'SELECT txid_current()');
		my $path = relation_path($node, 't_b');
		my $redo = $node->safe_psql('postgres', 'SELECT redo_lsn FROM pg_control_checkpoint()');
		my $all = images_from($start, $path);
		my $after = images_from($redo, $path);
		next unless $after > 0 && $after < $all;
		note("round $round, attempt $attempt: $after of $all images after the redo point");
		$among = 1;
		last;
	}
	$hits += $among;
	$node->safe_psql('postgres', add_rows('t', $next, $next + 5000));
	$next += 5001;
	$node->safe_psql('postgres', "DELETE FROM t WHERE id % 31 = $round; VACUUM t");
	# Long enough for the fold worker, whose fold would overwrite what the images show.
	$node->safe_psql('postgres', 'SELECT pg_sleep(2)');
	$node->safe_psql('postgres', add_rows('t', $next, $next + 5000));
	$next += 5001;
	my $before = answers_by($node, 't', 'seq');
	$node->stop('immediate');
	$node->start;
	is(index_equals_heap($node, 't', "round $round"), $before, "round $round: no row was lost");
}
cmp_ok($hits, '>', 0, "$hits of $rounds rounds had a redo point among the images");

# Folds go on once a checkpoint has passed the images.
$node->safe_psql('postgres', 'REINDEX INDEX t_b');
$node->safe_psql('postgres', add_rows('t', $next, $next + 10));
is($node->safe_psql('postgres', q(SELECT xtree_checkpoint('t_b'))), 't',
	'xtree_checkpoint after a build makes the host checkpoint first');
is($node->safe_psql('postgres', q(SELECT log_bytes FROM xtree_stats('t_b'))), '0', 'and empties the log');
$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|broken|terminated by signal 11/, 'the log has no bad news');
done_testing();
