# Goal: where the system grants less than usual, the index works, or says clearly what it was refused, and goes
# on as soon as it gets it again.
# Method: io_uring and fallocate forbidden by a seccomp filter; few descriptors; little address space; and
# through a shim (shim/scarce.c) that refuses space or mappings from the Nth request on, for every N until a
# statement gets by with what is left: each failure must be an error that names the cause, and leave
# index and heap equal, also after an immediate stop.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use XTreeFaults;
use XTreeTest;

my $node = new_server('scarce', conf => "xtree.max_log_size = '256kB'\nxtree.flush_interval = '20ms'\n");
my $has_uring = slurp_file($node->logfile) !~ /xtree syncs its logs one by one/;
create_table($node, 't');
$node->safe_psql('postgres', add_rows('t', 1, 3000));

# System calls that a container may forbid.
foreach my $call ('io_uring_setup', 'fallocate')
{
	my $deny = build_shim('deny');
	$node->stop;
  SKIP:
	{
		skip "seccomp filters are not allowed here: $call was not forbidden", 1
		  if system($deny, $call, '--', 'true') != 0;
		my $from = -s $node->logfile;
		start_with($node, $deny, $call, '--');
		$node->safe_psql('postgres', add_rows('t', 5001, 6000) . 'DELETE FROM t WHERE id % 5 = 1; VACUUM t;');
		$node->safe_psql('postgres', "SELECT xtree_checkpoint('t_p'), xtree_checkpoint('t_b')");
		$node->safe_psql('postgres', 'REINDEX INDEX t_b; CHECKPOINT;' . add_rows('t', 7001, 8000) . 'DELETE FROM t WHERE id > 5000');
		index_equals_heap($node, 't', "$call forbidden");
		$node->stop('immediate');
		start_with($node, $deny, $call, '--');
		index_equals_heap($node, 't', "$call forbidden, then stopped");
		my $log = substr(slurp_file($node->logfile), $from);
		my $said = () = $log =~ /LOG:  xtree syncs its logs one by one\n.*DETAIL:  io_uring is not available/g;
		is($said, $call eq 'fallocate' && $has_uring ? 0 : 2, "$call: what io_uring means is said once a start");
		$node->stop;
	}
	$node->start;
}

# Many indexes in one session.
my $indexes = 40;
$node->safe_psql('postgres', join ';', map { "CREATE TABLE m$_ (id bigint PRIMARY KEY, p point, b box); CREATE INDEX m${_}_p ON m$_ USING xtree (p)" } 1 .. $indexes);
my $rows = 0;

# Writes to all of them and reads each twice. The answers.
sub touch_all
{
	my ($from, $to) = ($rows + 1, $rows += 97);
	return join ";\n", 'SET enable_seqscan = off',
	  (map { add_rows("m$_", $from, $to) =~ s/;$//r } 1 .. $indexes),
	  map { "SELECT count(*) FROM m$_ WHERE p <@ box '((-1000,-1000),(1000,1000))'" } 1 .. $indexes, reverse 1 .. $indexes;
}

foreach my $limit ([ 'few descriptors', 'n', 100 ], [ 'little address space', 'v', 8 * 1024 * 1024 ])
{
	my ($what, $option, $value) = @$limit;
	my @limited = ('sh', '-c', "ulimit -$option $value; exec \"\$@\"", 'sh');

	$node->stop;
	start_with($node, @limited);
	my ($code, $out, $err) = $node->psql('postgres', touch_all());
	my $found = $rows / 97 * 96;
	is($code, 0, "$what: $indexes indexes are written to and read in one session") or diag($err);
	ok($out eq join("\n", ($found) x (2 * $indexes)), "$what: and all answers are right");
	$node->safe_psql('postgres', "SELECT xtree_checkpoint('m${_}_p')") foreach 1 .. 3;
	$node->safe_psql('postgres', 'CHECKPOINT; VACUUM m1, m2, m3');
	$node->stop('immediate');
	start_with($node, @limited);
	my $sum = join ' + ', map { "(SELECT count(*) FROM m$_ WHERE p <@ box '((-1000,-1000),(1000,1000))')" } 1 .. $indexes;
	is($node->safe_psql('postgres', "SET enable_seqscan = off; SELECT $sum"), $found * $indexes, "$what: recovered");
}

# The engine opens files to grow, map and sync them, and closes them. The host opens the main fork to ask for
# its size, in its own pool of descriptors; nobody has a reason to keep a log open.
my $session = $node->background_psql('postgres');
$session->query_safe(join ' ', split /\n/, touch_all() . ';');
my @processes = processes_of($node);
my %logs = map { ($node->data_dir . '/' . relation_path($node, "m${_}_p") . '_vm' => 1) } 1 .. $indexes;
my @open = grep { $logs{$_} } map { readlink($_) // () } map { glob("/proc/$_/fd/*") } @processes;
my $maps = join '', map { slurp_file("/proc/$_/maps") } @processes;
is("@open", '', 'no process keeps a log open');
like($maps, qr/\Q@{[ relation_path($node, 'm1_p') ]}\E$/m, 'though the indexes are mapped');
$session->quit;
$node->stop;

# Refused: reservations of space, mappings.
my $control = scarce_start($node);
my %refused = (
	reservations => qr/No space left on device/,
	maps => qr/Cannot allocate memory/);

# Runs a statement with 0, 1, 2, ... requests granted, until it has enough.
sub until_enough
{
	my ($kind, $what, $statement, %options) = @_;
	my $failed = 0;

	foreach my $left (0 .. 200)
	{
		$options{before}->() if $options{before};
		scarce($control, $kind => $left);
		my ($code, $out, $err) = $node->psql('postgres', "SET enable_seqscan = off; $statement");
		scarce($control, $kind => -1);
		last if $code == 0 && !($err =~ $refused{$kind});
		$failed++;
		like($err, $refused{$kind}, "$what: refused $kind after $left are an error that says so");
	}
	# A fold may find all the space that it needs in what the one before has freed.
	cmp_ok($failed, '>', 0, "$what: refused $kind $failed times") unless $what eq 'fold' && $kind eq 'reservations';
	index_equals_heap($node, 't', "$what, at last");
	return $failed;
}

my $count = q(SELECT count(*) FROM t WHERE p <@ box '((-1000,-1000),(1000,1000))');
my $next = 100_000;
until_enough('reservations', 'insert', 'BEGIN; CREATE TABLE small (LIKE t); CREATE INDEX ON small USING xtree (p); '
	  . 'CREATE INDEX ON small USING xtree (b); ' . add_rows('small', 1, 20000) . 'ROLLBACK');
until_enough('reservations', 'more rows', add_rows('t', $next - 5000, $next - 1));
until_enough('maps', 'insert', add_rows('t', $next, $next + 99));
until_enough('maps', 'scan', $count);
foreach my $kind ('reservations', 'maps')
{
	until_enough($kind, 'CREATE INDEX', 'CREATE INDEX t_more ON t USING xtree (p); DROP INDEX t_more');
	until_enough($kind, 'fold', "SELECT xtree_checkpoint('t_p'), xtree_checkpoint('t_b')",
		before => sub { $next += 1000; $node->safe_psql('postgres', add_rows('t', $next, $next + 499)) });
	until_enough($kind, 'vacuum', 'VACUUM t',
		before => sub { $next += 1000; $node->safe_psql('postgres', add_rows('t', $next, $next + 499) . "DELETE FROM t WHERE id % 3 = $next % 3") });
}
my $before = answers_by($node, 't', 'seq');
$node->stop('immediate');
scarce_start($node);
is(index_equals_heap($node, 't', 'stopped'), $before, 'nothing was lost');
is($node->safe_psql('postgres', q(SELECT count(*) FROM pg_class WHERE relname = 't_more')), '0', 'no index is left over');
$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|terminated by signal (11|6|7)\b/, 'the log has no bad news');
done_testing();
