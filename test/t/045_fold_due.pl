# Goal: a log is folded without being asked when it is old, however short it is, and when its replay would
# take longer than xtree.recovery_target_time; also one that a crash has left and that nobody changes again.
# And no log grows without end under insertion by several sessions.
# Method: each reason alone, with the settings of the others out of reach; folds are counted by xtree_stats.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use XTreeTest;

my $node = new_server('fold_due', conf => "xtree.max_log_age = 0\nxtree.recovery_target_time = 0\n" .
	"xtree.flush_interval = '20ms'\n");
create_table($node, 't');
$node->safe_psql('postgres', 'CHECKPOINT');

sub log_bytes { return $node->safe_psql('postgres', q(SELECT log_bytes FROM xtree_stats('t_p'))); }
sub set
{
	my ($name, $value) = @_;
	$node->safe_psql('postgres', "ALTER SYSTEM SET $name = '$value'");
	$node->safe_psql('postgres', 'SELECT pg_reload_conf()');
}
my $empty = q(SELECT log_bytes = 0 FROM xtree_stats('t_p'));

# By age.
$node->safe_psql('postgres', add_rows('t', 1, 50));
cmp_ok(log_bytes(), '>', 0, 'a short log stays while no age is set');
set('xtree.max_log_age', '1s');
ok($node->poll_query_until('postgres', $empty), 'an old log is folded, however short');
my $folds = $node->safe_psql('postgres', q(SELECT checkpoints FROM xtree_stats('t_p')));
sleep(3);
is($node->safe_psql('postgres', q(SELECT checkpoints FROM xtree_stats('t_p'))), $folds,
	'and an empty one is left alone');
$node->safe_psql('postgres', add_rows('t', 51, 60));
ok($node->poll_query_until('postgres', $empty), 'what came after the fold grows old again');

# By age, after a crash; nobody changes the index.
set('xtree.max_log_age', '0');
$node->safe_psql('postgres', add_rows('t', 100, 150));
my $before = answers_by($node, 't', 'seq');
$node->stop('immediate');
$node->start;
cmp_ok(log_bytes(), '>', 0, 'the log is there after a crash');
set('xtree.max_log_age', '1s');
ok($node->poll_query_until('postgres', $empty), 'and is folded though nobody changes the index');
is(index_equals_heap($node, 't', 'folded by age'), $before, 'with the same answers');
set('xtree.max_log_age', '0');

# By the time that its replay would take. No log of 1 MB has been loaded, so that the guess holds: 1 second is
# 20 MB, and the size limit, 64 MB, is not reached.
set('xtree.recovery_target_time', '1s');
$node->safe_psql('postgres', add_rows('t', 1000, 1100));
cmp_ok(log_bytes(), '>', 0, 'a log that is replayed at once stays');
$folds = $node->safe_psql('postgres', q(SELECT checkpoints FROM xtree_stats('t_b')));
$node->safe_psql('postgres', add_rows('t', 10001 + $_ * 100000, 110000 + $_ * 100000)) foreach 0 .. 4;
ok($node->poll_query_until('postgres', "SELECT checkpoints > $folds FROM xtree_stats('t_b')"),
	'a log that would take long to replay is folded before it reaches the size limit');
index_equals_heap($node, 't', 'folded for the recovery target');
set('xtree.recovery_target_time', '0');

# The limits hold while several sessions insert.
set('xtree.max_log_size', '256kB');
set('xtree.log_size_limit', '1MB');
is($node->safe_psql('postgres', q(SELECT xtree_checkpoint('t_p'))), 't', 'the log from before goes');
my @sessions = map {
	my $base = 10_000_000 * $_;
	start_session($node, join("\n", map { add_rows('t', $base + $_ * 500, $base + $_ * 500 + 499) } 0 .. 79))
} 1 .. 2;
my $most = 0;
foreach my $look (1 .. 40)
{
	my $bytes = log_bytes();

	$most = $bytes if $bytes > $most;
	select(undef, undef, undef, 0.05);
}
$_->finish foreach @sessions;
note("longest log seen: $most bytes");
cmp_ok($most, '<', 16 * 1024 * 1024, 'logs stay short under insertion');
ok($node->poll_query_until('postgres', q(SELECT log_bytes < 1024 * 1024 FROM xtree_stats('t_p'))),
	'and are short afterwards');
index_equals_heap($node, 't', 'inserted beside folds');
$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|broken|terminated by signal 11/, 'the log has no bad news');
done_testing();
