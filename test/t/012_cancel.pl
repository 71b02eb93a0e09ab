# Goal: cancel and statement_timeout end everything that takes long, clean: no lock, handle or pin is left, and
# the index is as it was.
# Method: each of them is begun on an index that is large enough, with timeouts that fall in several of its
# phases; the same session then uses the index, and others do. Sessions are terminated, too. How soon each
# ends is not asserted, since machines differ; it is noted.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time sleep);
use XTreeTest;

my $rows = $ENV{XTREE_CANCEL_ROWS} // 150000;
my $node = new_server('cancel', conf => "maintenance_work_mem = '512MB'\nxtree.max_log_size = '1GB'\n" .
	"xtree.log_size_limit = '2GB'\n");
create_table($node, 't');
$node->safe_psql('postgres', 'ALTER TABLE t DROP CONSTRAINT t_pkey; DROP INDEX t_b');

# Inserted row by row, so that the log is long.
$node->safe_psql('postgres', add_rows('t', 1, $rows), timeout => 300);
$node->safe_psql('postgres', 'VACUUM t');
my $everything = "p <@ box '((-1000,-1000),(1000,1000))'";
my $scan = 'SET enable_seqscan = off; SET enable_bitmapscan = off;';

my $cancelled = 0;

# Runs a statement with a timeout in a session that goes on, and then what must still work.
# On a busy machine taking the timeout back may take longer than it allows.
sub cancelled
{
	my ($what, $statement, $timeout_ms, $afterwards) = @_;
	my $begin = time;
	my ($code, $out, $err) = $node->psql('postgres', "
		SET client_min_messages = notice;
		\\set ON_ERROR_STOP 0
		SET statement_timeout = '${timeout_ms}ms';
		$statement;
		SET statement_timeout = 0;
		SET statement_timeout = 0;
		SET statement_timeout = 0;
		$afterwards", extra_params => [ '-v', 'ON_ERROR_STOP=0' ]);
	my $took = time - $begin;
	# How soon it would end by itself depends on the machine.
	like($err, qr/^$|ERROR:  canceling statement due to statement timeout/,
		"$what: is cancelled or done");
	$cancelled++ if $err ne '';
	note(sprintf('%s: the session took %.2f s', $what, $took));
	return $out =~ s/.*\n//sr;
}

my $count = $node->safe_psql('postgres', "SET enable_indexscan = off; SET enable_bitmapscan = off; SELECT count(*) FROM t WHERE $everything");
my $use = "$scan SELECT count(*) FROM t WHERE $everything";

# Loading an index whose log is long.
$node->restart;
my $out = cancelled('loading', $use, 20, $use);
is($out, $count, 'loading: then the index answers');
$node->restart;
# Another session waits for the one that loads, and is cancelled in that.
my $loader = start_session($node, $use);
sleep 0.05;
$out = cancelled('waiting for the load', $use, 10, $use);
$loader->finish;
is($out, $count, 'waiting for the load: then the index answers');
cmp_ok($cancelled, '>', 0, 'one of both was cancelled');

# A scan of everything, a check, a fold, a vacuum, a build. Timeouts fall at several moments of each.
my %statements = (
	scan => $use,
	check => "SELECT xtree_check('t_p', true)",
	stats => "SELECT entries FROM xtree_stats('t_p')",
	vacuum => "VACUUM (INDEX_CLEANUP on) t",
	build => 'CREATE INDEX t_q ON t USING xtree (p)');
foreach my $name ('scan', 'check', 'vacuum', 'build')
{
	$node->safe_psql('postgres', 'DELETE FROM t WHERE id % 7 = 3') if $name eq 'vacuum';
	$count = $node->safe_psql('postgres', "SET enable_indexscan = off; SET enable_bitmapscan = off; SELECT count(*) FROM t WHERE $everything");
	$cancelled = 0;
	my @timeouts = $name eq 'build' ? (5, 20, 60) : (1, 3, 20);
	foreach my $timeout (@timeouts)
	{
		$node->safe_psql('postgres', 'DROP INDEX IF EXISTS t_q');
		$out = cancelled("$name after $timeout ms", $statements{$name}, $timeout, $use);
		is($out, $count, "$name after $timeout ms: then the index answers");
	}
	cmp_ok($cancelled, '>', 0, "$name: was cancelled");
	$node->safe_psql('postgres', 'DROP INDEX IF EXISTS t_q');
	$node->safe_psql('postgres', $statements{$name});
	$node->safe_psql('postgres', 'DROP INDEX t_q') if $name eq 'build';
}

# A fold that is cancelled runs again at once.
$node->safe_psql('postgres', "UPDATE t SET id = id WHERE id % 3 = 0", timeout => 300);
my $folded = 0;
foreach my $timeout (1, 2, 5, 10, 20)
{
	my ($code, $stdout, $err) = $node->psql('postgres', "SET statement_timeout = $timeout; SELECT xtree_checkpoint('t_p')");
	$folded++ if $code == 0;
	like($err, qr/^$|canceling statement due to statement timeout/, "fold after $timeout ms: cancelled or done");
}
is($node->safe_psql('postgres', "SELECT xtree_checkpoint('t_p')"), 't', 'a fold after cancelled ones runs');
is($node->safe_psql('postgres', "SELECT log_bytes FROM xtree_stats('t_p')"), '0', 'and empties the log');

# A session that is terminated amid any of them leaves nothing either.
foreach my $name (sort keys %statements)
{
	my $session = start_session($node, "SET application_name = 'victim'; $statements{$name};");
	sleep 0.1;
	$node->safe_psql('postgres', q(SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'victim'));
	$session->finish;
	$node->safe_psql('postgres', 'DROP INDEX IF EXISTS t_q');
}
is($node->safe_psql('postgres', q(SELECT count(*) FROM pg_locks WHERE relation = 't_p'::regclass)), '0', 'no lock is left');
my $sound = $node->safe_psql('postgres', "SELECT xtree_check('t_p', true); $use");
is($sound =~ s/.*\n//sr, $count, 'in the end the index is sound');
unlike(slurp_file($node->logfile), qr/PANIC|terminated by signal|TRAP|assertion/, 'and nothing crashed');
$node->stop;
done_testing();
