# Goal: space that readers keep is reported and can be limited; what mass deletions set free goes back to the file system when the index is folded, and no
# answer changes, also if the server is stopped after that.
# Method: a cursor left open beside changes; the size of the data file before and after; the heap says what the answers are.
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

# A cursor keeps what was replaced since it began: that shows, and with a limit its next fetch fails.
my $reader = $node->background_psql('postgres', on_error_stop => 0);
$reader->query_safe("BEGIN; SET enable_seqscan = off; SET enable_bitmapscan = off;
	DECLARE c CURSOR FOR SELECT id FROM t WHERE b && box '((-1000,-1000),(1000,1000))'; FETCH 10 FROM c");
my $pid = $reader->query_safe('SELECT pg_backend_pid()');
$node->safe_psql('postgres', add_rows('t', 2500001, 2540000) . 'DELETE FROM t WHERE id % 10 = 4; VACUUM t');
is($node->safe_psql('postgres', "SELECT retained_blocks > 32, oldest_reader_pid, oldest_reader_lag > 10 FROM xtree_stats('t_b')"),
	"t|$pid|t", 'what a reader keeps is reported');
$reader->query_safe('FETCH 2000 FROM c');
$node->safe_psql('postgres', "ALTER SYSTEM SET xtree.max_retained_size = '256kB'");
$node->safe_psql('postgres', 'SELECT pg_reload_conf()');
$node->poll_query_until('postgres', "SELECT current_setting('xtree.max_retained_size') = '256kB'");
# A session takes a new setting between two commands.
1 until $reader->query_safe('SHOW xtree.max_retained_size') eq '256kB';
$reader->query('FETCH 5000 FROM c');
like($reader->{stderr}, qr/scan of xtree index "t_b" is too old/, 'and limited');
$reader->quit;
is(index_equals_heap($node, 't', 'a limit for readers'), answers_by($node, 't', 'seq'), 'new scans are not affected');

# A fold compacts where less than half of the file would do, of which 768 blocks are the least. So no more than 1536 may
# be left of a longer file, wherever VACUUM has put the rest.
my $most = 1536 * 8192;
$node->safe_psql('postgres', add_rows('t', 4000001, 4110000));
cmp_ok(size(), '>', $most, 'a file long enough to tell');
$node->safe_psql('postgres', 'DELETE FROM t WHERE id % 10 <> 7; VACUUM t');
is($node->safe_psql('postgres', "SELECT xtree_checkpoint('t_b'), xtree_checkpoint('t_p')"), 't|t',
	'folded');
cmp_ok(size(), '<=', $most, 'mass deletions make the file shorter');
my $answers = index_equals_heap($node, 't', 'most deleted');
$node->stop('immediate');
$node->start;
is(index_equals_heap($node, 't', 'stopped after that'), $answers, 'nothing is lost');
$node->safe_psql('postgres', add_rows('t', 3000001, 3020000));
index_equals_heap($node, 't', 'filled again');
$node->stop;
done_testing();
