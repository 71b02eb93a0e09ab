# Goal: a tablespace that is really full costs the statement that needed space, and nothing else.
# Method: a table and its indexes on a file system of a few megabytes (run_tap_file mounts one where it may;
# SMALL_DISK names it). A file of other data leaves the indexes so little room that each statement in
# turn fails, at another place for each amount; then the room is given back. The shim of 016_scarce.pl
# refuses politely at every single growth; here the kernel does it, and a store to a page that was not
# reserved would be a SIGBUS.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use XTreeFaults;
use XTreeTest;

my $disk = $ENV{SMALL_DISK};
plan skip_all => 'no small file system could be mounted (that needs a mount namespace)' unless $disk;

my $node = new_server('full', conf => "xtree.max_log_size = '512kB'\nxtree.flush_interval = '20ms'\n");
mkdir "$disk/tablespace";
mkdir "$disk/other";
$node->safe_psql('postgres', "CREATE TABLESPACE small LOCATION '$disk/tablespace'");
$node->safe_psql('postgres', 'CREATE TABLE t (id bigint PRIMARY KEY, p point, b box);'
	  . 'CREATE INDEX t_p ON t USING xtree (p) TABLESPACE small; CREATE INDEX t_b ON t USING xtree (b) TABLESPACE small;'
	  . add_rows('t', 1, 4000));

sub room
{
	my (undef, $free) = split ' ', (split /\n/, `df --output=size,avail -k '$disk'`)[1];
	return $free;
}

# Leaves so many KiB.
sub leave
{
	my ($room) = @_;
	unlink "$disk/other/data";
	return if !defined $room;
	my $take = room() - $room;
	system_or_bail('fallocate', '-l', $take . 'KiB', "$disk/other/data") if $take > 0;
}

my $next = 10_000;
my %statement = (
	'insert' => sub { $next += 3000; 'BEGIN; ' . add_rows('t', $next, $next + 2999) . 'COMMIT' },
	'CREATE INDEX' => sub { 'DROP INDEX IF EXISTS t_b_more; CREATE INDEX t_b_more ON t USING xtree (b) TABLESPACE small' },
	'REINDEX' => sub { 'REINDEX INDEX t_b' },
	'vacuum' => sub { "DELETE FROM t WHERE id % 5 = $next % 5; VACUUM t" },
	'fold' => sub { "SELECT xtree_checkpoint('t_p'), xtree_checkpoint('t_b')" },
	'move' => sub { $node->safe_psql('postgres', 'ALTER INDEX t_p SET TABLESPACE pg_default'); 'ALTER INDEX t_p SET TABLESPACE small' });
my %failed;
my $broken = 0;
foreach my $room (0, 8, 40, 200, 900)
{
	foreach my $what ('insert', 'CREATE INDEX', 'vacuum', 'fold', 'REINDEX', 'insert', 'move')
	{
		my $statement = $statement{$what}->();
		leave($room);
		my $errors = '';
		foreach my $one (split /;/, $what eq 'insert' ? $statement =~ s/;/ /gr =~ s/^BEGIN|COMMIT$//gr : $statement)
		{
			my ($code, $out, $err) = $node->psql('postgres', $one);
			$errors .= $err if $code;
		}
		if ($errors ne '')
		{
			$failed{$what}++;
			unlike($errors, qr/ERROR:(?!.*(\n.*)?(No space left on device|could not (use|fold|extend|write)))/,
				"$what in $room KiB fails for want of space");
			like($errors, qr/No space left on device|Check free disk space/, "$what in $room KiB says why") or diag($errors);
		}
		if ($what eq 'fold' || $what eq 'REINDEX')
		{
			index_equals_heap($node, 't', "$what in $room KiB, disk full");
		}
		leave(undef);
	}
	$node->safe_psql('postgres', 'DROP INDEX IF EXISTS t_b_more');
	$node->safe_psql('postgres', 'ALTER INDEX t_p SET TABLESPACE small; CHECKPOINT');
	my $before = answers_by($node, 't', 'seq');
	$node->stop('immediate');
	leave($room);
	$node->start;
	leave(undef);
	# What recovery cannot follow for want of space is an index that says so, and is mended by REINDEX.
	foreach my $index ('t_p', 't_b')
	{
		my ($code, $out, $err) = $node->psql('postgres', "SELECT xtree_check('$index')");
		next if $code == 0;
		like($err, qr/is broken\n.*No space left on device.*\n?.*REINDEX/s, "recovery in $room KiB: $index is broken, and says why") or diag($err);
		$broken++;
		$node->safe_psql('postgres', "REINDEX INDEX $index");
	}
	is(index_equals_heap($node, 't', "stopped after $room KiB"), $before, 'nothing was lost');
}
cmp_ok($failed{$_} // 0, '>', 0, "$_ met a full disk") foreach ('insert', 'CREATE INDEX', 'REINDEX', 'move');
note("broken by recovery: $broken; " . join ', ', map { "$_: $failed{$_}" } sort keys %failed);

# Nothing is left of what failed.
my $full = room();
$node->safe_psql('postgres', 'DROP TABLE t; CHECKPOINT');
$node->safe_psql('postgres', 'SELECT pg_stat_force_next_flush()');
my @left = grep { -s } glob("$disk/tablespace/*/*/*");
is("@left", '', 'no file is left in the tablespace');
cmp_ok(room(), '>', $full, 'the space is free');
$node->safe_psql('postgres', 'DROP TABLESPACE small');
$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|terminated by signal (11|6|7)\b/, 'the log has no bad news');
done_testing();
