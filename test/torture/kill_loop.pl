# Goal: no kill at any moment, of any process, loses or invents an index entry.
# Method: sessions write, vacuum, rebuild, prepare and fold at random; after a random time one of them, a
# worker, the checkpointer or the whole server is killed; after each recovery index and heap are
# compared and xtree_check walks everything. TORTURE_MINUTES and TORTURE_SEED in the environment.
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
my $seed = $ENV{TORTURE_SEED} // time;
srand($seed);
note("seed $seed");

my $node = new_server('kill', conf => qq(
restart_after_crash = on
max_prepared_transactions = 10
max_connections = 40
xtree.max_log_size = '512kB'
checkpoint_timeout = 30s
autovacuum = on
autovacuum_naptime = 1s
log_statement = none
));
create_table($node, 't');
$node->safe_psql('postgres', add_rows('t', 1, 5000));

my $next = 10_000;

sub write_rows
{
	my $count = 1 + int(rand(400));
	my $from = $next;
	$next += $count;
	return add_rows('t', $from, $next - 1);
}

# Each returns a script of many small steps.
my @activities = (
	sub { join "\n", map { write_rows() } 1 .. 60 },
	sub { join "\n", map { 'BEGIN; ' . write_rows() . (rand() < 0.5 ? 'ROLLBACK;' : 'COMMIT;') } 1 .. 60 },
	sub { join "\n", map { 'BEGIN; ' . write_rows() . 'SAVEPOINT s; ' . write_rows() . 'ROLLBACK TO s; ' . write_rows() . 'COMMIT;' } 1 .. 30 },
	sub { join "\n", map { sprintf 'UPDATE t SET p = point(p[0] + 0.25, p[1]), b = box(p, point(1, 1)) WHERE id %% 101 = %d;', rand(101) } 1 .. 30 },
	sub { join "\n", map { sprintf 'DELETE FROM t WHERE id %% 53 = %d;', rand(53) } 1 .. 10 },
	sub { "VACUUM t;\nSELECT pg_sleep(0.1);\n" x 10 },
	sub { "SELECT xtree_checkpoint('t_p'), xtree_checkpoint('t_b');\nSELECT pg_sleep(0.05);\n" x 20 },
	sub { "CHECKPOINT;\nSELECT pg_sleep(0.2);\n" x 10 },
	sub { rand() < 0.5 ? 'REINDEX INDEX t_p;' : 'REINDEX INDEX CONCURRENTLY t_b;' },
	sub { 'DROP INDEX IF EXISTS t_more; CREATE INDEX CONCURRENTLY t_more ON t USING xtree (p);' },
	sub { join "\n", map { 'BEGIN; ' . write_rows() . sprintf("PREPARE TRANSACTION 'x%d'; COMMIT PREPARED 'x%d';", $next, $next) } 1 .. 10 },
	sub { qq(SET enable_seqscan = off; SELECT count(*) FROM t WHERE b && box '((-90,-90),(90,90))';\n) x 50 });

# A process of the server by kind; workers without a database are seen by the system alone.
my %title = (session => qr/ postgres \[local\] /, checkpointer => qr/: checkpointer/, worker => qr/: xtree /);

sub victim
{
	my ($kind) = @_;
	my ($postmaster) = split /\n/, slurp_file($node->data_dir . '/postmaster.pid');
	my @found = grep { $_ =~ $title{$kind} } split /\n/, `ps --ppid $postmaster -o pid=,args=`;

	return @found && $found[ rand @found ] =~ /^\s*(\d+)/ ? $1 : undef;
}

my $end = time + 60 * $minutes;
my %kills;
my $round = 0;
while (time < $end)
{
	my @sessions = map { start_session($node, $activities[ rand @activities ]->()) } 1 .. 2 + int(rand(4));
	my $kind = (qw(session session checkpointer worker server server clean))[ rand 7 ];

	$round++;
	sleep(0.05 + rand(1.5));
	my $pid = $title{$kind} ? victim($kind) : undef;
	$kind = 'server' if $title{$kind} && !defined $pid;
	$kills{$kind}++;
	if ($kind eq 'server') { $node->stop('immediate') }
	elsif ($kind eq 'clean') { $node->stop('fast') }
	else { kill 'KILL', $pid }
	eval { $_->finish } foreach @sessions;
	if (!$title{$kind}) { $node->start }
	else { $node->poll_query_until('postgres', 'SELECT true') }

	# Prepared transactions survive; half of them are committed now.
	foreach my $prepared (split /\n/, $node->safe_psql('postgres', 'SELECT gid FROM pg_prepared_xacts'))
	{
		$node->safe_psql('postgres', (rand() < 0.5 ? 'COMMIT' : 'ROLLBACK') . " PREPARED '$prepared'");
	}
	# What an interrupted CONCURRENTLY left is invalid, and the user's to drop.
	$node->safe_psql('postgres', "DROP INDEX $_")
	  foreach split /\n/, $node->safe_psql('postgres', 'SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid');
	$node->safe_psql('postgres', 'CREATE INDEX IF NOT EXISTS t_p ON t USING xtree (p); CREATE INDEX IF NOT EXISTS t_b ON t USING xtree (b)');
	$node->safe_psql('postgres', 'DROP INDEX IF EXISTS t_more');
	index_equals_heap($node, 't', "round $round, killed: $kind");
	if (!Test::More->builder->is_passing)
	{
		diag("stopping at the first difference; seed $seed; data directory kept: " . $node->data_dir);
		last;
	}
	$node->safe_psql('postgres', 'DELETE FROM t WHERE id % 2 = 0; VACUUM t') if $round % 20 == 0;
}
note("$round rounds: " . join(', ', map { "$_ $kills{$_}" } sort keys %kills));
unlike(slurp_file($node->logfile), qr/PANIC|terminated by signal (11|6)\b/, 'the log has no bad news');
done_testing();
