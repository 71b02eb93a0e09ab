# Goal: redo that looks ahead, for insertions into the same index among the records that the host has decoded, replays what is there
# and nothing else, whatever these records turn out to be about.
# Method: WAL in which the records ahead are of several indexes in turn, of NULL and unordered rows, of indexes that are dropped,
# truncated, rebuilt and vacuumed between them; replayed by a standby while it comes, then by crash recoveries of one and the same state with
# the host's look-ahead as it is, off, and with the smallest buffer and many records.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::RecursiveCopy;
use PostgreSQL::Test::Utils;
use Test::More;
use XTreeTest;

my $primary = new_server('primary', init => [ allows_streaming => 1 ]);
create_table($primary, $_) foreach ('t', 'u', 'cut', 'built');
$primary->safe_psql('postgres', join('', map { add_rows($_, 1, 3000) } 't', 'u', 'cut', 'built'));
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

$primary->safe_psql('postgres', 'CHECKPOINT');
foreach my $round (1 .. 6)
{
	my $from = 10_000 * $round;
	my $script = '';

	# One row in each table in turn, so that the records of eight indexes alternate.
	$script .= add_rows($_ % 4 == 0 ? 't' : $_ % 4 == 1 ? 'u' : $_ % 4 == 2 ? 'cut' : 'built', $from + $_, $from + $_)
	  foreach (1 .. 200);
	$script .= "INSERT INTO t VALUES ($from + 300, point('NaN', 1), NULL), ($from + 301, NULL, box '((1,1),(2,2))');\n";
	# An index that is gone by the time its records are replayed by a recovery.
	$script .= "CREATE TABLE gone$round (p point); CREATE INDEX ON gone$round USING xtree (p);
		INSERT INTO gone$round SELECT point(i, i) FROM generate_series(1, 500) AS i; DROP TABLE gone$round;\n";
	# The same within a transaction that is rolled back, and a subtransaction.
	$script .= "BEGIN; CREATE TABLE never (p point); CREATE INDEX ON never USING xtree (p);
		INSERT INTO never SELECT point(i, i) FROM generate_series(1, 100) AS i;\n";
	$script .= add_rows('t', $from + 400, $from + 450) . "SAVEPOINT s;\n" . add_rows('u', $from + 400, $from + 450) .
	  "ROLLBACK TO s;\nROLLBACK;\n";
	$script .= add_rows('cut', $from + 500, $from + 700) . "TRUNCATE cut;\n" . add_rows('cut', $from + 701, $from + 900);
	$script .= add_rows('built', $from + 500, $from + 700) . "REINDEX TABLE built;\n" . add_rows('built', $from + 701, $from + 900);
	# Rows go, and others get their TIDs, between insertions.
	$script .= add_rows('u', $from + 500, $from + 1500) . "DELETE FROM u WHERE id % 3 = $round % 3; VACUUM u;\n" .
	  add_rows('u', $from + 2000, $from + 3000);
	# Splits on all levels.
	$script .= add_rows('t', $from + 1000, $from + 4000);
	$primary->safe_psql('postgres', $script);
}
$primary->wait_for_catchup($standby);
my %expected = map { $_ => answers_by($primary, $_, 'seq') } ('t', 'u', 'cut', 'built');
foreach my $table (sort keys %expected)
{
	is(index_equals_heap($standby, $table, "standby, $table"), $expected{$table}, "the standby has the rows of $table");
}

$primary->stop('immediate');
$standby->stop;
my $data = $primary->data_dir;
my $kept = PostgreSQL::Test::Utils::tempdir() . '/kept';
PostgreSQL::Test::RecursiveCopy::copypath($data, $kept);
foreach my $settings (
	'', "recovery_prefetch = off\n", "wal_decode_buffer_size = '64kB'\n",
	"maintenance_io_concurrency = 0\n", "maintenance_io_concurrency = 1000\nwal_decode_buffer_size = '64MB'\n")
{
	(my $what = "recovery, $settings") =~ s/\n/ /g;
	PostgreSQL::Test::Utils::system_or_bail('rm', '-rf', $data);
	PostgreSQL::Test::RecursiveCopy::copypath($kept, $data);
	chmod 0700, $data;
	$primary->append_conf('postgresql.conf', $settings);
	$primary->start;
	foreach my $table (sort keys %expected)
	{
		is(index_equals_heap($primary, $table, "$what$table"), $expected{$table}, "$what: the rows of $table are there");
	}
	$primary->stop('immediate');
}
unlike(slurp_file($primary->logfile), qr/cannot follow the xtree index|PANIC|terminated by signal/, 'nothing was given up');
done_testing();
