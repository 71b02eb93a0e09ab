# Goal: redo never stops a server. What it cannot follow for want of shared memory is broken, says so once,
# and REINDEX mends it; the other indexes go on.
# Method: a standby with a limit on shared memory that the primary does not have. One index outgrows it;
# then there are more indexes than it can even have records of, so that marking one fails, too. The standby
# is restarted, promoted and asked.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use XTreeTest;

my $tables = 60;
my $ask = q(SET enable_seqscan = off; SET enable_bitmapscan = off;
	SELECT count(*) FROM %s WHERE p <@ box '((-1000,-1000),(1000,1000))');

my $primary = new_server('primary', init => [ allows_streaming => 1 ]);
$primary->safe_psql('postgres', 'CREATE TABLE small (id int, p point); CREATE INDEX small_p ON small USING xtree (p);
	INSERT INTO small VALUES (1, point(1, 1));');
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->append_conf('postgresql.conf', "xtree.shared_memory_limit = '1MB'\n");
$standby->start;
is($standby->safe_psql('postgres', sprintf($ask, 'small')), '1', 'the standby answers');

# One that fits, for the time being.
create_table($primary, 't');
$primary->safe_psql('postgres', add_rows('t', 1, 100));
$primary->wait_for_catchup($standby);
is($standby->safe_psql('postgres', sprintf($ask, 't')), '99', 'a small index fits');

# So many indexes that not even their records fit: XtRedoBroken itself raises.
$primary->safe_psql('postgres', join('', map {
			"CREATE TABLE m$_ (id int, p point); CREATE INDEX m${_}_p ON m$_ USING xtree (p);" } 1 .. $tables));
$primary->safe_psql('postgres', join('', map {
			"INSERT INTO m$_ SELECT i, point(i, i) FROM generate_series(1, 300) AS i;" } 1 .. $tables));
$primary->wait_for_catchup($standby);
is($standby->safe_psql('postgres', 'SELECT 1'), '1', 'the standby is up');
my ($code, $out, $err);
my $broken = 0;
my $wrong = 0;
foreach my $m (1 .. $tables)
{
	($code, $out, $err) = $standby->psql('postgres', sprintf($ask, "m$m"));
	if ($code == 0) { $wrong++ if $out ne '300' }
	elsif ($err =~ /is broken|out of shared memory/) { $broken++ }
	else { $wrong++; diag($err) }
}
is($wrong, 0, 'no index answers short');
cmp_ok($broken, '>', 0, "some of the indexes do not fit ($broken of $tables)");
# An index outgrows what is left: the memory that its growth asks for is not to be had.
$primary->safe_psql('postgres', add_rows('t', 101, 60000));
$primary->safe_psql('postgres', "INSERT INTO small VALUES (2, point(2, 2))");
$primary->wait_for_catchup($standby);
($code, $out, $err) = $standby->psql('postgres', sprintf($ask, 't'));
isnt($code, 0, 'an index that outgrows the memory is broken');
like($err, qr/xtree index "t_p" is broken.*REINDEX/s, 'with the hint to rebuild it');
is($out, '', 'and without an answer');
like(slurp_file($standby->logfile), qr/DETAIL:\s+out of shared memory for xtree indexes/, 'which the log explains');

my $log = slurp_file($standby->logfile);
my %warned;
$warned{$1}++ while $log =~ /cannot follow the xtree index in file "([^"]+)"/g;
is(scalar(grep { $_ > 1 } values %warned), 0, 'each is reported once');
unlike($log, qr/FATAL.*(redo|memory)|PANIC|terminated by signal|shutting down due to startup/, 'nothing stopped the server');

# The marks are on disk: with memory enough for all, they are not trusted either.
$standby->safe_psql('postgres', 'CHECKPOINT');
$standby->append_conf('postgresql.conf', "xtree.shared_memory_limit = 0\n");
$standby->restart;
$wrong = 0;
foreach my $table ('t', map { "m$_" } 1 .. $tables)
{
	my $expected = $primary->safe_psql('postgres', sprintf($ask, $table));
	($code, $out, $err) = $standby->psql('postgres', sprintf($ask, $table));
	next if $code == 0 && $out eq $expected;
	next if $code != 0 && $err =~ /is broken/;
	$wrong++;
	diag("$table: $out $err");
}
is($wrong, 0, 'after a restart without the limit each answers right or is broken');
is($standby->safe_psql('postgres', sprintf($ask, 'small')), '2', 'an index that always fitted never failed');

$standby->promote;
$standby->safe_psql('postgres', join('', map { "REINDEX TABLE $_;" } 't', map { "m$_" } 1 .. $tables));
index_equals_heap($standby, 't', 'after REINDEX');
is($standby->safe_psql('postgres', sprintf($ask, "m$tables")), '300', 'and the small ones answer');
done_testing();
