# Goal: a streaming standby answers as its primary does, also after it was restarted, crashed or
# promoted.
# Method: the same questions on both after each change and catch-up.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use XTreeTest;

my $primary = new_server('primary', init => [ allows_streaming => 1 ]);
create_table($primary, 't');
$primary->safe_psql('postgres', add_rows('t', 1, 5000));
$primary->backup('base');

my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

sub standby_agrees
{
	my ($what) = @_;
	$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
	my $expected = answers_by($primary, 't', 'seq');
	is(index_equals_heap($standby, 't', $what, no_check => 1), $expected, "$what: as the primary");
}

standby_agrees('base backup');
$primary->safe_psql('postgres', add_rows('t', 5001, 9000));
standby_agrees('inserts');
$primary->safe_psql('postgres', 'UPDATE t SET b = box(p, p) WHERE id % 7 = 0');
$primary->safe_psql('postgres', 'DELETE FROM t WHERE id % 5 = 0');
standby_agrees('updates and deletes');
$primary->safe_psql('postgres', 'VACUUM t');
standby_agrees('vacuum');

# Restarts, clean and not, with work before and after.
$standby->restart;
standby_agrees('standby restarted');
$primary->safe_psql('postgres', add_rows('t', 9001, 12000));
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
$standby->stop('immediate');
$primary->safe_psql('postgres', add_rows('t', 12001, 13000));
$standby->start;
standby_agrees('standby stopped at once');

# Restartpoint, then a crash: the standby's own log carries what its restartpoint covers.
$primary->safe_psql('postgres', 'CHECKPOINT');
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
$standby->safe_psql('postgres', 'CHECKPOINT');
$primary->safe_psql('postgres', add_rows('t', 13001, 14000));
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
$standby->stop('immediate');
$standby->start;
standby_agrees('crash after a restartpoint');

# Structure: new index, rebuilt, dropped, truncated, while the standby has the old ones open.
$primary->safe_psql('postgres', 'REINDEX INDEX t_p');
standby_agrees('reindex');
$primary->safe_psql('postgres', 'DROP INDEX t_b');
$primary->safe_psql('postgres', 'CREATE INDEX t_b ON t USING xtree (b)');
standby_agrees('dropped and created');
$primary->safe_psql('postgres', 'TRUNCATE t');
$primary->safe_psql('postgres', add_rows('t', 1, 2500));
standby_agrees('truncate');
$primary->safe_psql('postgres', "SELECT xtree_checkpoint('t_p'); SELECT xtree_checkpoint('t_b')");
$primary->safe_psql('postgres', add_rows('t', 2501, 4000));
standby_agrees('fold on the primary');

# Crash of the primary under the standby: a new timeline of the engine, not of the host.
$primary->stop('immediate');
$primary->start;
$primary->safe_psql('postgres', add_rows('t', 4001, 6000));
standby_agrees('primary crashed');

my $last = answers_by($primary, 't', 'seq');
$primary->stop;
$standby->promote;
$standby->safe_psql('postgres', 'SELECT 1');
is(index_equals_heap($standby, 't', 'promoted'), $last, 'promoted: nothing is missing');
$standby->safe_psql('postgres', add_rows('t', 6001, 8000));
$standby->safe_psql('postgres', 'DELETE FROM t WHERE id % 3 = 0');
$standby->safe_psql('postgres', 'VACUUM t');
index_equals_heap($standby, 't', 'promoted and written to');
$standby->stop('immediate');
$standby->start;
index_equals_heap($standby, 't', 'promoted, written to and stopped');

unlike(slurp_file($standby->logfile), qr/PANIC|broken|terminated by signal 11/, 'the standby\'s log has no bad news');
done_testing();
