# Goal: a database that is moved to another tablespace and back, so that its files come again under the names
# that they had, is not taken for what it was; neither on the primary, even if a file gets the very inode
# number back, nor by the standby's startup process, which had the file open.
# Method: there and back, with rows added in both places, until inode numbers have come again, at once after
# each other so that nothing has been swept; after each move the index is compared with the heap, and on the
# standby in the end.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use XTreeTest;

my $moves_max = 24;
my $primary = new_server('primary', conf => "allow_in_place_tablespaces = on\nwal_keep_size = 1GB\n");
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

$primary->safe_psql('postgres', q(
	CREATE TABLESPACE elsewhere LOCATION '';
	CREATE DATABASE d;));
$primary->safe_psql('d', q(
	CREATE EXTENSION xtree;
	CREATE TABLE t (id bigint, p point);
	CREATE INDEX t_p ON t USING xtree (p);
	INSERT INTO t SELECT i, point(i, i) FROM generate_series(1, 2000) AS i;));

sub count_by
{
	my ($node, $settings) = @_;
	return $node->safe_psql('d',
		"$settings; SELECT count(*) FROM t WHERE p <@ box '((0,0),(1000000,1000000))'");
}

sub is_whole
{
	my ($node, $what) = @_;
	my $expected = count_by($node, 'SET enable_indexscan = off; SET enable_bitmapscan = off; SET enable_indexonlyscan = off');

	is(count_by($node, 'SET enable_seqscan = off'), $expected, "$what: the index answers as the heap does");
	my ($code, $out, $err) = $node->psql('d', "SELECT xtree_check('t_p', true)");
	is($code, 0, "$what: xtree_check finds nothing") or diag($err);
}

my %seen;
my $again = 0;
for (my $move = 0; $again < 2 && $move < $moves_max; $move++)
{
	my $space = $move % 2 == 0 ? 'elsewhere' : 'pg_default';
	$primary->safe_psql('postgres', "ALTER DATABASE d SET TABLESPACE $space");
	my $inode = (stat($primary->data_dir . '/' . $primary->safe_psql('d', "SELECT pg_relation_filepath('t_p')")))[1];
	my $came_again = $seen{"$space $inode"}++;
	$again++ if $came_again;
	is_whole($primary, "move $move" . ($came_again ? ', inode again' : ''));
	$primary->safe_psql('d', 'INSERT INTO t SELECT i, point(i, i) FROM generate_series(1, 300) AS i');
	$primary->wait_for_catchup($standby) if $move == 3;
}
note("an inode number came again $again times");
$primary->wait_for_catchup($standby);
is_whole($standby, 'standby');
$standby->restart;
is_whole($standby, 'standby, restarted');
$standby->stop('immediate');
$standby->start;
is_whole($standby, 'standby, stopped at once');
$standby->promote;
is_whole($standby, 'standby, promoted');
$primary->stop('immediate');
$primary->start;
is_whole($primary, 'primary, stopped at once');
unlike(slurp_file($_->logfile), qr/PANIC|broken|terminated by signal 11/, 'the log has no bad news')
  foreach ($primary, $standby);
done_testing();
