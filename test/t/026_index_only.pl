# Goal: a standby never makes index-only scans, since replay does not wait for them; after promotion it
# does. VACUUM waits for index-only scans of all kinds of sessions, and its wait is seen and cancelled.
# Method: a streaming standby; cursors in background sessions of the primary.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use XTreeTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = new_server('primary', conf => "deadlock_timeout = 20ms\n");
create_table($primary, 't');
$primary->safe_psql('postgres', add_rows('t', 1, 4000));
$primary->safe_psql('postgres', 'VACUUM ANALYZE t');
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->append_conf('postgresql.conf', 'hot_standby_feedback = off');
$standby->start;

my $forced = 'SET enable_seqscan = off; SET enable_bitmapscan = off;';
my @queries = (
	"SELECT count(*) FROM t WHERE p <@ box '((-20,-15),(31,22))'",
	"SELECT count(p), min(p[0]) FROM t WHERE p <@ box '((-20,-15),(31,22))'",
	"SELECT count(b), min((b[0])[0]) FROM t WHERE b && box '((-20,-15),(31,22))'",
	'SELECT count(*) FROM t');

sub plans
{
	my ($node) = @_;
	return join("\n", map { $node->safe_psql('postgres', "$forced EXPLAIN (COSTS OFF) $_") } @queries);
}

sub answers
{
	my ($node, $settings) = @_;
	return join("\n", map { $node->safe_psql('postgres', "$settings $_") } @queries);
}

my $expected = answers($primary, 'SET enable_indexscan = off; SET enable_bitmapscan = off; SET enable_indexonlyscan = off;');
is(answers($primary, $forced), $expected, 'index-only scans answer as the heap does');
is(() = plans($primary) =~ /Index Only Scan using t_[pb]\b/g, 3, 'which the primary makes');

$primary->wait_for_catchup($standby);
is(answers($standby, $forced), $expected, 'a standby answers as the primary does');
unlike(plans($standby), qr/Index Only Scan using t_[pb]\b/, 'without index-only scans');
# A count of everything, where the primary key cannot stand in.
$primary->safe_psql('postgres', 'ALTER TABLE t DROP CONSTRAINT t_pkey');
like($primary->safe_psql('postgres', "$forced EXPLAIN SELECT count(*) FROM t"),
	qr/Index Only Scan using t_[pb]\b/, 'a count of everything on the primary');
$primary->wait_for_catchup($standby);
like($standby->safe_psql('postgres', "$forced EXPLAIN SELECT count(*) FROM t"),
	qr/Index Scan using t_[pb]\b/, 'and on the standby');
is(answers($standby, $forced), $expected, 'which answers the same');

# Sessions that were in the standby before: plans made then, and a transaction begun then.
my $session = $standby->background_psql('postgres', on_error_stop => 1);
$session->query_safe("$forced PREPARE counts AS $queries[0]; SET plan_cache_mode = force_generic_plan");
my $count = $session->query_safe('EXECUTE counts');
$session->query_safe('BEGIN');
$session->query_safe('SELECT 1');
$standby->promote;
is($session->query_safe('EXECUTE counts'), $count, 'a plan of the standby is good after promotion');
is($session->query_safe($queries[0]), $count, 'and so is one made in a transaction begun before');
$session->query_safe('COMMIT');
$session->quit;
like(plans($standby), qr/Index Only Scan using t_[pb]\b/, 'a new primary makes index-only scans');
is(answers($standby, $forced), $expected, 'that answer the same');
$standby->stop;

# VACUUM on the primary: an idle reader with a cursor is waited for, whatever happens to VACUUM.
my $rows = $primary->safe_psql('postgres',
	"DELETE FROM t WHERE id % 20 <> 0; SELECT count(*) FROM t WHERE p <@ box '((-1000,-1000),(1000,1000))'");
my $reader = $primary->background_psql('postgres', on_error_stop => 1);
$reader->query_safe("$forced BEGIN; DECLARE c CURSOR FOR SELECT p FROM t WHERE p <@ box '((-1000,-1000),(1000,1000))'");
$reader->query_safe('FETCH 1 FROM c');
my $vacuum = start_session($primary, 'VACUUM t;');
my $waits = q(SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'virtualxid' AND NOT granted);
ok($primary->poll_query_until('postgres', $waits), 'VACUUM shows whom it waits for');
is($primary->safe_psql('postgres', q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'VACUUM t;')),
	't', 'it is ended');
ok($primary->poll_query_until('postgres', $waits, 'f'), 'and waits no longer');
$vacuum->kill_kill;
my $again = start_session($primary, 'VACUUM t; VACUUM (PARALLEL 2) t;');
ok($primary->poll_query_until('postgres', $waits), 'the next VACUUM waits');
is(scalar(split /\n/, $reader->query_safe('FETCH ALL FROM c')), $rows - 1,
	'the reader finds the live rows alone');
# The end of the session ends the wait, too, without a word to the server.
$reader->{run}->signal('KILL');
ok($again->finish, 'VACUUM ends when the reader is gone');
eval { $reader->{run}->kill_kill };
index_equals_heap($primary, 't', 'after VACUUM');
$primary->stop;
done_testing();
