# Goal: when the power goes off, what was committed is there and index and heap agree; that is, the
# host's checkpoints carry the engine's log, and nothing that counts depends on what nobody synced.
# Method: the server runs on a disk that forgets what was not synced (shim/power.h): exactly that in
# some rounds, any part of it in others. First one step at a time, then under a load of everything at
# once, cut at random moments, also during the recovery, or after everything was killed and started again. And a disk that lies about the engine's log,
# which must be noticed here, or else this test would prove nothing. POWER_ROUNDS and POWER_SEED in the environment.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);
use XTreeFaults;
use XTreeTest;

my $rounds = $ENV{POWER_ROUNDS} // 3;
my $seed = $ENV{POWER_SEED} // int(time);
srand($seed);
note("seed $seed");

my $node = new_server('power', init => [ extra => [ '--wal-segsize=1', '--data-checksums' ] ], conf => qq(
fsync = on
synchronous_commit = on
full_page_writes = on
wal_sync_method = fdatasync
wal_level = replica
checkpoint_timeout = 1h
max_connections = 40
max_wal_size = 64MB
min_wal_size = 4MB
xtree.flush_interval = 0
xtree.max_log_size = '1GB'
));
create_table($node, 't');
$node->stop;
power_on($node);

sub cut_and_recover
{
	my ($what, $cut_seed) = @_;
	note("$what: " . cut_power($node, $cut_seed));
	power_on($node);
}


# One step at a time. Nobody but the host's checkpointer syncs the log here: no flusher, no fold. What
# survives of the unsynced: nothing, or in the scripts with a question mark any part.
my $before;
my $at = 1;
my %step = (
	insert => sub { $node->safe_psql('postgres', add_rows('t', $at, $at + 399)); $at += 400 },
	delete => sub { $node->safe_psql('postgres', "DELETE FROM t WHERE id % 7 = $at % 7; VACUUM t") },
	fold => sub { $node->safe_psql('postgres', "SELECT xtree_checkpoint('t_p'), xtree_checkpoint('t_b')") },
	rebuild => sub { $node->safe_psql('postgres', 'REINDEX TABLE t') },
	checkpoint => sub { $node->safe_psql('postgres', 'CHECKPOINT') });
foreach my $script (
	'insert checkpoint', 'insert checkpoint delete insert ?', 'insert fold ?',
	'insert fold checkpoint insert', 'rebuild insert', 'rebuild ?', 'rebuild checkpoint insert', 'rebuild insert fold ?')
{
	foreach my $step (split / /, $script)
	{
		$step{$step}->() if $step ne '?';
	}
	$before = answers_by($node, 't', 'seq');
	my $syncs = power_syncs($node);
	cut_and_recover($script, $script =~ /\?/ ? 1 + int(rand(1e9)) : 0);
	is(answers_by($node, 't', 'index'), $before, "$script, then no power");
	cmp_ok(power_syncs($node), '>', $syncs, 'the shim saw the recovery');
}
is(index_equals_heap($node, 't', 'after all scripts'), $before, 'all rows are there');
$node->stop;
$node->command_ok([ 'pg_checksums', '--check', '-D', $node->data_dir ], 'page checksums hold');
power_forget($node);
power_on($node);

# Everything at once. Each session says which of its transactions were acknowledged.
$node->append_conf('postgresql.conf', "xtree.max_log_size = '256kB'\nxtree.flush_interval = '20ms'\n");
$node->reload;
my $next = 1_000_000;
my %acknowledged;

sub writer
{
	my $script = '';
	foreach my $step (1 .. 200)
	{
		my $count = 1 + int(rand(150));
		$script .= 'BEGIN; ' . add_rows('t', $next, $next + $count - 1);
		$script .= 'SAVEPOINT s; DELETE FROM t WHERE id % 41 = 3; ROLLBACK TO s; ' if $step % 9 == 0;
		$script .= "COMMIT;\n\\echo committed $next $count\n";
		$next += $count;
	}
	return $script;
}

my @others = (
	sub { "CHECKPOINT;\nSELECT pg_sleep(0.1);\n" x 40 },
	sub { "SELECT xtree_checkpoint('t_p'), xtree_checkpoint('t_b');\nSELECT pg_sleep(0.05);\n" x 40 },
	sub { "UPDATE t SET p = point(p[0] + 0.25, p[1]) WHERE id % 31 = 2 AND id < 1000000;\nVACUUM t;\n" x 40 },
	sub { "REINDEX INDEX t_p;\nREINDEX INDEX CONCURRENTLY t_b;\nSELECT pg_sleep(0.1);\n" x 20 },
	sub { "CREATE INDEX t_more ON t USING xtree (b);\nDROP INDEX t_more;\nTRUNCATE other;\n" . add_rows('other', 1, 500) x 20 });

sub load
{
	my @sessions;
	foreach my $script (writer(), writer(), map { $_->() } @others)
	{
		my %session = (out => '', err => '');
		my $file = PostgreSQL::Test::Utils::tempdir_short() . '/script';
		append_to_file($file, $script);
		$session{run} = IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr('postgres'), '-f', $file ],
			'<', \undef, '>', "$file.out", '2>', "$file.err");
		$session{file} = "$file.out";
		push @sessions, \%session;
	}
	return @sessions;
}

create_table($node, 'other');
foreach my $round (1 .. $rounds)
{
	my @sessions = load();
	my $cut_seed = $round % 3 == 0 ? 0 : 1 + int(rand(1e9));

	sleep(0.3 + rand(2));
	if ($round % 2 == 0)
	{
		# All processes are killed, another server builds on what they left in the page cache, and then the power goes.
		kill_server($node);
		power_on($node);
		push @sessions, load();
		sleep(rand(2));
	}
	note("round $round, seed $cut_seed: " . cut_power($node, $cut_seed));
	foreach my $session (@sessions)
	{
		eval { $session->{run}->finish };
		my $said = slurp_file($session->{file});
		$acknowledged{$1} = $2 while $said =~ /^committed (\d+) (\d+)$/mg;
	}
	# The power comes back and goes again.
	foreach my $again (1 .. int(rand(3)))
	{
		power_start($node);
		sleep(rand(0.6));
		note('again: ' . cut_power($node, rand() < 0.3 ? 0 : 1 + int(rand(1e9))));
	}
	power_on($node);

	# What an interrupted CONCURRENTLY left is invalid, and the user's to drop.
	$node->safe_psql('postgres', "DROP INDEX $_")
	  foreach split /\n/, $node->safe_psql('postgres', 'SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid');
	$node->safe_psql('postgres', 'CREATE INDEX IF NOT EXISTS t_b ON t USING xtree (b); DROP INDEX IF EXISTS t_more');
	my %found = split /[|\n]/, $node->safe_psql('postgres', 'SELECT id, 1 FROM t WHERE id >= 1000000');
	my @lost;
	foreach my $from (keys %acknowledged)
	{
		push @lost, grep { !$found{$_} } $from .. $from + $acknowledged{$from} - 1;
	}
	is(scalar(@lost), 0, "round $round: all acknowledged rows are there") or diag("lost: @lost[0 .. 9]");
	index_equals_heap($node, $_, "round $round") foreach ('t', 'other');
	last unless Test::More->builder->is_passing;
}
note(scalar(keys %acknowledged) . ' acknowledged transactions');

# A disk that lies about the log. The test must see that rows are missing, or the index be broken.
power_lies($node, '*_vm');
$node->append_conf('postgresql.conf', "xtree.max_log_size = '1GB'\nxtree.flush_interval = 0\n");
$node->reload;
$node->safe_psql('postgres', 'REINDEX TABLE t; CHECKPOINT');
$node->safe_psql('postgres', add_rows('t', 900_001, 900_500) . 'CHECKPOINT;');
cut_and_recover('lies about the log', 0);
power_lies($node, undef);
my ($code, $out, $err) = $node->psql('postgres', "SELECT xtree_check('t_p', true)");
isnt($code, 0, 'without the syncs of the log rows are lost, and the test notices');
unlike(slurp_file($node->logfile), qr/PANIC|terminated by signal (11|6)\b/, 'the log has no bad news');
$node->stop('immediate');
done_testing();
