# Goal: a standby that is restarted and killed at random while its primary is at work, and queried all the
# time, never answers wrongly and never needs help; so does a standby of the standby. Either can be
# promoted at any moment.
# Method: writers, vacuum, folds, rebuilds and checkpoints on the primary; readers on both standbys, each
# comparing index and heap within one snapshot; the standbys are stopped (fast, immediate, one process
# killed) in turn. At the end the first is promoted in the middle of the load; it and the second, which
# follows it, must agree with their heaps and with each other. STANDBY_ROUNDS and STANDBY_SEED in the
# environment.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);
use XTreeTest;

my $rounds = $ENV{STANDBY_ROUNDS} // 2;
my $seed = $ENV{STANDBY_SEED} // int(time);
srand($seed);
note("seed $seed");

my $small_logs = "xtree.max_log_size = '256kB'\n";
my $primary = new_server('primary', init => [ allows_streaming => 1 ],
	conf => $small_logs . "max_prepared_transactions = 5\nwal_keep_size = 512MB\n");
create_table($primary, $_) foreach 't', 'u';
$primary->safe_psql('postgres', add_rows('t', 1, 3000) . add_rows('u', 1, 1000));
$primary->backup('base');

sub follower
{
	my ($name, $upstream) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init_from_backup($primary, 'base', has_streaming => 1);
	$node->enable_streaming($upstream) if $upstream != $primary;
	# Queries are not cancelled, since what they return is what this test is about. But not for ever: a reader that
	# waits for a table's lock, which replay of a TRUNCATE holds, while replay waits for the reader's snapshot to
	# end, would wait until the test ends; the host knows of no deadlock there.
	$node->append_conf('postgresql.conf', "restart_after_crash = on\nmax_standby_streaming_delay = 15s\n" .
		  "recovery_target_timeline = latest\ncheckpoint_timeout = 30s\n");
	$node->start;
	return $node;
}

my $first = follower('first', $primary);
my $second = follower('second', $first);

my $base = 0;
sub load_begins
{
	$base += 1_000_000;
	my @sessions = map { start_session($primary, $_) } (
		join("\n", map { add_rows('t', $base + $_ * 50, $base + $_ * 50 + 49) } 0 .. 79),
		join("\n", map { "DELETE FROM t WHERE id % 31 = $_; VACUUM t; UPDATE u SET b = box(p, p) WHERE id % 29 = $_;" } 0 .. 9),
		"SELECT xtree_checkpoint('t_p'), xtree_checkpoint('u_b'); SELECT pg_sleep(0.05);\n" x 10,
		join("\n", map { 'REINDEX INDEX u_p; CHECKPOINT; BEGIN; TRUNCATE u; ' . add_rows('u', $base + $_ * 50, $base + $_ * 50 + 499) .
				"COMMIT; BEGIN; " . add_rows('u', $base + 9000 + $_ * 20, $base + 9000 + $_ * 20 + 19) . "PREPARE TRANSACTION 'x'; SELECT pg_sleep(0.1); COMMIT PREPARED 'x';" } 0 .. 3));
	$primary->poll_query_until('postgres', "SELECT count(*) > 50 FROM t WHERE id >= $base");
	return @sessions;
}

# Index and heap are compared within one snapshot. Prints nothing unless they differ.
sub reader
{
	my ($node) = @_;
	my $script = "BEGIN ISOLATION LEVEL REPEATABLE READ;\n";
	foreach my $table ('t', 'u')
	{
		my $aggregate = "SELECT count(*), coalesce(md5(string_agg(id::text, ',' ORDER BY id)), 'none') AS ids FROM $table";
		foreach my $where ("p <@ box '((-1000,-1000),(1000,1000))'", "b && box '((-60,-45),(31,52))'", 'p IS NULL')
		{
			$script .= "SET LOCAL enable_seqscan = on; SET LOCAL enable_indexscan = off; SET LOCAL enable_bitmapscan = off;\n" .
			  "$aggregate WHERE $where \\gset heap_\n" .
			  "SET LOCAL enable_seqscan = off; SET LOCAL enable_indexscan = on;\n$aggregate WHERE $where \\gset index_\n" .
			  "SELECT 'differ: $table', :heap_count, :index_count WHERE :'heap_ids' IS DISTINCT FROM :'index_ids';\n";
		}
	}
	return start_session_with_output($node, ($script . "COMMIT;\n") x 100);
}

my @outputs;
sub start_session_with_output
{
	my ($node, $script) = @_;
	my ($handle, $file) = File::Temp::tempfile(DIR => PostgreSQL::Test::Utils::tempdir());

	print $handle $script;
	close $handle;
	push @outputs, $file;
	return IPC::Run::start([ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'), '-f', $file ],
		'<', \undef, '>', "$file.out", '2>', "$file.err");
}

# A reader may lose its server, or give way to replay (see above), and nothing else may happen to it.
sub readers_saw_no_error
{
	my ($what) = @_;
	my ($out, $err) = ('', '');

	foreach my $file (@outputs)
	{
		$out .= slurp_file("$file.out");
		$err .= join '', grep { !/server closed the connection|terminat|connection to server|shutting down|starting up|not yet accepting|crash|conflict with recovery|^\s|^LINE|^HINT|^DETAIL|WARNING/i }
		  split /^/, slurp_file("$file.err");
	}
	is($out, '', "$what: no reader saw index and heap differ");
	is($err, '', "$what: no reader saw an error");
	@outputs = ();
}

sub stop_somehow
{
	my ($node) = @_;
	my $how = (qw(fast immediate immediate startup session))[ rand 5 ];

	if ($how eq 'startup' || $how eq 'session')
	{
		my ($postmaster) = split /\n/, slurp_file($node->data_dir . '/postmaster.pid');
		my $title = $how eq 'startup' ? qr/: startup/ : qr/ postgres \[local\] /;
		my ($pid) = map { /^\s*(\d+)/ } grep { $_ =~ $title } split /\n/, `ps --ppid $postmaster -o pid=,args=`;
		if (defined $pid)
		{
			kill 'KILL', $pid;
			# Without its startup process a server gives up; without a session it starts anew.
			for (1 .. 100)
			{
				last if !-e $node->data_dir . '/postmaster.pid';
				last if $how eq 'session' && ($node->psql('postgres', 'SELECT 1'))[0] == 0;
				sleep(0.1);
			}
			$node->_update_pid(-1);
			return $how;
		}
		$how = 'immediate';
	}
	$node->stop($how);
	return $how;
}

foreach my $round (1 .. $rounds)
{
	my @sessions = load_begins();
	my @readers = map { reader($_) } $first, $second;
	my $node = $round % 2 ? $first : $second;
	sleep(0.2 + rand(0.8));
	my $how = stop_somehow($node);
	sleep(rand(0.5));
	$node->start if !defined $node->{_pid};
	# Once more, now in the middle of catching up.
	if (rand() < 0.5)
	{
		sleep(rand(0.5));
		$node->stop('immediate');
		$node->start;
	}
	$_->safe_psql('postgres', 'CHECKPOINT') foreach $first, $second;
	$_->finish foreach @sessions;
	my $what = "round $round, " . $node->name . " stopped: $how";
	my %expected = map { $_ => answers_by($primary, $_, 'seq') } 't', 'u';
	$primary->wait_for_catchup($first, 'replay', $primary->lsn('insert'));
	$first->wait_for_catchup($second, 'replay', $primary->lsn('insert'));
	foreach my $standby ($first, $second)
	{
		is(index_equals_heap($standby, $_, "$what, " . $standby->name . ": $_", no_check => 1), $expected{$_},
			"$what, " . $standby->name . ": $_ as on the primary") foreach 't', 'u';
	}
	foreach (@readers) { eval { $_->kill_kill; $_->finish } }
	readers_saw_no_error($what);
}

# Where hot_standby is off there are no workers, so the startup process keeps the logs short by itself.
my $warm = PostgreSQL::Test::Cluster->new('warm');
$warm->init_from_backup($primary, 'base', has_streaming => 1);
$warm->append_conf('postgresql.conf', "hot_standby = off\nxtree.max_log_size = '128kB'\nxtree.log_size_limit = '256kB'\ncheckpoint_completion_target = 0\n");
$warm->start;
foreach my $part (0 .. 5)
{
	# Restartpoints begin at checkpoints, and folds where one has passed what may be a build's images.
	$primary->safe_psql('postgres', 'CHECKPOINT');
	$primary->safe_psql('postgres', add_rows('t', 80_000_000 + $part * 10_000, 80_009_999 + $part * 10_000));
	$primary->wait_for_catchup($warm, 'replay', $primary->lsn('insert'));
}
my %expected_warm = map { $_ => answers_by($primary, $_, 'seq') } 't', 'u';
my %path = map { $_ => relation_path($primary, $_) . '_vm' } qw(t_p t_b);
$primary->wait_for_catchup($warm, 'replay', $primary->lsn('insert'));
cmp_ok(-s $warm->data_dir . "/$path{$_}", '<', 2_500_000, "warm standby: the log of $_ is short") foreach qw(t_p t_b);
$warm->stop('immediate');
unlink $warm->data_dir . '/standby.signal';
$warm->start;
await_server($warm);
is(index_equals_heap($warm, $_, "warm standby: $_"), $expected_warm{$_}, "warm standby: $_ as on the primary") foreach 't', 'u';
$warm->stop;

# Promoted while the primary writes, which is then gone.
my @sessions = load_begins();
$first->promote;
$primary->stop('immediate');
eval { $_->finish } foreach @sessions;
$first->safe_psql('postgres', "ROLLBACK PREPARED '$_'")
  foreach split /\n/, $first->safe_psql('postgres', 'SELECT gid FROM pg_prepared_xacts');
$first->safe_psql('postgres', add_rows('t', 90_000_000, 90_001_000) . 'DELETE FROM t WHERE id % 7 = 1; VACUUM t; REINDEX INDEX u_b');
my %expected = map { $_ => index_equals_heap($first, $_, "promoted under load: $_") } 't', 'u';
$first->wait_for_catchup($second, 'replay', $first->lsn('insert'));
is(index_equals_heap($second, $_, "follows the promoted: $_", no_check => 1), $expected{$_}, "follows the promoted: $_: the same rows")
  foreach 't', 'u';
$second->promote;
$second->stop('immediate');
$second->start;
index_equals_heap($second, $_, "promoted in its turn: $_") foreach 't', 'u';
$_->stop foreach $first, $second;
unlike(slurp_file($_->logfile), qr/PANIC|broken|cannot follow|terminated by signal (11|6|7)/, 'the log of ' . $_->name . ' has no bad news')
  foreach $primary, $warm, $first, $second;
done_testing();
