# What the TAP tests share: servers that preload xtree, a table with a point and a box column, and
# the comparison that all of them end in.
#
# The comparison: the same questions are answered by sequential scan and by each kind of index scan
# (the plan is asserted, so that it cannot pass by not using the index), and xtree_check walks the
# index against the heap.
package XTreeTest;

use strict;
use warnings;
use Exporter 'import';
use File::Temp ();
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(new_server await_server create_table add_rows start_session index_equals_heap answers_by
  index_files relation_path);

# A running server with the extension. Options: init => arguments of init, conf => settings.
sub new_server
{
	my ($name, %options) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(@{ $options{init} // [] });
	# The settings that the Perl library chooses for speed are not what users run; the last one counts.
	$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'xtree'
wal_level = replica
max_wal_senders = 10
max_connections = 20
shared_buffers = 16MB
autovacuum = off
max_wal_size = 1GB
) . ($options{conf} // ''));
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION xtree');
	return $node;
}

# Waits until a server answers that somebody else starts; false if it does not. Not by poll_query_until, which feeds
# its query through a pipe, and dies where psql has met no server and is gone first.
sub await_server
{
	my ($node) = @_;
	foreach my $attempt (1 .. 1200)
	{
		return 1 if system("psql -Xq -d '" . $node->connstr('postgres') . "' -c 'SELECT true' >/dev/null 2>&1") == 0;
		select(undef, undef, undef, 0.1);
	}
	return 0;
}

# A table with one index a column; kind: '', 'UNLOGGED'.
sub create_table
{
	my ($node, $table, $kind) = @_;
	$kind //= '';
	$node->safe_psql('postgres', qq(
		CREATE $kind TABLE $table (id bigint PRIMARY KEY, p point, b box);
		CREATE INDEX ${table}_p ON $table USING xtree (p);
		CREATE INDEX ${table}_b ON $table USING xtree (b);));
}

# Rows from..to: places depend on the id alone, spread over [-180, 180] x [-90, 90], every tenth on a
# grid so that equal keys occur, every 97th NULL.
sub add_rows
{
	my ($table, $from, $to) = @_;
	return qq(
		INSERT INTO $table
		SELECT i, CASE WHEN i % 97 = 0 THEN NULL ELSE point(x, y) END,
			   CASE WHEN i % 97 = 0 THEN NULL ELSE box(point(x, y), point(x + i % 7 / 3.0, y + i % 5 / 4.0)) END
		FROM (SELECT i, CASE WHEN i % 10 = 0 THEN i % 36 * 10 - 180 ELSE (i * 7919 % 360007) / 1000.0 - 180 END AS x,
					 CASE WHEN i % 10 = 0 THEN i % 18 * 10 - 90 ELSE (i * 104729 % 180001) / 1000.0 - 90 END AS y
			  FROM generate_series(${from}::bigint, $to) AS i) AS places;);
}

# Starts a session that runs a script by itself, so that several run at once; ->finish waits for it.
# (Fed through a pipe it would stand still whenever this process does not pump.)
sub start_session
{
	my ($node, $script) = @_;
	my ($handle, $file) = File::Temp::tempfile(DIR => PostgreSQL::Test::Utils::tempdir());

	print $handle $script;
	close $handle;
	return IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr('postgres'), '-f', $file ],
		'<', \undef, '>', "$file.out", '2>', "$file.err");
}

my @conditions = (
	[ 'p', "p <@ box '((-1000,-1000),(1000,1000))'" ],
	[ 'p', "p <@ box '((-20,-15),(31,22))'" ],
	[ 'p', 'p IS NULL' ],
	[ 'b', "b && box '((-1000,-1000),(1000,1000))'" ],
	[ 'b', "b && box '((-20,-15),(31,22))'" ],
	[ 'b', "b <@ box '((60,-45),(131,52))'" ],
	[ 'b', 'b IS NULL' ]);
my %settings = (
	seq => 'SET enable_indexscan = off; SET enable_bitmapscan = off; SET enable_indexonlyscan = off;',
	index => 'SET enable_seqscan = off; SET enable_bitmapscan = off;',
	bitmap => 'SET enable_seqscan = off; SET enable_indexscan = off; SET enable_indexonlyscan = off;');

# The answers to all questions by one kind of scan, one a line.
sub answers_by
{
	my ($node, $table, $scan) = @_;
	my $script = $settings{$scan};

	foreach my $condition (@conditions)
	{
		$script .= qq(SELECT count(*), md5(string_agg(id::text, ',' ORDER BY id))
					  FROM $table WHERE $condition->[1];\n);
	}
	# The nearest in both orders of equal distances would differ; the distances may not.
	my $nearest = qq(SELECT id, p <-> point '(8.2,-3.7)' AS d FROM $table
					 WHERE p IS NOT NULL ORDER BY p <-> point '(8.2,-3.7)' LIMIT 50);
	$script .= "SELECT md5(string_agg(d::text, ',' ORDER BY d)) FROM ($nearest) AS n;\n"
	  if $scan ne 'bitmap';
	return $node->safe_psql('postgres', $script, timeout => 600);
}

# Index and heap agree, however asked. Skips the walk (which needs a primary) on request.
sub index_equals_heap
{
	my ($node, $table, $what, %options) = @_;
	my $expected = answers_by($node, $table, 'seq');

	is(answers_by($node, $table, 'index'), $expected, "$what: index scans answer as the heap does");
	(my $without_nearest = $expected) =~ s/\n[0-9a-f]*\z//;
	is(answers_by($node, $table, 'bitmap'), $without_nearest,
		"$what: bitmap scans answer as the heap does");
	foreach my $column ('p', 'b')
	{
		like($node->safe_psql('postgres', $settings{index} .
				"EXPLAIN SELECT * FROM $table WHERE $column " .
				($column eq 'p' ? '<@' : '&&') . " box '((0,0),(1,1))'"),
			qr/Index Scan using \w*$column\w* on/, "$what: and the index on $column was used");
		next if $options{no_check};
		my ($code, $out, $err) = $node->psql('postgres', "SELECT xtree_check('${table}_$column', true)");
		is($code, 0, "$what: xtree_check finds nothing in ${table}_$column")
		  or diag($err);
	}
	return $expected;
}

# Path of a relation's main fork below the data directory.
sub relation_path
{
	my ($node, $relation) = @_;
	return $node->safe_psql('postgres', "SELECT pg_relation_filepath('$relation')");
}

# Files of a relation (all forks and segments), given that path.
sub index_files
{
	my ($node, $path) = @_;
	return map { s/.*\///r } grep { /\Q$path\E(_\w+)?(\.\d+)?$/ } glob($node->data_dir . "/$path*");
}

1;
