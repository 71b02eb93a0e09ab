# Goal: whatever a statement does to a relation's files happens to the index as to any other, and
# nothing is left behind.
# Method: one section a statement; files are looked for by path, contents compared with the heap,
# mostly again after an immediate stop.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use XTreeTest;

my $node = new_server('ddl', conf => "allow_in_place_tablespaces = on\nmax_prepared_transactions = 5\n");

sub crash
{
	$node->stop('immediate');
	$node->start;
}

# A dropped relation's first file stays, empty, until the next checkpoint.
sub gone
{
	my ($path, $what) = @_;
	$node->safe_psql('postgres', 'CHECKPOINT');
	is(join(' ', index_files($node, $path)), '', "$what leaves no files");
}

# Rolled back: at the top, in a subtransaction, after a failure.
$node->safe_psql('postgres', 'CREATE TABLE r (id bigint PRIMARY KEY, p point, b box)');
$node->safe_psql('postgres', add_rows('r', 1, 2000));
my $path = $node->safe_psql('postgres', q(
	BEGIN; CREATE INDEX r_p ON r USING xtree (p); SELECT pg_relation_filepath('r_p'); ROLLBACK;));
isnt($path, '', 'the index had a file before it was rolled back');
gone($path, 'a rolled back CREATE INDEX');
$path = $node->safe_psql('postgres', q(
	BEGIN; SAVEPOINT s; CREATE INDEX r_p ON r USING xtree (p); SELECT pg_relation_filepath('r_p');
	ROLLBACK TO s; INSERT INTO r VALUES (0, '(1,1)', '(1,1),(2,2)'); COMMIT;));
gone($path, 'a CREATE INDEX rolled back to a savepoint');
$node->safe_psql('postgres', 'CREATE INDEX r_p ON r USING xtree (p); CREATE INDEX r_b ON r USING xtree (b)');
$node->safe_psql('postgres', 'BEGIN; ' . add_rows('r', 5001, 6000) . 'ROLLBACK');
index_equals_heap($node, 'r', 'rows rolled back');
$node->psql('postgres', 'BEGIN; ' . add_rows('r', 5001, 6000) . 'DROP INDEX r_p; ROLLBACK');
index_equals_heap($node, 'r', 'drop rolled back');
$node->psql('postgres', 'BEGIN; TRUNCATE r; ' . add_rows('r', 1, 50) . 'ROLLBACK');
index_equals_heap($node, 'r', 'truncate rolled back');
$node->psql('postgres', 'BEGIN; REINDEX TABLE r; ' . add_rows('r', 7001, 7050) . 'ROLLBACK');
index_equals_heap($node, 'r', 'reindex rolled back');

# Dropped.
$path = relation_path($node, 'r_p');
isnt(join(' ', index_files($node, $path)), '', 'a live index has files');
$node->safe_psql('postgres', 'DROP INDEX r_p');
gone($path, 'DROP INDEX');
$path = relation_path($node, 'r_b');
$node->safe_psql('postgres', 'DROP TABLE r');
gone($path, 'DROP TABLE');

# Truncated: in a later transaction, and in that which created the table (the file name stays).
create_table($node, 't');
$node->safe_psql('postgres', add_rows('t', 1, 3000));
$path = relation_path($node, 't_p');
$node->safe_psql('postgres', 'TRUNCATE t');
gone($path, 'TRUNCATE');
index_equals_heap($node, 't', 'truncated');
$node->safe_psql('postgres', add_rows('t', 1, 1500));
index_equals_heap($node, 't', 'truncated and filled');
$node->safe_psql('postgres', qq(
	BEGIN;
	CREATE TABLE same (id bigint PRIMARY KEY, p point, b box);
	CREATE INDEX same_p ON same USING xtree (p);
	CREATE INDEX same_b ON same USING xtree (b);
	@{[ add_rows('same', 1, 1000) ]}
	TRUNCATE same;
	@{[ add_rows('same', 1, 700) ]}
	COMMIT;));
index_equals_heap($node, 'same', 'created, filled, truncated, filled in one transaction');
crash();
index_equals_heap($node, 't', 'truncated, then stopped');
index_equals_heap($node, 'same', 'one transaction, then stopped');

# Rewritten.
$node->safe_psql('postgres', add_rows('t', 1501, 3000) . 'DELETE FROM t WHERE id % 3 = 0;');
foreach my $statement (
	'REINDEX INDEX t_p', 'REINDEX TABLE CONCURRENTLY t', 'VACUUM FULL t', 'CLUSTER t USING t_pkey',
	'DROP INDEX t_p; CREATE INDEX CONCURRENTLY t_p ON t USING xtree (p)',
	'ALTER TABLE t SET UNLOGGED; ALTER TABLE t SET LOGGED',
	'ALTER INDEX t_p SET (fillfactor = 60); REINDEX INDEX t_p')
{
	$path = relation_path($node, 't_p');
	$node->safe_psql('postgres', $_) foreach split /; /, $statement;
	gone($path, $statement) unless relation_path($node, 't_p') eq $path;
	index_equals_heap($node, 't', $statement);
	$node->safe_psql('postgres', "UPDATE t SET p = point(p[0] + 0.5, p[1]) WHERE id % 17 = 1");
	crash();
	index_equals_heap($node, 't', "$statement, update, then stopped");
}

# Unlogged: kept over a clean stop, empty after a crash, usable in both cases.
create_table($node, 'u', 'UNLOGGED');
$node->safe_psql('postgres', add_rows('u', 1, 2000));
index_equals_heap($node, 'u', 'unlogged');
$node->restart;
index_equals_heap($node, 'u', 'unlogged, clean stop');
is($node->safe_psql('postgres', 'SELECT count(*) FROM u'), '2000', 'unlogged rows survive a clean stop');
$node->safe_psql('postgres', add_rows('u', 2001, 2500));
crash();
is($node->safe_psql('postgres', 'SELECT count(*) FROM u'), '0', 'unlogged rows are gone after a crash');
index_equals_heap($node, 'u', 'unlogged, reset');
$node->safe_psql('postgres', add_rows('u', 1, 900));
index_equals_heap($node, 'u', 'unlogged, reset and filled');

# Temporary: no other session sees it, nothing is left of it.
my $temporary = $node->safe_psql('postgres', qq(
	CREATE TEMP TABLE x (id bigint PRIMARY KEY, p point, b box);
	CREATE INDEX x_p ON x USING xtree (p);
	CREATE INDEX x_b ON x USING xtree (b);
	@{[ add_rows('x', 1, 2000) ]}
	DELETE FROM x WHERE id % 4 = 0;
	VACUUM x;
	@{[ add_rows('x', 3001, 3500) ]}
	SELECT pg_relation_filepath('x_p');
	SET enable_seqscan = off;
	SELECT count(*) FROM x WHERE p <@ box '((-1000,-1000),(1000,1000))';
	SET enable_seqscan = on; SET enable_indexscan = off; SET enable_bitmapscan = off;
	SELECT count(*) FROM x WHERE p <@ box '((-1000,-1000),(1000,1000))';));
my ($temporary_path, $by_index, $by_heap) = split /\n/, $temporary;
is($by_index, $by_heap, 'a temporary index answers as its heap does');
gone($temporary_path, 'the end of a session with a temporary index');

# Moved, by its only session, again and again, also while a base backup is under way. Its file is all there is of it.
$node->safe_psql('postgres', "CREATE TABLESPACE elsewhere LOCATION ''");
my $everything = q(SELECT count(*) FROM x WHERE p <@ box '((-1000,-1000),(1000,1000))');
$temporary = $node->safe_psql('postgres', qq(
	CREATE TEMP TABLE x (id bigint PRIMARY KEY, p point, b box);
	@{[ add_rows('x', 1, 97) ]}
	CREATE INDEX x_p ON x USING xtree (p);
	@{[ add_rows('x', 98, 2000) ]}
	DELETE FROM x WHERE id % 4 = 0;
	VACUUM x;
	SET enable_seqscan = off;
	$everything;
	ALTER INDEX x_p SET TABLESPACE elsewhere;
	$everything;
	@{[ add_rows('x', 3001, 3500) ]}
	$everything;
	ALTER INDEX x_p SET TABLESPACE pg_default;
	$everything;
	DO 'BEGIN PERFORM pg_backup_start(''copied'', true); END';
	ALTER INDEX x_p SET TABLESPACE elsewhere;
	DO 'BEGIN PERFORM pg_backup_stop(); END';
	$everything;
	SELECT xtree_check('x_p', true);));
is($temporary, "1485\n1485\n1979\n1979\n1979\n", 'a temporary index that is moved answers as before');

# Moved to another tablespace.
$path = relation_path($node, 't_p');
$node->safe_psql('postgres', 'ALTER INDEX t_p SET TABLESPACE elsewhere');
gone($path, 'ALTER INDEX SET TABLESPACE');
index_equals_heap($node, 't', 'moved');
$node->safe_psql('postgres', add_rows('t', 10001, 10500));
index_equals_heap($node, 't', 'moved and written to');
crash();
index_equals_heap($node, 't', 'moved, written to, then stopped');
$node->safe_psql('postgres', 'ALTER TABLE t SET TABLESPACE elsewhere; ALTER INDEX t_b SET TABLESPACE elsewhere');
crash();
index_equals_heap($node, 't', 'moved, then stopped');

# Databases made from one that holds indexes with and without work since the last fold.
foreach my $strategy ('wal_log', 'file_copy')
{
	$node->safe_psql('postgres', "CREATE DATABASE source_$strategy");
	$node->safe_psql("source_$strategy", 'CREATE EXTENSION xtree; '
		  . 'CREATE TABLE t (id bigint PRIMARY KEY, p point, b box); '
		  . 'CREATE INDEX t_p ON t USING xtree (p); CREATE INDEX t_b ON t USING xtree (b); '
		  . add_rows('t', 1, 2000));
	my ($code, $out, $err) = $node->psql('postgres',
		"CREATE DATABASE copy_$strategy TEMPLATE source_$strategy STRATEGY $strategy");
	is($code, 0, "CREATE DATABASE with strategy $strategy") or diag($err);
	foreach my $when ('copied', 'copied, then stopped')
	{
		my $count = q(SELECT count(*) FROM t WHERE p <@ box '((-1000,-1000),(1000,1000))');
		is($node->safe_psql("copy_$strategy", "SET enable_seqscan = off; $count"),
			$node->safe_psql("copy_$strategy", "SET enable_indexscan = off; SET enable_bitmapscan = off; $count"),
			"$strategy: $when");
		($code, $out, $err) = $node->psql("copy_$strategy", "SELECT xtree_check('t_p', true), xtree_check('t_b', true)");
		is($code, 0, "$strategy: xtree_check finds nothing, $when") or diag($err);
		$node->safe_psql("copy_$strategy", add_rows('t', 2001, 2400)) if $when eq 'copied';
		crash();
	}
	my $directory = $node->safe_psql('postgres', "SELECT oid FROM pg_database WHERE datname = 'copy_$strategy'");
	$node->safe_psql('postgres', "DROP DATABASE copy_$strategy");
	$node->safe_psql('postgres', 'CHECKPOINT');
	ok(!-e $node->data_dir . "/base/$directory", "$strategy: DROP DATABASE leaves no directory");
}

# Two-phase commit over a crash.
$node->safe_psql('postgres', 'BEGIN; ' . add_rows('t', 20001, 20300) . "PREPARE TRANSACTION 'later'");
crash();
index_equals_heap($node, 't', 'prepared');
$node->safe_psql('postgres', "COMMIT PREPARED 'later'");
is($node->safe_psql('postgres', 'SELECT count(*) FROM t WHERE id > 20000'), '300', 'prepared rows are there');
index_equals_heap($node, 't', 'commit prepared');

# The extension itself.
my @paths = map { relation_path($node, $_) } ('t_p', 't_b', 'u_p');
$node->safe_psql('postgres', 'DROP EXTENSION xtree CASCADE');
gone($_, 'DROP EXTENSION') foreach @paths;
$node->stop;

# Relations whose WAL is skipped because the transaction that made them syncs them.
my $minimal = new_server('minimal', conf => "wal_level = minimal\nmax_wal_senders = 0\nwal_skip_threshold = 0\nallow_in_place_tablespaces = on\n");
foreach my $threshold ('0', '1GB')
{
	my $table = $threshold eq '0' ? 'synced' : 'imaged';
	$minimal->safe_psql('postgres', qq(
		SET wal_skip_threshold = '$threshold';
		BEGIN;
		CREATE TABLE $table (id bigint PRIMARY KEY, p point, b box);
		@{[ add_rows($table, 1, 1000) ]}
		CREATE INDEX ${table}_p ON $table USING xtree (p);
		CREATE INDEX ${table}_b ON $table USING xtree (b);
		@{[ add_rows($table, 1001, 2000) ]}
		COMMIT;));
	$minimal->stop('immediate');
	$minimal->start;
	index_equals_heap($minimal, $table, "wal_level = minimal, wal_skip_threshold = $threshold");
	$minimal->safe_psql('postgres', add_rows($table, 2001, 2500));
	$minimal->stop('immediate');
	$minimal->start;
	index_equals_heap($minimal, $table, "wal_level = minimal, wal_skip_threshold = $threshold, later rows");
}
# The same for a copy of an index's files that its transaction goes on to use.
$minimal->safe_psql('postgres', "CREATE TABLESPACE elsewhere LOCATION ''");
foreach my $threshold ('0', '1GB')
{
	my $what = "wal_level = minimal, moved with wal_skip_threshold = $threshold";
	my $space = $threshold eq '0' ? 'elsewhere' : 'pg_default';
	my $base = $threshold eq '0' ? 3000 : 6000;
	$minimal->safe_psql('postgres', qq(
		SET wal_skip_threshold = '$threshold';
		BEGIN;
		ALTER INDEX synced_p SET TABLESPACE $space;
		ALTER INDEX synced_b SET TABLESPACE $space;
		@{[ add_rows('synced', $base + 1, $base + 50) ]}
		COMMIT;));
	$minimal->safe_psql('postgres', add_rows('synced', $base + 51, $base + 500));
	$minimal->safe_psql('postgres', 'CHECKPOINT');
	index_equals_heap($minimal, 'synced', "$what, later rows, checkpoint");
	$minimal->safe_psql('postgres', add_rows('synced', $base + 501, $base + 1500));
	$minimal->stop('immediate');
	$minimal->start;
	index_equals_heap($minimal, 'synced', "$what, stopped");
}
$minimal->stop;
unlike(slurp_file($_->logfile), qr/PANIC|broken|terminated by signal 11/, 'the log has no bad news')
  foreach ($node, $minimal);
done_testing();
