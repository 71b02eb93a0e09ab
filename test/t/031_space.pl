# Goal: what mass deletions set free goes back to the file system when the index is folded, and no
# answer changes, also if the server is stopped after that.
# Method: the size of the data file before and after; the heap says what the answers are.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use XTreeTest;

my $node = new_server('space', conf => "autovacuum = off\n");
create_table($node, 't');
$node->safe_psql('postgres', add_rows('t', 1000001, 1120000));
$node->safe_psql('postgres', "REINDEX TABLE t; CHECKPOINT");

sub size
{
	return $node->safe_psql('postgres', "SELECT pg_relation_size('t_b')");
}

$node->safe_psql('postgres', add_rows('t', 2000001, 2030000));
$node->safe_psql('postgres', 'DELETE FROM t WHERE id % 10 = 3; VACUUM t');
index_equals_heap($node, 't', 'a tenth deleted');

my $before = size();
$node->safe_psql('postgres', 'DELETE FROM t WHERE id % 10 <> 7; VACUUM t');
is($node->safe_psql('postgres', "SELECT xtree_checkpoint('t_b'), xtree_checkpoint('t_p')"), 't|t',
	'folded');
cmp_ok(size(), '<', 0.5 * $before, 'mass deletions make the file shorter');
my $answers = index_equals_heap($node, 't', 'most deleted');
$node->stop('immediate');
$node->start;
is(index_equals_heap($node, 't', 'stopped after that'), $answers, 'nothing is lost');
$node->safe_psql('postgres', add_rows('t', 3000001, 3020000));
index_equals_heap($node, 't', 'filled again');
$node->stop;
done_testing();
