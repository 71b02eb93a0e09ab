# Goal: an operation counts exactly if the WAL says so: one whose record ends at the redo point counts,
# one whose WAL was lost does not, even when another operation has been given its LSN; and whatever a
# process was doing when it stopped for ever, before, while or after a checkpoint ran.
# Method: three parts. Records that end at the redo point, which pg_walinspect confirms. Sessions whose
# WAL lies in memory only when the server is stopped at once, while their operations are in the
# indexes' logs: several restarts, the LSNs used again, and only then a look at the indexes. Sessions that
# stop at each step of an operation, a fold and a build, or at random instants; a checkpoint beside them,
# which must wait where it would otherwise lose an operation; then all processes are killed.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);
use XTreeTest;

my $rounds = $ENV{GHOST_ROUNDS} // 2;
my $seed = $ENV{GHOST_SEED} // int(time);
srand($seed);
note("seed $seed");

# The WAL writer must not do what the test wants undone.
my $node = new_server('ghosts', conf => qq(
wal_writer_delay = 10s
wal_writer_flush_after = 1GB
wal_buffers = 16MB
bgwriter_delay = 10s
checkpoint_timeout = 1h
xtree.flush_interval = '20ms'
));
create_table($node, $_) foreach 't', 'other';
$node->safe_psql('postgres', add_rows('t', 1, 2000) . 'CREATE EXTENSION pg_walinspect');

# --- Records that end at the redo point. CHECKPOINT in the same transaction comes before its commit.
my $hits = 0;
foreach my $round (1 .. 12)
{
	my $before = $node->safe_psql('postgres', 'SELECT pg_current_wal_insert_lsn()');
	my $operation = $round % 3 ? "INSERT INTO t VALUES (500000 + $round, NULL, box(point($round, $round), point(0, 0)))"
	  : "INSERT INTO t (id, p, b) SELECT 510000 + $round * 10 + i, point(i, $round), NULL FROM generate_series(1, 5) AS i";
	$node->safe_psql('postgres', "BEGIN; $operation; CHECKPOINT; COMMIT");
	my $redo = $node->safe_psql('postgres', 'SELECT redo_lsn FROM pg_control_checkpoint()');
	$hits += $node->safe_psql('postgres', "SELECT count(*) FROM pg_get_wal_records_info('$before', '$redo')
		WHERE resource_manager = 'xtree' AND end_lsn = '$redo'") if $redo ne $before;
	if ($round % 4 == 0)
	{
		my $expected = answers_by($node, 't', 'seq');
		$node->stop('immediate');
		$node->start;
		is(index_equals_heap($node, 't', "redo point, round $round"), $expected, "redo point, round $round: all rows are there once");
	}
}
cmp_ok($hits, '>=', 6, 'records of the index ended exactly at redo points');

# --- WAL that was never written.
sub frames
{
	my ($index) = @_;
	return $node->safe_psql('postgres', "SELECT log_bytes FROM xtree_stats('$index')");
}

foreach my $round (1 .. 3)
{
	$node->safe_psql('postgres', 'CHECKPOINT') if $round != 2;
	my $expected = answers_by($node, 't', 'seq');
	my $start = $node->safe_psql('postgres', 'SELECT pg_current_wal_flush_lsn()');
	my $bytes = frames('t_p');
	my $session = $node->background_psql('postgres');
	$session->query_safe('SET synchronous_commit = off');
	$session->query_safe('BEGIN');
	$session->query_safe(add_rows('t', 600_000, 600_400) =~ s/\s+/ /gr);
	$session->query_safe('DELETE FROM t WHERE id >= 600390');
	# The flusher brings the logs, and nobody the WAL, to the disk.
	sleep(0.1);
	my ($flushed, $inserted) = split /\|/, $node->safe_psql('postgres', 'SELECT pg_current_wal_flush_lsn(), pg_current_wal_insert_lsn()');
	cmp_ok(frames('t_p'), '>', $bytes + 10000, "ghosts, round $round: the log has the operations");
	$node->stop('immediate');
	eval { $session->quit };
	$node->start;
	is($node->safe_psql('postgres', "SELECT pg_current_wal_insert_lsn() < '$inserted'::pg_lsn"), 't',
		"ghosts, round $round: and the WAL lost them");
	# Nobody looks at the table while its LSNs are given to others.
	foreach my $again (1 .. 2)
	{
		$node->safe_psql('postgres', add_rows('other', $round * 10000 + $again * 1000, $round * 10000 + $again * 1000 + 300));
		$node->safe_psql('postgres', 'CHECKPOINT') if $again == $round;
		$node->stop($again == 1 ? 'immediate' : 'fast');
		$node->start;
	}
	$node->safe_psql('postgres', add_rows('other', $round * 10000 + 5000, $round * 10000 + 5400));
	is($node->safe_psql('postgres', "SELECT pg_current_wal_insert_lsn() > '$inserted'::pg_lsn"), 't',
		"ghosts, round $round: their LSNs were used again");
	is(index_equals_heap($node, 't', "ghosts, round $round"), $expected, "ghosts, round $round: none came back");
	index_equals_heap($node, 'other', "ghosts, round $round: the other table");
	$node->safe_psql('postgres', add_rows('t', 700_000 + $round * 1000, 700_000 + $round * 1000 + 500));
	$node->stop('immediate');
	$node->start;
	index_equals_heap($node, 't', "ghosts, round $round: written to");
}

# A fold makes operations durable, so it must not do that to what the WAL may lose.
{
	my $expected = answers_by($node, 't', 'seq');
	my $session = $node->background_psql('postgres');
	$session->query_safe('BEGIN');
	$session->query_safe(add_rows('t', 620_000, 620_400) =~ s/\s+/ /gr);
	my $inserted = $node->safe_psql('postgres', 'SELECT pg_current_wal_insert_lsn()');
	$node->safe_psql('postgres', "SELECT xtree_checkpoint('t_p'), xtree_checkpoint('t_b')");
	$node->stop('immediate');
	eval { $session->quit };
	$node->start;
	is($node->safe_psql('postgres', "SELECT pg_current_wal_insert_lsn() >= '$inserted'::pg_lsn"), 't',
		'a fold flushes the WAL of what it captures');
	is(index_equals_heap($node, 't', 'folded with unflushed WAL'), $expected, 'folded with unflushed WAL: nothing came back');
}

# --- Stopped at each step.
sub children
{
	my ($title) = @_;
	my ($postmaster) = split /\n/, slurp_file($node->data_dir . '/postmaster.pid');
	return map { /^\s*(\d+)/ } grep { $_ =~ $title } split /\n/, `ps --ppid $postmaster -o pid=,args=`;
}

sub kill_all
{
	my ($postmaster) = split /\n/, slurp_file($node->data_dir . '/postmaster.pid');
	my @all = children(qr/./);
	kill 'KILL', $postmaster, @all;
	$node->{_pid} = undef;
	# Shared memory is free when the last of them is gone.
	for (1 .. 200)
	{
		last if !grep { kill 0, $_ } @all;
		sleep(0.05);
	}
	unlink $node->data_dir . '/postmaster.pid';
}

# Whether a checkpoint that begins now completes, or waits for somebody.
sub checkpoint_completes
{
	my ($patience) = @_;
	my $logged = -s $node->logfile;
	my $session = start_session($node, 'CHECKPOINT');

	for (my $until = time + $patience; time < $until; sleep(0.05))
	{
		return 1 if slurp_file($node->logfile, $logged) =~ /checkpoint complete/;
	}
	return 0;
}

# A session stops itself at the place; the checkpoint must complete or not, as `completes` says.
sub halted
{
	my ($place, $completes, $statement, %options) = @_;
	my $what = "$place: " . ($options{what} // $statement);

	$node->safe_psql('postgres', $options{before}) if $options{before};
	my $expected = answers_by($node, 't', 'seq');
	my $session = start_session($node, "SET xtree.debug_halt = '$place';\n$statement");
	my $stopped = 0;
	for (1 .. 200)
	{
		my ($postmaster) = split /\n/, slurp_file($node->data_dir . '/postmaster.pid');
		$stopped = grep { /\bT/ } split /\n/, `ps --ppid $postmaster -o stat=`;
		last if $stopped;
		sleep(0.05);
	}
	ok($stopped, "$what: the session has stopped itself");
	# Other operations of the same index go on, unless its lock is held.
	$node->safe_psql('postgres', 'SET statement_timeout = 10000;' . add_rows('other', 1_000_000, 1_000_050) . 'DELETE FROM other WHERE id >= 1000000;');
	is(checkpoint_completes($completes ? 60 : 1), $completes,
		"$what: a checkpoint " . ($completes ? 'completes' : 'waits'));
	kill_all();
	eval { $session->finish };
	$node->start;
	is(index_equals_heap($node, 't', $what), $expected, "$what: as before");
	index_equals_heap($node, 'other', "$what: the other table");
}

my $insert = "INSERT INTO t VALUES (800000, point(1, 1), box(point(1, 1), point(2, 2)));";
halted('record', 0, $insert);
halted('applied', 0, $insert);
halted('record', 0, 'VACUUM t;', before => 'DELETE FROM t WHERE id % 11 = 4');
halted($_, 1, "SELECT xtree_checkpoint('t_p');", before => add_rows('t', 810_000, 810_100) . 'DELETE FROM t WHERE id >= 810000')
  foreach qw(fold_begun fold_written fold_published);
halted($_, 1, 'CREATE INDEX more ON t USING xtree (p);') foreach qw(build_images built);

# --- Frozen at any instant.
my $base = 1_000_000;
my ($waited, $completed) = (0, 0);
foreach my $round (1 .. $rounds)
{
	my @sessions = map {
		$base += 100_000;
		start_session($node, join("\n", map { add_rows('t', $base + $_ * 200, $base + $_ * 200 + 199) } 0 .. 99))
	} 1 .. 2;
	push @sessions, start_session($node, "SELECT xtree_checkpoint('t_p'), xtree_checkpoint('t_b');\n" x 500) if $round % 2;
	push @sessions, start_session($node, "DELETE FROM t WHERE id % 19 = $round; VACUUM t;\n" x 5) if $round % 3 == 0;
	push @sessions, start_session($node, 'CREATE INDEX more ON other USING xtree (p); DROP INDEX more;' x 50) if $round % 4 == 0;
	sleep(0.3 + rand(0.5));
	kill 'STOP', children(qr/ postgres \[local\] /);
	# Frozen between its record and its log entry, a writer holds the checkpoint up.
	checkpoint_completes(1.5) ? $completed++ : $waited++;
	kill_all();
	foreach (@sessions) { eval { $_->finish } }
	$node->start;
	$node->safe_psql('postgres', 'DROP INDEX IF EXISTS more');
	index_equals_heap($node, $_, "frozen and killed, round $round: $_") foreach 't', 'other';
}
note("checkpoints that had to wait for a frozen process: $waited, that completed: $completed");
$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|broken|terminated by signal (11|6|7)/, 'the log has no bad news');
done_testing();
