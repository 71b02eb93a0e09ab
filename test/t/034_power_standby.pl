# Goal: a standby that loses its power goes on from its last restartpoint by itself, with what the primary has; with data
# checksums, which hold afterwards.
# Method: the standby runs on the disk that forgets what was not synced (shim/power.h), under replay, restartpoints, folds,
# vacuum and rebuilds; the power goes at random moments, also again during the recovery. POWER_ROUNDS and POWER_SEED in the environment.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);
use XTreeFaults;
use XTreeTest;

my $rounds = $ENV{POWER_ROUNDS} // 2;
my $seed = $ENV{POWER_SEED} // int(time);
srand($seed);
note("seed $seed");

my $primary = new_server('primary', init => [ allows_streaming => 1, extra => [ '--data-checksums', '--wal-segsize=1' ] ],
	conf => "wal_keep_size = 512MB\n");
create_table($primary, 't');
$primary->safe_psql('postgres', add_rows('t', 1, 1000));
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->append_conf('postgresql.conf', qq(
fsync = on
full_page_writes = on
checkpoint_timeout = 1h
xtree.max_log_size = '256kB'
xtree.flush_interval = '50ms'
));
power_on($standby);

sub equal
{
	my ($what) = @_;
	$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
	is(index_equals_heap($standby, 't', $what), answers_by($primary, 't', 'seq'), "$what: as on the primary");
}

my $next = 10_000;
foreach my $round (1 .. $rounds)
{
	my @sessions = map {
		my $script = $_;
		start_session($primary, $script) } (
		join("\n", map { my $from = $next; $next += 60; add_rows('t', $from, $from + 59) } 1 .. 150),
		"DELETE FROM t WHERE id % 31 = $round; VACUUM t;\nCHECKPOINT;\nSELECT pg_sleep(0.2);\n" x 8,
		"REINDEX INDEX t_p;\nSELECT pg_sleep(0.3);\nSELECT xtree_checkpoint('t_b');\n" x 4);
	my $points = start_session($standby, "CHECKPOINT;\nSELECT pg_sleep(0.15);\n" x 10);
	sleep(0.5 + rand(1.5));
	note("round $round: " . cut_power($standby, $round % 3 == 0 ? 0 : 1 + int(rand(1e9))));
	eval { $points->finish };
	foreach my $again (1 .. int(rand(3)))
	{
		power_start($standby);
		sleep(rand(0.6));
		note('again: ' . cut_power($standby, rand() < 0.3 ? 0 : 1 + int(rand(1e9))));
	}
	power_on($standby);
	$_->finish foreach @sessions;
	equal("round $round");
}
$primary->safe_psql('postgres', 'CHECKPOINT');
equal('at rest');
$standby->safe_psql('postgres', 'CHECKPOINT');
cut_power($standby, 0);
power_on($standby);
equal('cut at rest, all that was not synced lost');
$standby->stop;
$standby->command_ok([ 'pg_checksums', '--check', '-D', $standby->data_dir ], 'page checksums hold');
power_forget($standby);
power_on($standby);
$standby->promote;
$standby->safe_psql('postgres', add_rows('t', 500_001, 500_500));
index_equals_heap($standby, 't', 'promoted');
unlike(slurp_file($standby->logfile), qr/PANIC|terminated by signal (11|6)\b|is broken|cannot follow/, 'the log has no bad news');
$standby->stop('immediate');
$primary->stop;
done_testing();
