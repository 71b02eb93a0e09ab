# Goal: the host's tools that touch files, buffers or LSNs behind an index's back leave it right, or known to be
# unusable: pg_prewarm, pg_resetwal, pg_upgrade.
# Method: each is used as its manual says, and once as it should not be (pg_resetwal after a crash); then index and
# heap are compared, also after a crash and in copies that the host makes through its buffers.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use XTreeTest;

my $node = new_server('tools', init => [ extra => ['--data-checksums'] ],
	conf => "allow_in_place_tablespaces = on\nshared_buffers = 64MB\n");
$node->safe_psql('postgres', 'CREATE EXTENSION pg_prewarm');
create_table($node, 't');
$node->safe_psql('postgres', add_rows('t', 1, 6000));

# --- pg_prewarm: blocks of both files in the host's buffers, which grow stale as soon as the index changes.
sub prewarm
{
	my $blocks = 0;
	foreach my $index ('t_p', 't_b')
	{
		foreach my $fork ('main', 'vm')
		{
			next if !-s $node->data_dir . '/' . relation_path($node, $index) . ($fork eq 'vm' ? '_vm' : '');
			$blocks += $node->safe_psql('postgres', "SELECT pg_prewarm('$index', '$_', '$fork')") foreach ('prefetch', 'read', 'buffer');
		}
	}
	return $blocks;
}

cmp_ok(prewarm(), '>', 200, 'blocks are prewarmed');
$node->safe_psql('postgres', add_rows('t', 6001, 9000) . 'DELETE FROM t WHERE id % 3 = 0; VACUUM t; CHECKPOINT;');
index_equals_heap($node, 't', 'prewarmed, then changed');
prewarm();
$node->safe_psql('postgres', "UPDATE t SET p = point(p[0] + 1, p[1]) WHERE id % 5 = 0; SELECT xtree_checkpoint('t_p'), xtree_checkpoint('t_b');"
	  . add_rows('t', 9001, 9500));
my $expected = index_equals_heap($node, 't', 'prewarmed, then folded and changed');
foreach my $strategy ('wal_log', 'file_copy')
{
	prewarm();
	$node->safe_psql('postgres', "DELETE FROM t WHERE id % 7 = 1; VACUUM t; SELECT xtree_checkpoint('t_p'), xtree_checkpoint('t_b');"
		  . add_rows('t', 10001, 10100));
	$expected = answers_by($node, 't', 'seq');
	$node->safe_psql('template1', "CREATE DATABASE copy_$strategy TEMPLATE postgres STRATEGY $strategy");
	my $count = q(SELECT count(*), sum(id) FROM t WHERE b && box '((-1000,-1000),(1000,1000))');
	is($node->safe_psql("copy_$strategy", "SET enable_seqscan = off; SET enable_bitmapscan = off; $count"),
		$node->safe_psql('postgres', "SET enable_indexscan = off; SET enable_bitmapscan = off; $count"),
		"$strategy: the copy of a prewarmed database is right");
	my ($code, $out, $err) = $node->psql("copy_$strategy", "SELECT xtree_check('t_p', true), xtree_check('t_b', true)");
	is($code, 0, "$strategy: xtree_check finds nothing in it") or diag($err);
	$node->safe_psql('postgres', 'DELETE FROM t WHERE id > 10000');
}
prewarm();
$node->safe_psql('postgres', add_rows('t', 11001, 11500));
$node->safe_psql('postgres', 'ALTER INDEX t_p SET TABLESPACE pg_default');
$node->safe_psql('postgres', "CREATE TABLESPACE elsewhere LOCATION ''");
$node->safe_psql('postgres', 'ALTER INDEX t_p SET TABLESPACE elsewhere');
prewarm();
$node->safe_psql('postgres', add_rows('t', 12001, 12500));
$expected = index_equals_heap($node, 't', 'prewarmed, then moved');
prewarm();
$node->stop('immediate');
$node->start;
is(index_equals_heap($node, 't', 'prewarmed, then stopped'), $expected, 'and nothing is lost');
$node->safe_psql('postgres', $_) foreach ('ALTER INDEX t_p SET TABLESPACE pg_default', 'CHECKPOINT', 'DROP TABLESPACE elsewhere');

# --- pg_resetwal after a stop in good order: the WAL goes on behind its old end, and all operations count.
$node->safe_psql('postgres', add_rows('t', 13001, 13500));
$expected = answers_by($node, 't', 'seq');
$node->stop;
command_ok([ 'pg_resetwal', '-D', $node->data_dir ], 'pg_resetwal');
$node->start;
is(index_equals_heap($node, 't', 'WAL reset'), $expected, 'WAL reset: nothing is lost');
$node->safe_psql('postgres', add_rows('t', 14001, 14500) . 'DELETE FROM t WHERE id % 11 = 0; VACUUM t');
$node->stop('immediate');
$node->start;
index_equals_heap($node, 't', 'WAL reset, written to, then stopped');

# After a crash the manual promises nothing about data, and indexes may disagree with their tables. But the server
# starts, uses them without harm, and REINDEX mends.
$node->safe_psql('postgres', add_rows('t', 15001, 15500) . 'DELETE FROM t WHERE id % 13 = 0; VACUUM t;' . add_rows('t', 16001, 16100));
$node->stop('immediate');
command_ok([ 'pg_resetwal', '-f', '-D', $node->data_dir ], 'pg_resetwal after a crash');
$node->start;
foreach my $statement ('SET enable_seqscan = off; SELECT count(*) FROM t WHERE p <@ box \'((-1000,-1000),(1000,1000))\'',
	"SELECT xtree_check('t_p', true)", add_rows('t', 17001, 17100), 'VACUUM t', "SELECT xtree_checkpoint('t_b')")
{
	my ($code, $out, $err) = $node->psql('postgres', $statement);
	unlike($err, qr/server closed the connection/, 'WAL lost: no statement takes the server down');
}
$node->safe_psql('postgres', 'CREATE TABLE saved AS SELECT * FROM t; TRUNCATE t; INSERT INTO t SELECT DISTINCT ON (id) * FROM saved; DROP TABLE saved');
$node->safe_psql('postgres', 'REINDEX TABLE t');
index_equals_heap($node, 't', 'WAL lost, table and index rebuilt');
$node->safe_psql('postgres', 'DROP DATABASE copy_wal_log');
$node->safe_psql('postgres', 'DROP DATABASE copy_file_copy');

# --- pg_upgrade, here to the same version: files, copied or linked, of a cluster with another identifier and without our history.
$node->safe_psql('postgres', "SELECT xtree_checkpoint('t_p')" . ';' . add_rows('t', 18001, 18100));
$expected = answers_by($node, 't', 'seq');
$node->stop;
my ($bin) = grep { -x "$_/pg_upgrade" } split /:/, $ENV{PATH};
my $new = PostgreSQL::Test::Cluster->new('upgraded');
$new->init(extra => ['--data-checksums']);
$new->append_conf('postgresql.conf', "shared_preload_libraries = 'xtree'\n");
my $sockets = PostgreSQL::Test::Utils::tempdir_short();
chdir $new->basedir or die;
command_ok([ 'pg_upgrade', '--no-sync', '-d', $node->data_dir, '-D', $new->data_dir, '-b', $bin, '-B', $bin, '-s', $sockets,
		'-p', $node->port, '-P', $new->port ], 'pg_upgrade');
$new->start;
foreach my $index ('t_p', 't_b')
{
	my $column = substr $index, -1;
	my ($code, $out, $err) = $new->psql('postgres', "SET enable_seqscan = off; SET enable_bitmapscan = off; SELECT count(*) FROM t WHERE $column "
		  . ($column eq 'p' ? '<@' : '&&') . " box '((-1000,-1000),(1000,1000))'");
	if ($code == 0)
	{
		($code, $out, $err) = $new->psql('postgres', "SELECT xtree_check('$index', true)");
		is($code, 0, "upgraded: $index is whole") or diag($err);
		next;
	}
	is($out, '', "upgraded: $index gives no answer");
	like($err, qr/ERROR:.*"$index".*\n(.*\n)*HINT:.*REINDEX/, 'but says what to do');
}
$new->safe_psql('postgres', 'REINDEX TABLE t');
is(index_equals_heap($new, 't', 'upgraded and rebuilt'), $expected, 'upgraded: as it was');
$new->safe_psql('postgres', add_rows('t', 19001, 19500) . 'DELETE FROM t WHERE id % 9 = 0; VACUUM t');
$new->stop('immediate');
$new->start;
index_equals_heap($new, 't', 'upgraded, written to, then stopped');
$new->stop;
unlike(slurp_file($_->logfile), qr/PANIC|assertion failed|terminated by signal (11|6|7)\b/, 'no process died') foreach ($node, $new);
done_testing();
