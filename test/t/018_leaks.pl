# Goal: an index that is gone leaves no file, no shared memory and no mapping, however it went and however
# often.
# Method: thousands of cycles in one session beside another one that looks at the indexes: created and dropped, created
# and rolled back, rebuilt, truncated, temporary, in databases that come and go. The files of the
# data directory, the shared memory that a session maps and its mappings are counted.
# LEAK_CYCLES in the environment. Also what else 003_ddl.pl does not ask: updates of the extension.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);
use XTreeFaults;
use XTreeTest;

my $cycles = $ENV{LEAK_CYCLES} // 200;
my $memory_max = 32 * 1024;
my $node = new_server('leaks', conf => "log_statement = none\n");
$node->stop;
scarce_start($node);	# which leaves out the syncs
create_table($node, 't');
$node->safe_psql('postgres', add_rows('t', 1, 300));

my $worker = $node->background_psql('postgres');
my $other = $node->background_psql('postgres');
$_->set_query_timer_restart foreach ($worker, $other);
my $worker_pid = $worker->query_safe('SELECT pg_backend_pid()');
my $other_pid = $other->query_safe('SELECT pg_backend_pid()');

sub files
{
	$node->safe_psql('postgres', 'CHECKPOINT');
	return scalar grep { -s || !/base/ } glob($node->data_dir . '/base/*/*');
}

# KiB of dynamic shared memory, and windows, that a process has mapped.
sub memory
{
	my ($pid) = @_;
	my %seen;

	foreach (split /\n/, slurp_file("/proc/$pid/maps"))
	{
		$seen{$3} = (hex($2) - hex($1)) / 1024 if m{^(\w+)-(\w+) .*(/dev/shm/\S+|/SYSV\S+)};
	}
	my $sum = 0;
	$sum += $_ foreach values %seen;
	return $sum;
}

sub windows
{
	my ($pid) = @_;
	return scalar grep { m{/base/\d+/} } split /\n/, slurp_file("/proc/$pid/maps");
}

my $count = q(SELECT count(*) FROM t WHERE p <@ box '((-1000,-1000),(1000,1000))');
my %cycle = (
	'created and dropped' => 'CREATE INDEX c ON t USING xtree (p); COMMIT; DROP INDEX c; COMMIT;',
	'created and rolled back' => 'CREATE INDEX c ON t USING xtree (b); ROLLBACK;',
	'rebuilt' => 'REINDEX INDEX t_p; COMMIT;',
	'truncated' => 'TRUNCATE e; INSERT INTO e VALUES (1, point(1, 1)); COMMIT;',
	'temporary' => 'CREATE TEMP TABLE x (p point); CREATE INDEX ON x USING xtree (p); INSERT INTO x VALUES (point(1, 2)); DROP TABLE x; COMMIT;');

sub run_cycles
{
	my ($what, $number) = @_;
	my $steps = join ' ', map { /^(COMMIT|ROLLBACK)$/ ? "$_;" : "EXECUTE '$_';" } grep { $_ ne '' } map { s/^\s+//r } split /;/, $cycle{$what};
	$worker->query_safe("DO \$\$ BEGIN FOR i IN 1..$number LOOP $steps END LOOP; END \$\$");
}

$node->safe_psql('postgres', 'CREATE TABLE e (id int, p point); CREATE INDEX e_p ON e USING xtree (p)');
foreach my $what (sort keys %cycle)
{
	run_cycles($what, 60);
	$other->query_safe("SET enable_seqscan = off; $count");
	my ($files, $windows) = (files(), windows($worker_pid));
	my $started = time;
	foreach my $part (1 .. 20)
	{
		run_cycles($what, $cycles / 20);
		$other->query_safe($count);
	}
	note(sprintf '%s: %d cycles, %.1f ms each', $what, $cycles, (time - $started) * 1000 / $cycles);
	is(files(), $files, "$what $cycles times: no file is left");
	# What is gone is swept out by hundreds, so memory goes up and down within these limits, however many cycles.
	cmp_ok($_, '<=', $memory_max, "$what $cycles times: shared memory stays below $memory_max kB ($_)")
	  foreach (memory($worker_pid), memory($other_pid));
	cmp_ok(windows($worker_pid), '<=', $windows + 2, "$what $cycles times: no mapping is left");
	unlike(slurp_file("/proc/$_/maps"), qr{/base/\d+/\d+(_vm)? \(deleted\)}, "$what: none of a file that is gone")
	  foreach ($worker_pid, $other_pid);
}
is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_stat_xtree'), '3', 'the view shows the indexes that are left');
index_equals_heap($node, 't', 'after all cycles');

# Another session's mapping of an index that is dropped goes with its next statement.
$node->safe_psql('postgres', 'CREATE INDEX gone ON e USING xtree (p); INSERT INTO e SELECT 2, point(i, i) FROM generate_series(1, 1000) AS i');
my $path = relation_path($node, 'gone');
$other->query_safe("INSERT INTO e VALUES (3, point(3, 3)); SELECT xtree_stats('gone')");
like(slurp_file("/proc/$other_pid/maps"), qr/\Q$path\E\b/, 'another session has mapped the index');
$node->safe_psql('postgres', 'DROP INDEX gone');
$other->query_safe('SELECT 1');
unlike(slurp_file("/proc/$other_pid/maps"), qr/\Q$path\E\b/, 'and gives the mapping back once it is dropped');

# Databases.
my $databases;
foreach my $round (1 .. 5 + $cycles / 1000)
{
	$node->safe_psql('postgres', 'CREATE DATABASE d');
	$node->safe_psql('d', 'CREATE EXTENSION xtree; CREATE TABLE t (p point); CREATE INDEX ON t USING xtree (p); INSERT INTO t VALUES (point(1, 1))');
	$node->safe_psql('postgres', 'DROP DATABASE d');
	$databases = files() if $round == 3;
}
is(files(), $databases, 'databases made and dropped leave no file');
$worker->query_safe($count);
cmp_ok(memory($worker_pid), '<=', $memory_max, 'and no shared memory');

# The extension.
my ($code, $out, $err) = $node->psql('postgres', 'ALTER EXTENSION xtree UPDATE');
is($code, 0, 'the extension can be asked to update') or diag($err);
like($err, qr/already installed/, 'and is of the last version');
($code, $out, $err) = $node->psql('postgres', q(ALTER EXTENSION xtree UPDATE TO '99'));
like($err, qr/no update path/, 'there is no way to a version that is not there');
index_equals_heap($node, 't', 'after the update');
($code, $out, $err) = $node->psql('postgres', 'DROP EXTENSION xtree');
like($err, qr/other objects depend on it/, 'the extension is not dropped under its indexes');
$node->safe_psql('postgres', 'BEGIN; DROP EXTENSION xtree CASCADE; ROLLBACK');
index_equals_heap($node, 't', 'drop of the extension rolled back');
$worker->quit;
$other->quit;
$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|terminated by signal (11|6|7)\b/, 'the log has no bad news');
done_testing();
