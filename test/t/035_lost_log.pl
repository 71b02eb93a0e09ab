# Goal: an index whose log has lost records while the server was stopped says so; it never answers short. And no
# log that was shortened for a good reason is taken for one.
# Method: the log of an index is removed, cut, replaced by an older one, or zeroed in places, each after a clean stop or an
# immediate one. After a clean stop the index is whole again once its log is; after an immediate one redo has marked it, since it
# could not apply what it replayed. Then everything that shortens a log in good order: a
# crash with ghosts, the reset of an unlogged index, replay of a build, base backups whose notes are younger than their logs.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use File::Copy;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use XTreeTest;

use constant BLOCK => 8192;

my $node = new_server('lost');
create_table($node, 't');
$node->safe_psql('postgres', add_rows('t', 1, 2000));
$node->safe_psql('postgres', q(SELECT xtree_checkpoint('t_p'), xtree_checkpoint('t_b')));
my $log;
sub find_log { $log = $node->data_dir . '/' . relation_path($node, 't_b') . '_vm' }
find_log();
my $rows = 2000;
my $question = q(SET enable_seqscan = off; SET enable_bitmapscan = off;
	SELECT count(*) FROM t WHERE b && box '((-1000,-1000),(1000,1000))');

sub put
{
	my ($bytes) = @_;
	open my $file, '>:raw', $log or die "could not write $log: $!";
	print $file $bytes;
	close $file;
}

# Adds rows, stops the server, changes the bytes of the log, and asks. Then puts back what was there.
sub loses
{
	my ($what, $mode, $change) = @_;

	# Records that the host's recovery replays, and records that it does not.
	$node->safe_psql('postgres', add_rows('t', $rows + 1, $rows + 700) . 'CHECKPOINT;' . add_rows('t', $rows + 701, $rows + 1000));
	$rows += 1000;
	# An immediate stop leaves what was noted before it, a clean one notes the last.
	sleep 1 if $mode eq 'immediate';
	$node->stop($mode);
	my $whole = slurp_file($log);
	my $logged = -s $node->logfile;
	my $changed = $change->($whole);
	if (defined $changed) { put($changed) } else { unlink $log or die $! }
	$node->start;

	my ($code, $out, $err) = $node->psql('postgres', $question);
	is($out, '', "$what, $mode stop: no answer");
	like($err, qr/xtree index "t_b" is broken.*REINDEX/s, "$what, $mode stop: it says so");
	like($mode eq 'fast' ? $err : slurp_file($node->logfile, $logged), qr/lacks records that it held|later records prove that it was whole/,
		"$what, $mode stop: and why");
	($code, $out, $err) = $node->psql('postgres', 'INSERT INTO t VALUES (-1, NULL, NULL)');
	like($err, qr/xtree index "t_b" is broken/, "$what, $mode stop: nothing can be inserted");
	$node->restart;
	($code, $out, $err) = $node->psql('postgres', $question);
	like($err, qr/xtree index "t_b" is broken/, "$what, $mode stop: nor is it forgotten over a restart");
	if ($mode eq 'fast')
	{
		$node->stop;
		put($whole);
		$node->start;
	}
	else
	{
		$node->safe_psql('postgres', q(REINDEX INDEX t_b; SELECT xtree_checkpoint('t_b')));
		find_log();
	}
	index_equals_heap($node, 't', "$what, $mode stop, and mended");
}

my $older;
foreach my $mode ('fast', 'immediate')
{
	loses('removed', $mode, sub { $older = $_[0]; return undef });
	loses('emptied', $mode, sub { return '' });
	loses('cut', $mode, sub { return substr($_[0], 0, 2 * BLOCK) });
	loses('an older one', $mode, sub { return $older }) if $mode eq 'fast';
	loses('the last records zeroed', $mode, sub {
		my $bytes = shift;
		$bytes =~ /\0*\z/;
		my $end = $-[0];
		# The end of a record of a box: 64 bytes and less before the end of what is not zero.
		my $from = $end - $end % 8 - 64;
		substr($bytes, $from, 80) = "\0" x 80;
		return $bytes;
	});
	loses('a record in the middle zeroed', $mode, sub {
		my $bytes = shift;
		# Records of 64 bytes after the header of each block, which has as many again.
		substr($bytes, 3 * BLOCK + 64 + 10 * 64, 64) = "\0" x 64;
		return $bytes;
	});
}
$node->stop;
unlink $log;
$node->start;
$node->safe_psql('postgres', 'REINDEX INDEX t_b');
index_equals_heap($node, 't', 'REINDEX');
find_log();

# --- What must not be taken for a loss --------------------------------------------------------------
# An unlogged index is made anew from its init fork, twice from the same capture.
create_table($node, 'u', 'UNLOGGED');
foreach my $round (1 .. 3)
{
	$node->safe_psql('postgres', add_rows('u', 1, 3000));
	sleep 1;
	$node->stop('immediate');
	$node->start;
	is($node->safe_psql('postgres', 'SELECT count(*) FROM u'), '0', "unlogged, round $round: emptied");
	index_equals_heap($node, 'u', "unlogged, round $round");
}
# And by a server without the library, which may recover what has no record of ours.
$node->safe_psql('postgres', 'CHECKPOINT;' . add_rows('u', 1, 3000));
sleep 1;
$node->stop('immediate');
$node->adjust_conf('postgresql.conf', 'shared_preload_libraries', "''");
$node->start;
$node->stop;
$node->adjust_conf('postgresql.conf', 'shared_preload_libraries', "'xtree'");
$node->start;
index_equals_heap($node, 'u', 'unlogged, reset without the library');
$node->safe_psql('postgres', add_rows('u', 1, 3000));
$node->restart;
index_equals_heap($node, 'u', 'unlogged, after a clean stop');

# A build in place, whose replay empties the log that has been noted since.
$node->safe_psql('postgres', q(CHECKPOINT; BEGIN; CREATE TABLE v (id bigint PRIMARY KEY, p point, b box);
	CREATE INDEX v_p ON v USING xtree (p); CREATE INDEX v_b ON v USING xtree (b);) . add_rows('v', 1, 500) .
	'TRUNCATE v;' . add_rows('v', 1, 800) . 'COMMIT;' . add_rows('v', 801, 5000));
sleep 1;
foreach my $round (1 .. 2)
{
	$node->stop('immediate');
	$node->start;
	index_equals_heap($node, 'v', "replay of a build, round $round");
	$node->safe_psql('postgres', add_rows('v', 5000 * $round + 1, 5000 * $round + 1000)) if $round == 1;
	sleep 1;
}

# Records whose WAL was lost go at the next start. They are in the log, and have been noted, since nobody waits for
# their commit.
$node->append_conf('postgresql.conf', "wal_writer_delay = 10s\nwal_writer_flush_after = 0\nsynchronous_commit = off");
$node->restart;
foreach my $round (1 .. 4)
{
	my $from = 100000 * $round;
	$node->safe_psql('postgres', add_rows('v', $from, $from + 300) . add_rows('t', $from, $from + 300));
	select undef, undef, undef, 0.6;
	$node->stop('immediate');
	$node->start;
	index_equals_heap($node, 'v', "lost WAL, round $round");
	index_equals_heap($node, 't', "lost WAL, round $round") if $round != 2;
}

# A backup whose notes were copied after its logs.
$node->append_conf('postgresql.conf', 'synchronous_commit = on');
$node->reload;
$node->backup('early');
$node->safe_psql('postgres', add_rows('t', 500000, 503000));
sleep 1;
copy($_, $node->backup_dir . '/early/xtree_logs/') or die $! foreach grep { -f } glob($node->data_dir . '/xtree_logs/*');
my $copy = PostgreSQL::Test::Cluster->new('copy');
$copy->init_from_backup($node, 'early');
$copy->start;
index_equals_heap($copy, 't', 'a backup whose log is older than its note');
$copy->stop;

# The flusher comes back, should somebody terminate it.
sub flusher { return `ps --ppid $node->{_pid} -o pid=,args=` =~ /^ *(\d+) .*xtree flusher/m ? $1 : 0 }
my $flusher = flusher();
kill 'TERM', $flusher;
my $again;
for (1 .. 60)
{
	$again = flusher();
	last if $again && $again != $flusher;
	sleep 1;
}
ok($flusher && $again && $again != $flusher, 'the flusher is started again');

# Notes of indexes that are gone go.
sub notes { return scalar grep { !/\/\.\.?$/ } glob($node->data_dir . '/xtree_logs/*') }
$node->restart;
my $before = notes();
$node->safe_psql('postgres', 'DROP TABLE v');
$node->restart;
cmp_ok(notes(), '<', $before, 'notes of dropped indexes are removed');
index_equals_heap($node, 't', 'in the end');
$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|terminated by signal/, 'the server never fell');
done_testing();
