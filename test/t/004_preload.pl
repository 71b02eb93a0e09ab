# Goal: without shared_preload_libraries there is one clear error, and nothing is harmed.
# Method: a server that never preloaded the library, then one that stopped doing so under an index.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use XTreeTest;

my $hint = qr/HINT:.*shared_preload_libraries/;
my $node = PostgreSQL::Test::Cluster->new('plain');
$node->init;
$node->start;
$node->psql('postgres', 'CREATE EXTENSION xtree');
$node->safe_psql('postgres', 'CREATE TABLE t (p point)');
my ($code, $out, $err) = $node->psql('postgres', 'CREATE INDEX ON t USING xtree (p)');
isnt($code, 0, 'CREATE INDEX fails on an empty table');
like($err, qr/^psql:.*ERROR:/, 'with an error');
like($err, $hint, 'and a hint that names the setting');
is(() = $err =~ /ERROR:/g, 1, 'one error');
$node->safe_psql('postgres', "INSERT INTO t VALUES ('(1,2)')");
($code, $out, $err) = $node->psql('postgres', 'CREATE INDEX ON t USING xtree (p)');
like($err, $hint, 'the same with rows in it');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_index WHERE indrelid = 't'::regclass"), '0',
	'no index was made');
is($node->safe_psql('postgres', 'SELECT count(*) FROM t'), '1', 'the server and the table are well');
$node->stop;

# An index that is there, and the library that is not.
my $lost = new_server('lost');
create_table($lost, 't');
$lost->safe_psql('postgres', add_rows('t', 1, 1000));
$lost->stop;
$lost->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$lost->start;
foreach my $statement (
	"SET enable_seqscan = off; SELECT count(*) FROM t WHERE p <@ box '((0,0),(9,9))'",
	add_rows('t', 2001, 2001), "SELECT xtree_check('t_p')")
{
	($code, $out, $err) = $lost->psql('postgres', $statement);
	isnt($code, 0, "fails: $statement");
	like($err, $hint, 'with the hint');
}
is($lost->safe_psql('postgres', 'SET enable_indexscan = off; SET enable_bitmapscan = off; SELECT count(*) FROM t'),
	'1000', 'the table is readable');
is($lost->safe_psql('postgres', 'SELECT 1'), '1', 'the server is up');
$lost->stop;
$lost->append_conf('postgresql.conf', "shared_preload_libraries = 'xtree'");
$lost->start;
index_equals_heap($lost, 't', 'preloaded again');
$lost->safe_psql('postgres', add_rows('t', 2001, 2500));
index_equals_heap($lost, 't', 'preloaded again and written to');
$lost->stop;
done_testing();
