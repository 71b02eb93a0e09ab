# Goal: after pg_rewind an index is whole, or it says that it must be rebuilt; never a wrong answer.
# Method: primary and standby part; each table's index is in another state on the two sides (written to,
# folded or left alone, before or after the parting). pg_rewind takes the data file of the one and the
# log of the other. Then every index of the rewound server must answer as its heap, or fail with a hint
# to REINDEX, and REINDEX on the primary must mend all of them.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use XTreeTest;

my @tables = qw(idle small source_folds target_folds both_fold source_writes);

sub fold
{
	my ($node, @names) = @_;
	$node->safe_psql('postgres', "SELECT xtree_checkpoint('${_}_p'), xtree_checkpoint('${_}_b')") foreach @names;
}

# Whether the table's indexes answer; if not, they must say what is to be done.
sub answers_or_knows
{
	my ($node, $table, $what) = @_;
	my $broken = 0;
	my $expected = answers_by($node, $table, 'seq');

	foreach my $question ("p <@ box '((-1000,-1000),(1000,1000))'", "b && box '((-1000,-1000),(1000,1000))'")
	{
		my $select = "SELECT count(*), md5(string_agg(id::text, ',' ORDER BY id)) FROM $table WHERE $question";
		my $right = $node->safe_psql('postgres', "SET enable_indexscan = off; SET enable_bitmapscan = off; $select");
		my ($code, $out, $err) = $node->psql('postgres', "SET enable_seqscan = off; SET enable_bitmapscan = off; $select");
		if ($code == 0)
		{
			is($out, $right, "$what: the index answers as the heap: $table, $question");
		}
		else
		{
			$broken = 1;
			my $column = $question =~ /^(\w)/ ? $1 : '';
			like($err, qr/xtree index "${table}_$column" is broken.*REINDEX INDEX/s, "$what: the index says that it needs REINDEX: $table, $question");
		}
	}
	return !$broken;
}

# A primary and the standby that replaces it. `before_parting` and `after_parting` are called with both.
sub part
{
	my ($name, %steps) = @_;
	my $primary = new_server("${name}_a", init => [ allows_streaming => 1, extra => ['--data-checksums'] ],
		conf => "wal_keep_size = 256MB\n");
	create_table($primary, $_) foreach @tables;
	$primary->safe_psql('postgres', 'CREATE TABLE plain (id bigint)');
	$primary->safe_psql('postgres', add_rows($_, 1, 2000)) foreach @tables;
	$primary->backup('base');
	my $standby = PostgreSQL::Test::Cluster->new("${name}_b");
	$standby->init_from_backup($primary, 'base', has_streaming => 1);
	$standby->start;
	$primary->safe_psql('postgres', add_rows($_, 2001, 3000)) foreach @tables;
	$primary->safe_psql('postgres', 'CHECKPOINT');
	$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
	$standby->safe_psql('postgres', 'CHECKPOINT');
	$steps{before}->($primary, $standby) if $steps{before};
	$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
	$standby->promote;
	$primary->safe_psql('postgres', 'INSERT INTO plain SELECT generate_series(1, 1000)');
	$standby->safe_psql('postgres', 'CHECKPOINT');
	$standby->safe_psql('postgres', 'INSERT INTO plain SELECT generate_series(1, 10)');
	$steps{after}->($primary, $standby);
	return ($primary, $standby);
}

sub rewind
{
	my ($primary, $standby) = @_;
	$primary->stop;
	my ($out, $err);
	my $ok = IPC::Run::run(
		[ 'pg_rewind', '--source-server', $standby->connstr('postgres'), '--target-pgdata', $primary->data_dir,
			'--config-file', $primary->data_dir . '/postgresql.conf' ],
		'>', \$out, '2>', \$err);
	note($out . $err);
	return $ok;
}

sub follow
{
	my ($primary, $standby) = @_;
	# The rewound directory has the other's settings.
	$primary->append_conf('postgresql.conf', 'port = ' . $primary->port);
	$primary->enable_streaming($standby);
	$primary->set_standby_mode;
	$primary->start;
	$standby->wait_for_catchup($primary, 'replay', $standby->lsn('insert'));
}

sub judged
{
	my ($node, $what) = @_;
	return join ' ', map { answers_or_knows($node, $_, $what) ? $_ : () } @tables;
}

# Nothing is written to the old primary's indexes after the parting, but both sides fold.
my ($old, $new) = part('quiet', after => sub {
	my ($primary, $standby) = @_;
	fold($standby, qw(source_folds both_fold));
	fold($primary, qw(target_folds both_fold));
	$standby->safe_psql('postgres', add_rows('source_writes', 3001, 4000));
});
ok(rewind($old, $new), 'quiet: rewound');
follow($old, $new);
is(judged($old, 'quiet'), 'idle small source_writes',
	'quiet: indexes whose log builds on what the data file holds are whole, and only they');
# The log names what it can, files, and how to tell their names.
my $log = slurp_file($old->logfile);
my %named = map { $_ => 1 } map { $old->safe_psql('postgres', "SELECT $_") } $log =~ /rebuilt with REINDEX\. In its database, (pg_filenode_relation\(\d+, \d+\)) is its name/g;
is(join(' ', sort keys %named), join(' ', map { ("${_}_b", "${_}_p") } sort qw(source_folds target_folds both_fold)),
	'quiet: the log tells which indexes are broken');
my ($refused, $none, $message) = $old->psql('postgres', "SET enable_seqscan = off; SELECT count(*) FROM both_fold WHERE p <@ box '((0,0),(1,1))'");
like($message, qr/HINT:\s+Rebuild it with REINDEX INDEX on the primary/, 'quiet: a standby says where to REINDEX');
$old->restart;
is(judged($old, 'quiet, restarted'), 'idle small source_writes', 'quiet: a restart changes nothing');
$new->safe_psql('postgres', add_rows($_, 5001, 5500)) foreach @tables;
$new->wait_for_catchup($old, 'replay', $new->lsn('insert'));
$old->stop('immediate');
$old->start;
is(judged($old, 'quiet, written to'), 'idle small source_writes', 'quiet: nor do writes and a crash');
$new->safe_psql('postgres', "REINDEX TABLE $_") foreach @tables;
$new->safe_psql('postgres', add_rows($_, 6001, 6100)) foreach @tables;
$new->wait_for_catchup($old, 'replay', $new->lsn('insert'));
is(judged($old, 'quiet, rebuilt'), "@tables", 'quiet: REINDEX on the primary mends all of them');
$old->stop;
command_ok([ 'pg_checksums', '--check', '-D', $old->data_dir ], 'quiet: and all page checksums hold');
$new->stop;

# Everything is written to on both sides, and the new primary writes and folds while its files are read.
($old, $new) = part('busy',
	before => sub { $_[0]->safe_psql('postgres', 'DELETE FROM small WHERE id > 100; VACUUM small') },
	after => sub {
		my ($primary, $standby) = @_;
		$primary->safe_psql('postgres', add_rows($_, 4001, 6000) . "DELETE FROM $_ WHERE id % 3 = 0; VACUUM $_") foreach @tables;
		fold($primary, qw(target_folds both_fold small));
		$primary->safe_psql('postgres', 'CHECKPOINT');
		$standby->append_conf('postgresql.conf', "xtree.max_log_size = '256kB'");
		$standby->reload;
		$standby->safe_psql('postgres', add_rows($_, 3001, 3500)) foreach @tables;
		fold($standby, qw(source_folds both_fold));
	});
my @sessions = map {
	my $base = 1_000_000 * $_;
	start_session($new, join "\n", map {
			add_rows($tables[$_ % @tables], $base + $_ * 100, $base + $_ * 100 + 99) .
			"SELECT xtree_checkpoint('$tables[($_ + 3) % @tables]_p');" } 0 .. 150)
} 1 .. 2;
ok(rewind($old, $new), 'busy: rewound');
$_->finish foreach @sessions;
my $folds = $new->safe_psql('postgres', "SELECT checkpoints FROM xtree_stats('both_fold_p')");
$new->safe_psql('postgres', add_rows('both_fold', 7_000_000, 7_000_010));
fold($new, 'both_fold');
cmp_ok($new->safe_psql('postgres', "SELECT checkpoints FROM xtree_stats('both_fold_p')"), '>', $folds,
	'busy: folds go on when pg_rewind has left');
follow($old, $new);
my $whole = judged($old, 'busy');
note("busy, whole: $whole");
unlike($whole, qr/_fold/, 'busy: what either side has folded is not whole');
$new->safe_psql('postgres', "REINDEX TABLE $_") foreach @tables;
$new->wait_for_catchup($old, 'replay', $new->lsn('insert'));
is(judged($old, 'busy, rebuilt'), "@tables", 'busy: REINDEX on the primary mends all of them');
$old->promote;
index_equals_heap($old, $_, 'busy, promoted again') foreach qw(idle both_fold);
$old->stop;
$new->stop;

# Images name blocks, of which pg_rewind would take some from the other server and leave the others.
my ($refused_old, $refused_new) = part('built', after => sub { $_[0]->safe_psql('postgres', 'REINDEX INDEX idle_p') });
ok(!rewind($refused_old, $refused_new), 'built: pg_rewind refuses after a build');
$refused_new->stop;

# Whoever else reads parts of files holds up folds for a while only, and that is said once. A pg_rewind that has been
# asleep for longer does not go on as if nothing had happened.
my $slow = new_server('slow', conf => "xtree.file_copy_timeout = '1s'\n");
create_table($slow, 'small');
$slow->safe_psql('postgres', 'CHECKPOINT;' . add_rows('small', 1, 100));
my $part = q(pg_read_binary_file('PG_VERSION', 0, 2, true));
my ($monitor, $rewinder) = map { $slow->background_psql('postgres', on_error_stop => 0) } 1 .. 2;
$monitor->query_safe('BEGIN');
$monitor->query_safe("SELECT $part") foreach 1 .. 2;
is($slow->safe_psql('postgres', q(SELECT xtree_checkpoint('small_p'))), 'f', 'slow: a session that reads parts of files holds up folds');
sleep(2);
is($slow->safe_psql('postgres', q(SELECT xtree_checkpoint('small_p'))), 'f', 'slow: as long as its transaction lasts');
$monitor->query_safe('COMMIT');
is($slow->safe_psql('postgres', q(SELECT xtree_checkpoint('small_p'))), 'f', 'slow: and a while longer');
ok($slow->poll_query_until('postgres', q(SELECT xtree_checkpoint('small_p'))), 'slow: but not until it ends');
my $files = "SELECT count($part) FROM unnest('{1}'::int[])";
$rewinder->query_safe($files);
ok($slow->poll_query_until('postgres', q(SELECT xtree_checkpoint('small_b'))), 'slow: a fold passes one that sleeps');
$rewinder->query($files);
like($rewinder->{stderr}, qr/files of xtree indexes have changed since pg_rewind began/, 'slow: which is told when it wakes up');
$monitor->query_safe("SELECT $part");
$_->quit foreach $monitor, $rewinder;
ok($slow->poll_query_until('postgres', q(SELECT xtree_checkpoint('small_b'))), 'slow: the end of a session ends its hold');
$slow->stop;
my $said = () = slurp_file($slow->logfile) =~ /this session holds up folds/g;
is($said, 2, 'slow: each session has said so once');

unlike(slurp_file($_->logfile), qr/PANIC|terminated by signal (11|6|7)|checksum verification failed/,
	'the log of ' . $_->name . ' has no bad news') foreach $old, $new;
done_testing();
