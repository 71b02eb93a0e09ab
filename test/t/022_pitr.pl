# Goal: recovery to any moment gives indexes that agree with the heap of that moment.
# Method: sessions insert, update, delete, vacuum, fold, checkpoint, rebuild and truncate while the WAL is
# archived and two base backups are taken. Then the backups are restored to moments chosen at random: WAL
# positions (which may lie within a transaction, or among the images of a build), transactions, times.
# At the moment itself the paused server is asked; after promotion it is walked, written to, stopped at
# once and asked again. PITR_POINTS and PITR_SEED in the environment.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use XTreeTest;

my $points = $ENV{PITR_POINTS} // 4;
my $seed = $ENV{PITR_SEED} // int(time);
srand($seed);
note("seed $seed");

my $node = new_server('origin', init => [ allows_streaming => 1, has_archiving => 1 ],
	conf => "xtree.max_log_size = '256kB'\nmax_prepared_transactions = 5\n");
create_table($node, $_) foreach 't', 'u';
$node->safe_psql('postgres', add_rows('t', 1, 3000) . add_rows('u', 1, 500));
# When each step of the load committed.
$node->safe_psql('postgres', 'CREATE TABLE moments (xid text DEFAULT pg_current_xact_id()::text, at timestamptz DEFAULT clock_timestamp())');
my $mark = 'INSERT INTO moments DEFAULT VALUES;';

sub load
{
	my ($base) = @_;
	return map { start_session($node, $_) } (
		join("\n", map { add_rows('t', $base + $_ * 60, $base + $_ * 60 + 59) . $mark } 0 .. 29),
		join("\n", map { 'BEGIN;' . add_rows('u', $base + $_ * 40, $base + $_ * 40 + 39) . 'SAVEPOINT s;' .
				add_rows('u', $base + 500_000 + $_ * 40, $base + 500_000 + $_ * 40 + 39) .
				($_ % 2 ? 'ROLLBACK TO s;' : 'RELEASE s;') . $mark . 'COMMIT;' } 0 .. 14),
		join("\n", map { "DELETE FROM t WHERE id % 37 = $_; $mark VACUUM t; UPDATE t SET p = point(p[0] + 0.5, p[1]) WHERE id % 41 = $_;" } 0 .. 5),
		join("\n", map { "SELECT xtree_checkpoint('t_p'), xtree_checkpoint('t_b'); " .
				($_ % 3 ? 'SELECT pg_sleep(0.05);' : 'CHECKPOINT;') } 0 .. 7),
		join("\n", map { "SELECT pg_sleep(0.1); REINDEX INDEX t_p; BEGIN; TRUNCATE u; " .
				add_rows('u', $base + 700_000 + $_ * 100, $base + 700_000 + $_ * 100 + 99) . "COMMIT; REINDEX INDEX CONCURRENTLY u_b;" } 0 .. 1));
}

my @starts;    # Where each backup can be restored from.
foreach my $round (0, 1)
{
	my @sessions = load(1_000_000 * ($round + 1));
	$node->poll_query_until('postgres', "SELECT count(*) > 5 FROM t WHERE id >= 1000000 * ($round + 1)");
	$node->backup("base$round");
	push @starts, {
		lsn => $node->safe_psql('postgres', "SELECT pg_current_wal_insert_lsn() - '0/0'"),
		moment => $node->safe_psql('postgres', 'SELECT count(*) FROM moments') };
	$_->finish foreach @sessions;
}
$_->finish foreach load(3_000_000);
my $end_lsn = $node->safe_psql('postgres', "SELECT pg_current_wal_insert_lsn() - '0/0'");
my @moments = map { [ split /\|/ ] } split /\n/, $node->safe_psql('postgres', 'SELECT xid, at FROM moments ORDER BY at');
$node->safe_psql('postgres', "SELECT pg_create_restore_point('end')");
my $segment = $node->safe_psql('postgres', 'SELECT pg_walfile_name(pg_switch_wal())');
$node->poll_query_until('postgres', "SELECT last_archived_wal >= '$segment' FROM pg_stat_archiver");

# A setting for a moment behind the start of a backup.
sub target
{
	my ($point, $start) = @_;
	my $moment = $moments[ $start->{moment} + int(rand(@moments - $start->{moment})) ];
	my $lsn = $start->{lsn} + int(rand($end_lsn - $start->{lsn}));

	return sprintf("recovery_target_lsn = '%X/%X'", $lsn >> 32, $lsn & 0xffffffff) if $point % 4 < 2;
	return "recovery_target_xid = '$moment->[0]'" if $point % 4 == 2;
	return "recovery_target_time = '$moment->[1]'";
}

# At the moment itself a table may be locked by a transaction that never ends there.
sub compare
{
	my ($copy, $what, %options) = @_;
	foreach my $table ('t', 'u')
	{
		next if $options{no_check} && $copy->safe_psql('postgres',
			"SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation::regclass::text LIKE '$table%'") ne '0';
		index_equals_heap($copy, $table, "$what: $table", %options);
	}
}

foreach my $point (0 .. $points - 1)
{
	my $round = $point / 2 % 2;
	my $target = target($point, $starts[$round]);
	my $copy = PostgreSQL::Test::Cluster->new("point$point");
	$copy->init_from_backup($node, "base$round", has_restoring => 1, standby => 0);
	$copy->append_conf('postgresql.conf', "$_\n") foreach ('archive_mode = off', $target,
		'recovery_target_action = pause', 'hot_standby = on');
	$copy->start;
	$copy->poll_query_until('postgres', "SELECT pg_get_wal_replay_pause_state() = 'paused'");
	compare($copy, "base$round, $target, paused", no_check => 1);
	$copy->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');
	$copy->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()');
	compare($copy, "base$round, $target, promoted");
	if ($point % 3 == 0)
	{
		$copy->safe_psql('postgres', add_rows($_, 9_000_000, 9_000_200) . "DELETE FROM $_ WHERE id % 7 = 0; VACUUM $_") foreach 't', 'u';
		$copy->stop('immediate');
		$copy->start;
		compare($copy, "base$round, $target, written to and stopped");
	}
	unlike(slurp_file($copy->logfile), qr/PANIC|broken|cannot follow|terminated by signal (11|6|7)/, "$target: the log has no bad news");
	$copy->stop;
	# Many points would fill the disk.
	$copy->clean_node;
}
$node->stop;
done_testing();
