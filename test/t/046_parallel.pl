# Goal: sessions that insert into the same indexes at the same time leave what one after another would
# leave, beside everything that takes the index alone, and after any of them has been killed.
# Method: rounds of four sessions each, with data checksums on: left alone; beside VACUUM, folds,
# checkpoints, and a session that compares index and heap in one snapshot again and again (PARALLEL_ROUNDS
# times, default once); with one of them killed, or the server stopped at once, in the middle. That they did insert
# beside each other, and not only in turn, is read from xtree_stats. And a session that stops itself between
# its WAL record and its append, while another, whose record comes later, appends and commits.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);
use XTreeTest;

my $node = new_server('parallel',
	init => [ extra => ['--data-checksums'] ],
	conf => "restart_after_crash = on\nmax_wal_size = 64MB\n");
create_table($node, 't');

# Sessions of a round write ids of their own; statements are short, so many commit before a crash.
sub start_writers
{
	my ($round, $statements) = @_;
	my @writers;
	foreach my $writer (1 .. 4)
	{
		my $base = 1_000_000 * ($round * 10 + $writer);
		push @writers, start_session($node,
			join("\n", map { add_rows('t', $base + $_ * 100, $base + $_ * 100 + 99) } 0 .. $statements - 1));
	}
	return @writers;
}

sub rows_of
{
	my ($round) = @_;
	return $node->safe_psql('postgres',
		"SELECT count(*) FROM t WHERE id >= $round * 10000000 AND id < ($round + 1) * 10000000");
}

sub await_rows
{
	my ($round, $rows) = @_;
	ok($node->poll_query_until('postgres',
			"SELECT count(*) >= $rows FROM t WHERE id >= $round * 10000000 AND id < ($round + 1) * 10000000"),
		"writers of round $round got going");
}

my @writers = start_writers(1, 60);
$_->finish foreach @writers;
is(rows_of(1), '24000', 'all rows are there');
index_equals_heap($node, 't', 'sessions beside each other');
my $stats = q(SELECT shared_inserts > 100 AND lock_waits > 0 FROM xtree_stats('t_p'));
is($node->safe_psql('postgres', $stats), 't', 'sessions did share the lock')
  or diag($node->safe_psql('postgres',
	q(SELECT shared_inserts, exclusive_retries, lock_waits, latch_waits FROM xtree_stats('t_p'))));

# What one snapshot sees by the index and by the heap.
my $compare = <<'SQL';
BEGIN ISOLATION LEVEL REPEATABLE READ;
DO $$
DECLARE
	by_index text;
	by_heap text;
BEGIN
	SET LOCAL enable_bitmapscan = off;
	SET LOCAL enable_seqscan = off;
	SELECT count(*) || ' rows, sum ' || sum(id) INTO by_index FROM t WHERE p <@ box '((-90,-45),(90,45))';
	SET LOCAL enable_seqscan = on;
	SET LOCAL enable_indexscan = off;
	SELECT count(*) || ' rows, sum ' || sum(id) INTO by_heap FROM t WHERE p <@ box '((-90,-45),(90,45))';
	IF by_index IS DISTINCT FROM by_heap THEN
		RAISE EXCEPTION 'index: %, heap: %', by_index, by_heap;
	END IF;
END $$;
COMMIT;
SQL
foreach my $round (1 .. $ENV{PARALLEL_ROUNDS} // 1)
{
	@writers = start_writers(100 + $round, 60);
	my $reader = start_session($node, "\\set ON_ERROR_STOP 1\n" . $compare x 25);
	foreach my $turn (1 .. 6)
	{
		my $of = ($round * 6 + $turn) % 101;
		$node->safe_psql('postgres', "DELETE FROM t WHERE id % 101 = $of; VACUUM t");
		$node->safe_psql('postgres', "SELECT xtree_checkpoint('t_p'), xtree_checkpoint('t_b')");
		$node->safe_psql('postgres', 'CHECKPOINT');
		$node->safe_psql('postgres', q(SELECT xtree_check('t_p', true), xtree_check('t_b')));
	}
	$_->finish foreach @writers;
	ok($reader->finish, 'each snapshot saw the same by index and by heap');
	index_equals_heap($node, 't', 'beside VACUUM, folds and checkpoints');
}

# A backend is killed: everybody starts again, without the latches and promises of shared memory.
foreach my $round (3 .. 5)
{
	@writers = start_writers($round, 400);
	await_rows($round, 2000);
	$node->safe_psql('postgres', 'CHECKPOINT') if $round == 4;
	$node->safe_psql('postgres', q(SELECT xtree_checkpoint('t_p'))) if $round == 5;
	my $pid = $node->safe_psql('postgres',
		q(SELECT pid FROM pg_stat_activity WHERE query LIKE '%INSERT INTO t%' AND pid <> pg_backend_pid() LIMIT 1));
	ok($pid ne '', 'there is a session to kill');
	kill 'KILL', $pid;
	eval { $_->finish } foreach @writers;
	ok(await_server($node), 'the server comes back');
	index_equals_heap($node, 't', "one session killed, round $round");
}

foreach my $round (6, 7)
{
	@writers = start_writers($round, 400);
	await_rows($round, 2000);
	$node->safe_psql('postgres', 'CHECKPOINT') if $round == 7;
	$node->stop('immediate');
	eval { $_->finish } foreach @writers;
	$node->start;
	index_equals_heap($node, 't', "stopped at once, round $round");
}

$node->stop;
command_ok([ 'pg_checksums', '--check', '-D', $node->data_dir ], 'all pages verify');

# --- A session that stands still amid an insertion. Without checksums: they are given at the end of a
# transaction, by who has the index alone.
$node = new_server('halted', conf => "restart_after_crash = on\n");
create_table($node, 't');
# So many that no leaf and no block of a log is about to be full, which would take the lock alone.
$node->safe_psql('postgres', add_rows('t', 1, 600));

sub stopped_pids
{
	my ($postmaster) = split /\n/, slurp_file($node->data_dir . '/postmaster.pid');
	return map { /^\s*(\d+)\s+T/ } split /\n/, `ps --ppid $postmaster -o pid=,stat=`;
}

sub stopped_session
{
	my ($place, $id) = @_;
	my $session = start_session($node, "SET xtree.debug_halt = '$place';
		INSERT INTO t VALUES ($id, point(1, 1), box(point(1, 1), point(2, 2)));");
	my @pids;
	for (1 .. 400)
	{
		last if (@pids = stopped_pids());
		sleep(0.05);
	}
	is(scalar @pids, 1, "$place: the session has stopped itself");
	return ($session, @pids);
}

foreach my $place ('record', 'applied')
{
	my $base = $place eq 'record' ? 200_000_000 : 300_000_000;
	# One that is alone holds the lock so that another waits; from then on they share it.
	my ($session) = stopped_session($place, $base + 1);
	my $other = start_session($node, "INSERT INTO t VALUES ($base + 2, point(1, 1), box(point(1, 1), point(2, 2)));");
	ok($node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'xtree')),
		"$place: another waits for the lock");
	while (my @pids = stopped_pids())
	{
		kill 'CONT', @pids;
		sleep(0.1);
	}
	$_->finish foreach $session, $other;

	my $before = $node->safe_psql('postgres', q(SELECT shared_inserts FROM xtree_stats('t_p')));
	($session, my @pids) = stopped_session($place, $base + 3);
	# (No timeout ends a wait for the lock.)
	my $beside = start_session($node, "INSERT INTO t VALUES ($base + 4, point(1, 1), box(point(1, 1), point(2, 2)));");
	ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM t WHERE id = $base + 4"), "$place: another does not wait");
	cmp_ok($node->safe_psql('postgres', q(SELECT shared_inserts FROM xtree_stats('t_p'))), '>', $before,
		"$place: and now another inserts beside it");
	my $logged = -s $node->logfile;
	my $checkpoint = start_session($node, 'CHECKPOINT');
	sleep(1);
	unlike(slurp_file($node->logfile, $logged), qr/checkpoint complete/, "$place: a checkpoint waits for the first");
	kill 'KILL', @pids;
	foreach ($session, $beside, $checkpoint) { eval { $_->finish } }
	ok(await_server($node), "$place: the server comes back");
	index_equals_heap($node, 't', "$place: killed beside another");
	is($node->safe_psql('postgres', "SET enable_seqscan = off; SELECT string_agg((id - $base)::text, ' ' ORDER BY id)
		FROM t WHERE p <@ box '((1,1),(1,1))' AND id > $base AND id < $base + 10"), '1 2 4',
		"$place: who has committed is there");
}
$node->stop;
done_testing();
