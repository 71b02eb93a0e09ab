# Goal: an index that is broken stays so over restarts, also if its own file could not be marked.
# Method: on a standby the file of an index refuses to be opened for writing, so that neither its growth nor the mark is
# possible. A restartpoint passes the WAL that it lacks; the file can be written again only after a restart or two.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use XTreeTest;

my $primary = new_server('primary', init => [ allows_streaming => 1, extra => ['--data-checksums'] ]);
create_table($primary, 't');
$primary->safe_psql('postgres', add_rows('t', 1, 1000));
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

sub ask { return $standby->psql('postgres', 'SET enable_seqscan = off; SET enable_bitmapscan = off; ' .
		"SELECT count(*) FROM t WHERE $_[0] box '((-1000,-1000),(1000,1000))'"); }
sub is_broken
{
	my ($what) = @_;
	my ($code, $out, $err) = ask('b &&');
	# The host cannot open the file either as long as nobody may write to it.
	like($err, qr/xtree index "t_b" is broken.*REINDEX|could not open file/s, "$what: it says that it cannot be used");
	is($out, '', "$what: without an answer");
	is((ask('p <@'))[1], (ask('p <@'))[1], "$what: the other one answers");
}
sub restart_point
{
	$primary->safe_psql('postgres', 'CHECKPOINT');
	$primary->wait_for_catchup($standby);
	$standby->safe_psql('postgres', 'CHECKPOINT');
}

is((ask('b &&'))[1], '990', 'the standby answers');
my $file = $standby->data_dir . '/' . relation_path($standby, 't_b');
chmod 0400, $file or die $!;
SKIP:
{
	skip 'root may write to anything', 12 if $> == 0;
	$primary->safe_psql('postgres', add_rows('t', 1001, 60000));
	restart_point();
	is_broken('file read-only');
	$standby->restart;
	is_broken('restarted, still read-only');
	like(slurp_file($standby->logfile), qr/the xtree index in file "[^"]+" is broken, and cannot be marked so/, 'the start says so');
	chmod 0600, $file;
	$standby->restart;
	is_broken('restarted, to be written again');
	$standby->restart;
	is_broken('and again');
	is(-s $standby->data_dir . '/xtree_broken', 16384, 'the notes have their size');
	is(slurp_file($standby->data_dir . '/xtree_broken') =~ tr/\0//c, 0, 'and are empty when the mark is in the file');
	$standby->stop;
	command_ok([ 'pg_checksums', '--check', '-D', $standby->data_dir ], 'page checksums hold, marks included');
	$standby->start;
}
chmod 0600, $file;
$standby->promote;
$standby->safe_psql('postgres', 'REINDEX TABLE t');
index_equals_heap($standby, 't', 'after REINDEX');
unlike(slurp_file($standby->logfile), qr/PANIC|FATAL.*redo|terminated by signal/, 'nothing stopped the server');
$standby->stop;
$primary->stop;
done_testing();
