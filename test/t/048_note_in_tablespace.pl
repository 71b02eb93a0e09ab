# Goal: what a start does before recovery it does in tablespaces, too, whose links a restored backup lacks, since
# recovery makes them from tablespace_map only afterwards: a note that an index is broken outlives the restoring, and
# page checksums hold.
# Method: a low-level backup, copied as the manual says, amid a transaction, with data checksums; the copy gets such a
# note, and is started twice.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use XTreeTest;

# CRC-32C as the server computes it, of a string.
sub crc32c
{
	my $crc = 0xffffffff;
	foreach my $byte (unpack('C*', $_[0]))
	{
		$crc ^= $byte;
		$crc = ($crc & 1) ? ($crc >> 1) ^ 0x82f63b78 : $crc >> 1 foreach 1 .. 8;
	}
	return $crc ^ 0xffffffff;
}

my $node = new_server('original', init => [ extra => ['--data-checksums'] ], conf => "wal_keep_size = 256MB\n");
my $space = PostgreSQL::Test::Utils::tempdir() . '/space';
mkdir $space or die $!;
$node->safe_psql('postgres', "CREATE TABLESPACE space LOCATION '$space'");
create_table($node, 't');
$node->safe_psql('postgres', add_rows('t', 1, 1000) . 'ALTER INDEX t_b SET TABLESPACE space; CHECKPOINT');
my $key = $node->safe_psql('postgres', q(
	SELECT (SELECT oid FROM pg_tablespace WHERE spcname = 'space'), (SELECT oid FROM pg_database WHERE datname = 'postgres'),
		pg_relation_filenode('t_b')));
my ($tablespace, $database, $relation) = split /\|/, $key;

my $copy = PostgreSQL::Test::Cluster->new('copy');
my $copied_space = PostgreSQL::Test::Utils::tempdir() . '/space';
my $session = $node->background_psql('postgres');
# What a transaction has touched has no checksums before its end.
my $writer = $node->background_psql('postgres');
$writer->query_safe('BEGIN; ' . add_rows('t', 1001, 1100));
$session->query_safe("SELECT pg_backup_start('copied', true)");
mkdir $copy->basedir;
system_or_bail('cp', '-a', $node->data_dir, $copy->data_dir);
system_or_bail('cp', '-a', $space, $copied_space);
my $stop = $session->query_safe(q(SELECT encode(convert_to(labelfile, 'UTF8'), 'hex') || ' ' || encode(convert_to(spcmapfile, 'UTF8'), 'hex') FROM pg_backup_stop(false)));
$session->quit;
$writer->query_safe('COMMIT');
$writer->quit;
$stop =~ /([0-9a-f]+) ([0-9a-f]+)/ or die $stop;
my ($label, $map) = map { pack('H*', $_) } ($1, $2);
$map =~ s/\Q$space\E/$copied_space/ or die $map;
$node->stop;
system_or_bail('sh', '-c', 'rm -rf "$1"/pg_wal "$1"/postmaster.pid "$1"/pg_tblspc/* && cp -a "$0"/pg_wal "$1"/pg_wal',
	$node->data_dir, $copy->data_dir);
foreach (['backup_label', $label], ['tablespace_map', $map])
{
	open my $file, '>', $copy->data_dir . "/$_->[0]" or die $!;
	print $file $_->[1];
	close $file;
}
my $note = pack('L3', $tablespace, $database, $relation);
open my $notes, '+<', $copy->data_dir . '/xtree_broken' or die $!;
print $notes $note . pack('L', crc32c($note));
close $notes;
$copy->append_conf('postgresql.conf', 'port = ' . $copy->port . "\nunix_socket_directories = '" . $copy->host . "'\n");

foreach my $start ('restored', 'started again')
{
	$copy->start;
	my ($code, $out, $err) = $copy->psql('postgres',
		q(SET enable_seqscan = off; SELECT count(*) FROM t WHERE b && box '((-1000,-1000),(1000,1000))'));
	like($err, qr/xtree index "t_b" is broken/, "$start: the index says that it is broken");
	is($out, '', "$start: without an answer");
	$copy->stop;
	command_ok([ 'pg_checksums', '--check', '-D', $copy->data_dir ], "$start: page checksums hold");
}
is(slurp_file($copy->data_dir . '/xtree_broken') =~ tr/\0//c, 0, 'the note is gone when the mark is in the file');
$copy->start;
$copy->safe_psql('postgres', 'REINDEX INDEX t_b');
index_equals_heap($copy, 't', 'after REINDEX');
$copy->stop;
done_testing();
