# Goal: with old_snapshot_threshold VACUUM may remove rows that an old snapshot still sees. A scan under such a
# snapshot that would miss their entries fails, as with the host's access methods; others go on.
# Method: two snapshots, one of them older than the threshold, are used after VACUUM has removed entries; then, where
# nothing was removed since. GiST is asked the same.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use XTreeTest;

# At 0 the host takes snapshots for old that are older than five seconds; a look at the heap moves its mark.
my $node = new_server('old', conf => "old_snapshot_threshold = 0\n");
my @methods = ('gist', 'xtree');
$node->safe_psql('postgres', join('', map { qq(
	CREATE TABLE $_ (id int, p point);
	INSERT INTO $_ SELECT i, point(i, i) FROM generate_series(1, 1000) AS i;
	CREATE INDEX ${_}_p ON $_ USING $_ (p);
	DELETE FROM $_ WHERE id % 4 = 0;) } @methods) . 'CREATE TABLE other (id int)');

sub start_reader
{
	my $session = $node->background_psql('postgres', on_error_stop => 0);
	$session->query_safe('SET enable_seqscan = off');
	$session->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
	$session->query_safe('SELECT * FROM other');
	return $session;
}

sub ask
{
	my ($session, $table, $bitmap) = @_;
	$session->query_safe("SAVEPOINT s; SET enable_indexscan = @{[ $bitmap ? 'off' : 'on' ]}; "
		  . "SET enable_bitmapscan = @{[ $bitmap ? 'on' : 'off' ]}");
	$session->{stderr} = '';
	my $answer = $session->query("SELECT count(id) FROM $table WHERE p <@ box '((0,0),(2000,2000))'");
	$answer .= $1 if $session->{stderr} =~ /ERROR:\s+(.*)/;
	$session->{stderr} = '';
	$session->query_safe('ROLLBACK TO s');
	return $answer;
}

my $old = start_reader();
is(ask($old, $_, 0), '750', "$_: before") foreach @methods;
sleep 7;
my $young = start_reader();
$node->safe_psql('postgres', join('', map { "VACUUM $_; SELECT count(*) FROM $_;" } @methods));
foreach my $bitmap (0, 1)
{
	my $how = $bitmap ? 'bitmap scan' : 'index scan';
	is(ask($old, $_, $bitmap), 'snapshot too old', "$_: $how by an old snapshot") foreach @methods;
	is(ask($young, $_, $bitmap), '750', "$_: $how by a young snapshot") foreach @methods;
}
$_->quit foreach ($old, $young);

$old = start_reader();
sleep 7;
$node->safe_psql('postgres', join('', map { "VACUUM $_; SELECT count(*) FROM $_;" } @methods));
is(ask($old, $_, 0), '750', "$_: an old snapshot, nothing removed since") foreach @methods;
$old->quit;
$node->stop;
done_testing();
