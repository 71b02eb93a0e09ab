# Goal: a file that is cut short under a running server is an ERROR, with the index's name and the way to
# mend it, for who meets it, and nothing for anybody else: no crash, no short answer, no lost row.
# Method: truncate(2) on data file and log between the statements of sessions that have them mapped, open
# cursors among them; every way to use the index; the process ids show that no process died.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use XTreeTest;

my $node = new_server('sigbus');
create_table($node, 't');
create_table($node, 'other');
$node->safe_psql('postgres', add_rows('t', 1, 60000) . add_rows('other', 1, 5000));
$node->safe_psql('postgres', "SELECT xtree_checkpoint('t_p'), xtree_checkpoint('t_b')");
my $expected = answers_by($node, 't', 'seq');
my $use = 'SET enable_seqscan = off; SET enable_bitmapscan = off;';
my $all = "b && box '((-1000,-1000),(1000,1000))'";
my $count = $node->safe_psql('postgres', "SELECT count(*) FROM t WHERE $all");
my $postmaster = slurp_file($node->data_dir . '/postmaster.pid') =~ s/\n.*//sr;

# A shell command that cuts a file within a session.
sub cut
{
	my ($path, $bytes) = @_;
	my $file = $node->data_dir . "/$path";
	return "\\! truncate -s $bytes $file\n";
}

# One session; its process id is asked for at the beginning and the end.
sub session
{
	my ($what, $script, %options) = @_;
	my ($code, $out, $err) = $node->psql('postgres',
		"SELECT pg_backend_pid();\n$script\nSELECT pg_backend_pid();\n", on_error_stop => 0);
	my @lines = split /\n/, $out;
	is($lines[0], $lines[-1], "$what: the session survives");
	like($err, $options{error} // qr/ERROR:\s+xtree index "t_b" is broken.*file "[^"]+" has \d+ blocks where \d+ belong.*REINDEX/s,
		"$what: an error says which index and what to do");
	return ($out, $err);
}

# Back to a whole index.
sub mend
{
	$node->safe_psql('postgres', 'REINDEX INDEX t_b; SELECT xtree_checkpoint(\'t_b\')');
	is($node->safe_psql('postgres', "$use SELECT count(*) FROM t WHERE $all"), $count, 'REINDEX mends it');
	return relation_path($node, 't_b');
}

my $path = relation_path($node, 't_b');
my %uses = (
	'an index scan' => "$use SELECT count(*) FROM t WHERE $all;",
	'a bitmap scan' => "SET enable_seqscan = off; SET enable_indexscan = off; SELECT count(*) FROM t WHERE $all;",
	'a check' => "SELECT xtree_check('t_b', true);",
	'statistics' => "SELECT entries FROM xtree_stats('t_b');",
	'inserts' => add_rows('t', 100000, 103000),
	'vacuum' => 'DELETE FROM t WHERE id % 50 = 7; VACUUM t;');
foreach my $what (sort keys %uses)
{
	session($what, "$use SELECT count(*) FROM t WHERE b && box '((0,0),(1,1))';\n" . cut($path, 65536) . $uses{$what});
	is($node->safe_psql('postgres', "$use SELECT count(*) FROM other WHERE $all"), '4949', "$what: other indexes answer");
	$node->safe_psql('postgres', 'DELETE FROM t WHERE id >= 100000');
	$count = $node->safe_psql('postgres', "SET enable_indexscan = off; SET enable_bitmapscan = off; SELECT count(*) FROM t WHERE $all");
	$path = mend();
}

# A cursor stands on the mapping, while the same session goes on to use it.
session('a cursor', "BEGIN; $use DECLARE c CURSOR FOR SELECT id FROM t WHERE $all; FETCH 5 FROM c;\n" . cut($path, 65536) .
	"SAVEPOINT s; MOVE ALL IN c; ROLLBACK TO s; SELECT count(*) FROM t WHERE $all; ROLLBACK; SELECT count(*) FROM t WHERE $all;");
$path = mend();

# A fold: it is not published, and the changes are in the heap.
session('a fold', add_rows('t', 200000, 203000) . cut($path, 65536) . "SELECT xtree_checkpoint('t_b');",
	error => qr/ERROR:.*"t_b".*has \d+ blocks where \d+ belong/s);
$node->safe_psql('postgres', 'DELETE FROM t WHERE id >= 200000');
$path = mend();

# The log. Here the row that is being inserted would be lost with the server: the index is marked for good.
session('the log', "INSERT INTO t VALUES (300000, point(1, 1), box(point(1, 1), point(2, 2)));\n" .
	cut("${path}_vm", 0) . "INSERT INTO t VALUES (300001, point(1, 1), box(point(1, 1), point(2, 2)));\n");
$node->stop('immediate');
$node->start;
my ($code, $out, $err) = $node->psql('postgres', "$use SELECT count(*) FROM t WHERE $all");
isnt($code, 0, 'the log: the index is broken after a crash, too') or diag($out);
$node->safe_psql('postgres', 'DELETE FROM t WHERE id >= 300000');
mend();

index_equals_heap($node, 't', 'in the end');
my $log = slurp_file($node->logfile);
unlike($log, qr/terminated by signal 7|PANIC|assertion failed|crash of another server process/, 'no process died');
$node->stop;
done_testing();
