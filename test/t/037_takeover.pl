# Goal: a session or worker that can neither end its fold nor stay leaves it to the next fold, of whatever process: nothing is
# lost, no space leaks, and the index is in use meanwhile.
# Method: a session stands still at a step of a fold (xtree.debug_halt); the index and others grow beyond the shared memory
# that it has attached, and a shim (shim/scarce.c) lets it attach no more, so that it cannot end the fold. Then it goes, by
# itself or terminated. With data checksums.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);
use XTreeFaults;
use XTreeTest;

my $node = new_server('takeover', init => [ extra => ['--data-checksums'] ],
	conf => "max_locks_per_transaction = 256\nxtree.max_log_size = '1GB'\nxtree.log_size_limit = '2GB'\n");
create_table($node, 't');
# So many nodes that a change of all of them needs more version records than the first pieces of their array hold.
$node->safe_psql('postgres', add_rows('t', 1, 40_000) . 'ALTER INDEX t_b SET (fillfactor = 10)');
$node->stop;
my $control = scarce_start($node);
my $next = 1_000_000;
my $fillers = 0;

sub stopped
{
	my ($pid) = @_;
	for (1 .. 600)
	{
		return 1 if slurp_file("/proc/$pid/stat") =~ /\) T /;
		sleep(0.05);
	}
	return 0;
}

# More memory for the registry than a process has that has stood still meanwhile.
sub fill_memory
{
	my $to = $fillers + 60;
	$node->safe_psql('postgres', join ' ', map { "CREATE TABLE filler_$_ (p point); CREATE INDEX ON filler_$_ USING xtree (p); INSERT INTO filler_$_ VALUES (point(1, 1));" }
		  $fillers + 1 .. $to);
	$fillers = $to;
}

foreach my $place ('fold_begun', 'fold_written', 'fold_published')
{
	foreach my $end ('leaves', $place eq 'fold_written' ? 'is terminated' : ())
	{
		my $what = "$place, and the session $end";
		$node->safe_psql('postgres', 'REINDEX INDEX t_b; CHECKPOINT;' . add_rows('t', $next, $next + 1999));
		my $session = $node->background_psql('postgres', on_error_stop => 0);
		$session->set_query_timer_restart;
		my $pid = $session->query_safe('SELECT pg_backend_pid()');
		$session->query_safe("SET xtree.debug_halt = '$place'");
		$session->{stdin} .= "SELECT xtree_checkpoint('t_b');\n";
		$session->{run}->pump_nb;
		ok(stopped($pid), "$what: a session stands still in its fold");
		fill_memory();
		$node->safe_psql('postgres', add_rows('t', $next + 2000, $next + 6000));
		scarce($control, segments => 0);
		kill 'TERM', $pid if $end eq 'is terminated';
		kill 'CONT', $pid;
		if ($end eq 'leaves')
		{
			$session->{run}->pump until "$session->{stderr}$session->{stdout}" =~ /ERROR.*\n|^t$/m;
			like($session->{stderr}, qr/ERROR:  could not (map|attach|resize|open) .*shared memory/, "$what: it could not end it");
			# The index goes on, in this state too.
			scarce($control);
			$node->safe_psql('postgres', add_rows('t', $next + 12001, $next + 12100) . 'DELETE FROM t WHERE id % 101 = 5;');
			my ($code, $out, $err) = $node->psql('postgres', "SELECT xtree_checkpoint('t_b')");
			like($err, qr/ERROR:  could not fold.*\n.*earlier fold .* could not be ended/, "$what: folds of others wait for it to go") or diag($out);
			scarce($control, segments => 0);
		}
		eval { $session->quit };
		for (1 .. 600)
		{
			last if !-e "/proc/$pid";
			sleep(0.05);
		}
		ok(!-e "/proc/$pid", "$what: it is gone");
		scarce($control);
		$node->safe_psql('postgres', add_rows('t', $next + 12101, $next + 12200) . 'DELETE FROM t WHERE id % 103 = 7; VACUUM t;');
		is($node->safe_psql('postgres', "SELECT xtree_checkpoint('t_b')"), 't', "$what: the next session folds");
		is($node->safe_psql('postgres', "SELECT log_bytes FROM xtree_stats('t_b')"), '0', 'and empties the log');
		index_equals_heap($node, 't', $what);
		$node->safe_psql('postgres', add_rows('t', $next + 12201, $next + 12300) . 'DELETE FROM t WHERE id % 107 = 9');
		my $expected = answers_by($node, 't', 'seq');
		$node->stop('immediate');
		$control = scarce_start($node);
		is(index_equals_heap($node, 't', "$what, then stopped"), $expected, 'and nothing is lost');
		$next += 20_000;
	}
}
$node->stop;
command_ok([ 'pg_checksums', '--check', '-D', $node->data_dir ], 'all pages verify');
unlike(slurp_file($node->logfile), qr/PANIC|assertion failed|terminated by signal (11|6|7)\b/, 'no process died');
done_testing();
