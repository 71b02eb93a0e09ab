# Goal: an index whose files the host copies to another tablespace is whole there, whatever its log held, on the primary, after a
# crash, and on a standby; and after a rollback where it was.
# Method: every command that copies files, with changes that are not folded before, in the same transaction, and after; for
# logged and unlogged indexes; beside a base backup, which forbids it.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use XTreeTest;

my $primary = new_server('primary', init => [ allows_streaming => 1, extra => ['--data-checksums'] ], conf => "allow_in_place_tablespaces = on\nwal_keep_size = 1GB\n");
create_table($primary, 't');
create_table($primary, 'u', 'UNLOGGED');
$primary->safe_psql('postgres', add_rows($_, 1, 3000)) foreach ('t', 'u');
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;
$primary->safe_psql('postgres', "CREATE TABLESPACE $_ LOCATION ''") foreach ('one', 'two');
my $next = 10_000;

# 500 rows more, and some fewer.
sub changes
{
	my ($table) = @_;
	$next += 1000;
	return add_rows($table, $next, $next + 499) . "DELETE FROM $table WHERE id % 41 = $next / 1000 % 41;";
}

sub whole
{
	my ($what) = @_;
	my $expected = index_equals_heap($primary, 't', $what);
	$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
	is(index_equals_heap($standby, 't', "$what, standby", no_check => 1), $expected, "$what: the standby as the primary");
	$primary->stop('immediate');
	$primary->start;
	is(index_equals_heap($primary, 't', "$what, then stopped"), $expected, "$what: nothing is lost");
	$primary->safe_psql('postgres', changes('t') . 'VACUUM t');
}

sub space_of
{
	my ($index, $database) = @_;
	return $primary->safe_psql($database // 'postgres', "SELECT coalesce((SELECT spcname FROM pg_tablespace WHERE oid = reltablespace), '') FROM pg_class WHERE relname = '$index'");
}

# One index, all of a tablespace, in transactions that end either way.
$primary->safe_psql('postgres', changes('t') . 'ALTER INDEX t_p SET TABLESPACE one; ALTER INDEX t_b SET TABLESPACE one');
whole('moved');
$primary->safe_psql('postgres', changes('t') . 'ALTER INDEX ALL IN TABLESPACE one SET TABLESPACE two');
is(join(' ', space_of('t_p'), space_of('t_b')), 'two two', 'all indexes of a tablespace have moved');
whole('moved, all of a tablespace');
$primary->safe_psql('postgres', 'BEGIN; ' . changes('t') . 'ALTER INDEX t_p SET TABLESPACE one;' . changes('t') .
	'SAVEPOINT s; ALTER INDEX t_b SET TABLESPACE one;' . changes('t') . 'ROLLBACK TO s;' . changes('t') . 'COMMIT');
is(join(' ', space_of('t_p'), space_of('t_b')), 'one two', 'one has moved');
whole('moved amid a transaction');
$primary->safe_psql('postgres', 'BEGIN; ' . changes('t') . 'ALTER INDEX ALL IN TABLESPACE one SET TABLESPACE two;' . changes('t') . 'ROLLBACK');
is(space_of('t_p'), 'one', 'it has not moved');
whole('moved and rolled back');
$primary->safe_psql('postgres', 'BEGIN; DROP INDEX t_p; CREATE INDEX t_p ON t USING xtree (p);' . changes('t') .
	'ALTER INDEX t_p SET TABLESPACE one;' . changes('t') . 'COMMIT');
whole('moved in the transaction that made it');
$primary->safe_psql('postgres', changes('t') . 'REINDEX (TABLESPACE two) INDEX t_p; REINDEX (TABLESPACE one, CONCURRENTLY) INDEX t_b;' . changes('t'));
whole('rebuilt elsewhere');
$primary->safe_psql('postgres', changes('t') . 'ALTER TABLE t SET TABLESPACE one; ' . 'ALTER TABLE t_p SET TABLESPACE pg_default;' .
	q(DO $$ BEGIN EXECUTE 'ALTER INDEX t_b SET TABLESPACE pg_default'; END $$;));
is(join(' ', space_of('t_p'), space_of('t_b')), ' ', 'both have moved');
whole('moved by ALTER TABLE and within a function');

# Unlogged: kept over a move and a stop in good order; empty after a crash, in the new place as well.
$primary->safe_psql('postgres', changes('u') . 'ALTER INDEX u_p SET TABLESPACE one;' . changes('u'));
index_equals_heap($primary, 'u', 'unlogged, moved');
$primary->restart;
index_equals_heap($primary, 'u', 'unlogged, moved, restarted');
isnt($primary->safe_psql('postgres', 'SELECT count(*) FROM u'), '0', 'with its rows');
$primary->stop('immediate');
$primary->start;
is($primary->safe_psql('postgres', 'SELECT count(*) FROM u'), '0', 'unlogged, moved, then stopped: empty');
$primary->safe_psql('postgres', add_rows('u', 1, 700));
index_equals_heap($primary, 'u', 'unlogged, moved, emptied, filled');

# A database as a whole.
$primary->safe_psql('postgres', 'CREATE DATABASE d');
$primary->safe_psql('d', 'CREATE EXTENSION xtree; CREATE TABLE t (id bigint PRIMARY KEY, p point, b box); CREATE INDEX t_p ON t USING xtree (p);
	CREATE INDEX t_b ON t USING xtree (b);' . add_rows('t', 1, 2000));
sub in_d
{
	my ($node, $what) = @_;
	my $count = q(SELECT count(*), sum(id) FROM t WHERE b && box '((-1000,-1000),(1000,1000))');
	is($node->safe_psql('d', "SET enable_seqscan = off; SET enable_bitmapscan = off; $count"),
		$node->safe_psql('d', "SET enable_indexscan = off; SET enable_bitmapscan = off; $count"), "$what: the index answers as the heap does");
	my ($code, $out, $err) = $node->psql('d', "SELECT xtree_check('t_p', true), xtree_check('t_b', true)");
	is($code, 0, "$what: xtree_check finds nothing") or diag($err);
}
foreach my $space ('one', 'pg_default', 'two')
{
	$primary->safe_psql('d', changes('t'));
	$primary->safe_psql('postgres', "ALTER DATABASE d SET TABLESPACE $space");
	in_d($primary, "a database moved to $space");
	$primary->safe_psql('d', changes('t'));
	$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
	in_d($standby, "a database moved to $space, standby");
	$primary->stop('immediate');
	$primary->start;
	in_d($primary, "a database moved to $space, then stopped");
}

# Beside a base backup nothing may be folded, so nothing that is not folded may be copied.
my $backup = $primary->background_psql('postgres');
$backup->query_safe('SET client_min_messages = error');
$backup->query_safe("SELECT pg_backup_start('b', true)");
$primary->safe_psql('postgres', changes('t'));
$primary->safe_psql('d', changes('t'));
foreach my $statement ('ALTER INDEX t_p SET TABLESPACE one', 'ALTER DATABASE d SET TABLESPACE one', 'CREATE DATABASE e TEMPLATE d')
{
	my ($code, $out, $err) = $primary->psql('postgres', $statement);
	isnt($code, 0, "beside a backup: $statement is refused");
	like($err, qr/base backup/, 'and says why') or diag($err);
}
$backup->query_safe('SELECT 1 FROM pg_backup_stop(false)');
$backup->quit;
$primary->safe_psql('postgres', $_) foreach ('ALTER INDEX t_p SET TABLESPACE one', 'ALTER DATABASE d SET TABLESPACE one', 'CREATE DATABASE e TEMPLATE d');
whole('moved after the backup');
in_d($primary, 'moved after the backup');

# The standby has followed all of it.
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
my $expected = answers_by($primary, 't', 'seq');
$primary->stop;
$standby->promote;
is(index_equals_heap($standby, 't', 'promoted'), $expected, 'promoted: nothing is missing');
in_d($standby, 'promoted');
$standby->stop;
command_ok([ 'pg_checksums', '--check', '-D', $_->data_dir ], 'page checksums hold, ' . $_->name) foreach ($primary, $standby);
unlike(slurp_file($_->logfile), qr/PANIC|broken|terminated by signal (11|6|7)\b/, 'the log has no bad news') foreach ($primary, $standby);
done_testing();
