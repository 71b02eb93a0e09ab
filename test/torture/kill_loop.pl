# Goal: no kill at any moment, of any process, loses or invents an index entry.
# Method: sessions write, copy, vacuum, rebuild, prepare and fold at random; after a random time one of
# them, a fold worker, the flusher, the checkpointer, the postmaster or the whole server is killed,
# sometimes again and again during the recovery; then index and heap are compared and xtree_check walks
# everything. A second table is written by transactions whose WAL is not flushed, and compared only
# some crashes later, when other operations have been given the lost LSNs.
# TORTURE_MINUTES and TORTURE_SEED in the environment.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin, "$FindBin::RealBin/../t";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);
use XTreeTest;

my $minutes = $ENV{TORTURE_MINUTES} // 2;
my $seed = $ENV{TORTURE_SEED} // int(time);
srand($seed);
note("seed $seed");

# Every other run has data checksums.
my $node = new_server('kill', init => $seed % 2 ? [ extra => ['--data-checksums'] ] : [], conf => qq(
restart_after_crash = on
max_prepared_transactions = 20
max_connections = 40
xtree.max_log_size = '256kB'
xtree.flush_interval = '50ms'
checkpoint_timeout = 30s
autovacuum = on
autovacuum_naptime = 1s
log_statement = none
));
create_table($node, 't');
create_table($node, 'quiet');
$node->safe_psql('postgres', add_rows('t', 1, 5000) . add_rows('quiet', 1, 2000));

my $next = 10_000;

sub write_rows
{
	my ($table) = @_;
	my $count = 1 + int(rand(400));
	my $from = $next;
	$next += $count;
	return add_rows($table // 't', $from, $next - 1);
}

# COPY with places of its own choosing; every third row has no key.
sub copy_rows
{
	my $script = "COPY t FROM stdin;\n";
	foreach (1 .. 1 + int(rand(300)))
	{
		my ($x, $y) = map { sprintf '%.3f', rand(200) - 100 } 1 .. 2;
		$script .= $next % 3 ? "$next\t($x,$y)\t($x,$y),($x,$y)\n" : "$next\t\\N\t\\N\n";
		$next++;
	}
	return "$script\\.\n";
}

# Each returns a script of many small steps.
my @activities = (
	sub { join "\n", map { write_rows() } 1 .. 60 },
	sub { join "\n", map { copy_rows() } 1 .. 20 },
	sub { "SET synchronous_commit = off;\n" . join "\n", map { write_rows() } 1 .. 60 },
	sub { join "\n", map { 'BEGIN; ' . write_rows() . (rand() < 0.5 ? 'ROLLBACK;' : 'COMMIT;') } 1 .. 60 },
	sub { join "\n", map { 'BEGIN; ' . write_rows() . 'SAVEPOINT s; ' . write_rows() . 'ROLLBACK TO s; ' . write_rows() . 'COMMIT;' } 1 .. 30 },
	sub { join "\n", map { sprintf 'UPDATE t SET p = point(p[0] + 0.25, p[1]), b = box(p, point(1, 1)) WHERE id %% 101 = %d;', rand(101) } 1 .. 30 },
	sub { join "\n", map { sprintf 'DELETE FROM t WHERE id %% 53 = %d; VACUUM t;', rand(53) } 1 .. 10 },
	sub { "VACUUM t;\nSELECT pg_sleep(0.1);\n" x 10 },
	sub { "SELECT xtree_checkpoint('t_p'), xtree_checkpoint('t_b');\nSELECT pg_sleep(0.05);\n" x 20 },
	sub { "CHECKPOINT;\nSELECT pg_sleep(0.2);\n" x 10 },
	# A checkpoint just behind the last record of an operation, and one that does not wait for it.
	sub { join "\n", map { write_rows() . "CHECKPOINT;\nSELECT xtree_checkpoint('t_p');" } 1 .. 10 },
	sub { rand() < 0.5 ? 'REINDEX INDEX t_p;' : 'REINDEX INDEX CONCURRENTLY t_b;' },
	sub { 'DROP INDEX IF EXISTS t_more; CREATE INDEX CONCURRENTLY t_more ON t USING xtree (p);' },
	sub { join "\n", map { 'BEGIN; ' . write_rows() . sprintf("PREPARE TRANSACTION 'x%d'; %s", $next, rand() < 0.7 ? sprintf("COMMIT PREPARED 'x%d';", $next) : '') } 1 .. 10 },
	sub { qq(SET enable_seqscan = off; SELECT count(*) FROM t WHERE b && box '((-90,-90),(90,90))';\n) x 50 });

# A process of the server by kind; workers without a database are seen by the system alone.
my %title = (session => qr/ postgres \[local\] /, checkpointer => qr/: checkpointer/,
	folder => qr/: xtree fold/, flusher => qr/: xtree flusher/, startup => qr/: startup/);

sub postmaster
{
	my ($pid) = eval { split /\n/, slurp_file($node->data_dir . '/postmaster.pid') };
	return $pid;
}

sub victim
{
	my ($kind) = @_;
	my $postmaster = postmaster();

	return undef if !$postmaster;
	# Fold workers live for some milliseconds only.
	for (my $tries = $kind eq 'folder' ? 100 : 1; $tries > 0; $tries--)
	{
		my @found = grep { $_ =~ $title{$kind} } split /\n/, `ps --ppid $postmaster -o pid=,args=`;
		return $1 if @found && $found[ rand @found ] =~ /^\s*(\d+)/;
		sleep(0.01);
	}
	return undef;
}

sub start_server
{
	my ($wait) = @_;
	return system('pg_ctl', '-s', $wait, '-D', $node->data_dir, '-l', $node->logfile, '-o',
		'--cluster-name=kill', 'start');
}

# Starts the server and stops it again before or soon after its recovery has ended.
sub kill_recovery
{
	start_server('-W');
	sleep(0.02 + rand(0.6));
	my $startup = rand() < 0.5 ? victim('startup') : undef;
	kill 'KILL', $startup if defined $startup;
	for (1 .. 100)
	{
		last if system("pg_ctl -s -D '" . $node->data_dir . "' -m immediate stop 2>/dev/null") == 0
		  || !defined postmaster();
		sleep(0.05);
	}
}

# The postmaster alone is killed: its children notice by themselves, and until then nothing can start.
sub kill_postmaster
{
	$node->kill9;
	for (1 .. 200)
	{
		if (start_server('-w') == 0)
		{
			$node->_update_pid(1);
			return;
		}
		sleep(0.1);
	}
	die 'the server does not start again';
}

# Not by poll_query_until, which feeds its query through a pipe, and dies where the server is gone first.
sub wait_until_up
{
	for (1 .. 1200)
	{
		return if system("psql -Xq -d '" . $node->connstr('postgres') . "' -c 'SELECT true' >/dev/null 2>&1") == 0;
		sleep(0.1);
	}
	die 'the server does not come up again';
}

my $end = time + 60 * $minutes;
my %kills;
my $recoveries_killed = 0;
my $round = 0;
my $logged = 0;
while (time < $end)
{
	my @sessions = map { start_session($node, $activities[ rand @activities ]->()) } 1 .. 2 + int(rand(4));
	my $kind = (qw(session session checkpointer folder folder flusher postmaster server server server clean))[ rand 11 ];

	$round++;
	if (rand() < 0.4)
	{
		# What is not flushed may be lost by the host, and must then be lost by the index.
		push @sessions, start_session($node, "SET synchronous_commit = off;\n" .
			  join("\n", map { write_rows('quiet') } 1 .. 5) .
			  'BEGIN;' . write_rows('quiet') . 'SELECT pg_sleep(5)');
	}
	sleep(0.05 + rand(1.5));
	my $pid = $title{$kind} ? victim($kind) : undef;
	$kind = 'server' if $title{$kind} && !defined $pid;
	$kills{$kind}++;
	if ($kind eq 'server') { $node->stop('immediate') }
	elsif ($kind eq 'clean') { $node->stop('fast') }
	elsif ($kind eq 'postmaster') { kill_postmaster() }
	else { kill 'KILL', $pid }
	eval { $_->finish } foreach @sessions;
	if ($kind eq 'server')
	{
		for (my $again = int(rand(4)); $again > 0; $again--)
		{
			kill_recovery();
			$recoveries_killed++;
		}
	}
	if ($kind eq 'server' || $kind eq 'clean') { $node->start }
	else { wait_until_up() }

	# Prepared transactions survive; half of them stay for the next round.
	foreach my $prepared (split /\n/, $node->safe_psql('postgres', 'SELECT gid FROM pg_prepared_xacts'))
	{
		next if rand() < 0.5;
		$node->safe_psql('postgres', (rand() < 0.5 ? 'COMMIT' : 'ROLLBACK') . " PREPARED '$prepared'");
	}
	# What an interrupted CONCURRENTLY left is invalid, and the user's to drop. A prepared transaction
	# that has used the table would block that.
	if ($node->safe_psql('postgres', 'SELECT count(*) FROM pg_prepared_xacts') eq '0' || $round % 3 == 0)
	{
		$node->safe_psql('postgres', "ROLLBACK PREPARED '$_'")
		  foreach split /\n/, $node->safe_psql('postgres', 'SELECT gid FROM pg_prepared_xacts');
		$node->safe_psql('postgres', "DROP INDEX $_")
		  foreach split /\n/, $node->safe_psql('postgres', 'SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid');
		$node->safe_psql('postgres', 'DROP INDEX IF EXISTS t_more');
	}
	index_equals_heap($node, 't', "round $round, killed: $kind");
	if (rand() < 0.2)
	{
		index_equals_heap($node, 'quiet', "round $round, quiet table");
		$node->safe_psql('postgres', 'DELETE FROM quiet WHERE id % 3 = 0; VACUUM quiet') if rand() < 0.3;
	}
	my $news = slurp_file($node->logfile, $logged);
	$logged += length $news;
	unlike($news, qr/PANIC|broken|terminated by signal (11|6|7)\b|TRAP/, "round $round: the log has no bad news");
	if (!Test::More->builder->is_passing)
	{
		diag("stopping at the first difference; seed $seed; data directory kept: " . $node->data_dir);
		last;
	}
	$node->safe_psql('postgres', 'DELETE FROM t WHERE id % 2 = 0; VACUUM t') if $round % 20 == 0;
}
note("$round rounds: " . join(', ', map { "$_ $kills{$_}" } sort keys %kills) .
	  ", recoveries killed $recoveries_killed");
done_testing();
