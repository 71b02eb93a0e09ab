# Goal: with data checksums, every tool that verifies pages accepts the index's files, in motion and
# at rest.
# Method: pg_basebackup (which verifies) under and after load, pg_checksums after clean stops.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use XTreeTest;

my $node = new_server('checksums', init => [ allows_streaming => 1, extra => ['--data-checksums'] ]);
is($node->safe_psql('postgres', 'SHOW data_checksums'), 'on', 'checksums are on');
create_table($node, 't');
create_table($node, 'u', 'UNLOGGED');
my $backups = 0;

sub verified_backup
{
	my ($what) = @_;
	my $target = $node->backup_dir . '/' . ++$backups;
	$node->command_ok([ 'pg_basebackup', '-D', $target, '-h', $node->host, '-p', $node->port, '-c', 'fast', '--no-sync' ],
		"pg_basebackup finds no bad checksum: $what");
}

sub verified_files
{
	my ($what) = @_;
	$node->stop;
	$node->command_ok([ 'pg_checksums', '--check', '-D', $node->data_dir ], "pg_checksums finds nothing: $what");
	$node->start;
}

verified_backup('empty');
verified_files('empty');
$node->safe_psql('postgres', add_rows($_, 1, 4000)) foreach ('t', 'u');
verified_backup('inserted');
verified_files('inserted');
$node->safe_psql('postgres', 'DELETE FROM t WHERE id % 3 = 0; UPDATE t SET p = point(0, id) WHERE id % 5 = 0');
$node->safe_psql('postgres', 'VACUUM t');
verified_backup('deleted and vacuumed');
$node->safe_psql('postgres', "SELECT xtree_checkpoint('t_p')");
$node->safe_psql('postgres', add_rows('t', 4001, 6000));
verified_backup('folded and inserted');
verified_files('folded and inserted');
$node->safe_psql('postgres', 'BEGIN; ' . add_rows('t', 7001, 8000) . 'ROLLBACK');
# A session that leaves in the middle of a transaction.
$node->safe_psql('postgres', 'BEGIN; ' . add_rows('t', 8001, 8500));
verified_backup('rolled back');
verified_files('rolled back, and left');
$node->safe_psql('postgres', 'REINDEX TABLE t');
verified_backup('rebuilt');
$node->stop('immediate');
$node->start;
verified_backup('after a crash');
verified_files('after a crash');
index_equals_heap($node, 't', 'at the end');

# Killed in the middle of transactions that a checkpoint has passed, so that nothing of them is replayed: one
# that writes to old indexes, and one that has made its own, whose files the crash makes orphans.
foreach my $script (add_rows('t', 20001, 20300) . 'DELETE FROM t WHERE id % 11 = 0;',
	'CREATE TABLE own (id bigint, p point, b box); CREATE INDEX own_p ON own USING xtree (p);' . add_rows('own', 1, 300))
{
	my $session = $node->background_psql('postgres');
	$session->query_safe('BEGIN');
	$session->query_safe($script =~ s/\s+/ /gr);
	$node->safe_psql('postgres', 'CHECKPOINT');
	$node->stop('immediate');
	eval { $session->quit };
	$node->start;
	verified_files('killed in the middle of a transaction');
	index_equals_heap($node, 't', 'killed in the middle of a transaction');
}
$node->safe_psql('postgres', 'CREATE INDEX gone ON t USING xtree (p)');
$node->safe_psql('postgres', add_rows('t', 21001, 21010));
isnt(scalar(() = glob($node->data_dir . '/xtree_builds/*')), 0, 'there are notes of what is changed');
verified_files('stopped in good order');
is(scalar(() = glob($node->data_dir . '/xtree_builds/*')), 0, 'a stop in good order needs no notes');

# While it is written to, a page in flux is passed over, and all others verify.
my $writer = start_session($node,
	join("\n", map { add_rows('t', 100000 + $_ * 100, 100099 + $_ * 100) } 0 .. 99));
verified_backup('while written to');
$writer->finish;
verified_backup('afterwards');
verified_files('afterwards');
$node->stop;
done_testing();
