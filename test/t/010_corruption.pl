# Goal: files that are not what was written are an ERROR that names index, file and block; nothing
# crashes, other indexes go on, and REINDEX mends it.
# Method: with the server stopped, damage one index's data file in one way at a time: a flipped byte
# in each kind of block, a cut file, another index's file, a format version from the future; records of its log.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use XTreeTest;

use constant { BLOCK => 8192, KIND_AT => 28, KIND_SUPERBLOCK => 1, KIND_INNER => 4, KIND_LEAF => 5 };

my $node = new_server('corruption');
create_table($node, 't');
$node->safe_psql('postgres', add_rows('t', 1, 20000));
$node->safe_psql('postgres', q(SELECT xtree_checkpoint('t_p'), xtree_checkpoint('t_b')));
my $good = answers_by($node, 't', 'seq');
my $question = "SET enable_seqscan = off; SET enable_bitmapscan = off;
	SELECT count(*) FROM t WHERE b && box '((-1000,-1000),(1000,1000))'";

# CRC-32C of a block as the engine computes it: LSN, host checksum and the CRC itself as zeros.
my @crc_table = map { my $c = $_; $c = $c & 1 ? ($c >> 1) ^ 0x82f63b78 : $c >> 1 for 1 .. 8; $c } 0 .. 255;
sub block_crc
{
	my $block = shift;
	my $crc = 0xffffffff;
	substr($block, 0, 10) = "\0" x 10;
	substr($block, 24, 4) = "\0" x 4;
	$crc = ($crc >> 8) ^ $crc_table[ ($crc ^ $_) & 0xff ] foreach unpack('C*', $block);
	return $crc ^ 0xffffffff;
}

# Blocks of a kind, by number.
sub blocks_of
{
	my ($bytes, $kind) = @_;
	return grep { ord(substr($bytes, $_ * BLOCK + KIND_AT, 1)) == $kind } 0 .. length($bytes) / BLOCK - 1;
}

# Stops the server, hands the file's bytes to $change (which returns new ones), and asks. Options: fork => its suffix.
sub damaged
{
	my ($what, $expected, $change, %options) = @_;
	my $file = $node->data_dir . '/' . relation_path($node, 't_b') . ($options{fork} // '');
	$node->stop;
	my $bytes = slurp_file($file);
	$bytes = $change->($bytes);
	open my $handle, '>:raw', $file or die "could not write $file: $!";
	print $handle $bytes;
	close $handle;
	$node->start;

	my ($code, $out, $err) = $node->psql('postgres', $question, extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	is($code, 3, "$what: the query fails");
	is($out, '', "$what: without an answer");
	like($err, qr/ERROR:\s+(XX002|0A000):.*"t_b"/, "$what: with a SQLSTATE and the index's name");
	like($err, $expected, "$what: and the place");
	($code, $out, $err) = $node->psql('postgres', "SELECT xtree_check('t_b')");
	is($code, 3, "$what: xtree_check sees it, too");
	($code, $out, $err) = $node->psql('postgres', 'INSERT INTO t VALUES (-1, NULL, NULL); DELETE FROM t WHERE id = -1');
	unlike($err, qr/server closed the connection/, "$what: an insertion does no harm");
	is($node->safe_psql('postgres', q(SET enable_seqscan = off; SELECT count(*) > 0 FROM t WHERE p <@ box '((-90,-90),(90,90))')),
		't', "$what: the other index answers");
	$node->safe_psql('postgres', 'REINDEX INDEX t_b; DELETE FROM t WHERE id = -1');
	is(answers_by($node, 't', 'index'), $good, "$what: REINDEX mends it");
	$node->safe_psql('postgres', q(SELECT xtree_checkpoint('t_b')));
}

foreach my $kind ([ 'leaf', KIND_LEAF ], [ 'inner node', KIND_INNER ])
{
	my $block;
	damaged("a flipped byte, $kind->[0]", qr/block \d+/, sub {
		my $bytes = shift;
		my @blocks = blocks_of($bytes, $kind->[1]);
		ok(scalar @blocks, "there is a block of kind $kind->[0]");
		$block = $blocks[ @blocks / 2 ];
		substr($bytes, $block * BLOCK + 3000, 1) ^= "\x10";
		return $bytes;
	});
}
damaged('flipped bytes in both superblocks', qr/superblock|block [01]/i, sub {
	my $bytes = shift;
	substr($bytes, $_ * BLOCK + 200, 1) ^= "\x10" foreach 0, 1;
	return $bytes;
});
damaged('a format from the future', qr/version/, sub {
	my $bytes = shift;
	foreach my $slot (0, 1)
	{
		my $block = substr($bytes, $slot * BLOCK, BLOCK);
		is(unpack('V', substr($block, 24, 4)), block_crc($block), "the test computes slot $slot\'s CRC as the engine does");
		substr($block, 72, 4) = pack('V', 99);
		substr($block, 24, 4) = pack('V', block_crc($block));
		substr($bytes, $slot * BLOCK, BLOCK) = $block;
	}
	return $bytes;
});
damaged('a file that is no index', qr/superblock|block [01]/i, sub { return 'x' x (16 * BLOCK) });
damaged('a cut file', qr/./, sub { return substr($_[0], 0, 8 * BLOCK) });

# The log: what lies before a record that counts was there, be it flipped or zeros now. A record has 64 bytes, a block 127.
my $id = 100_000;
foreach my $damage ([ 'a flipped byte', 64 + 30, 1 ], [ 'zeros for a record', 64 + 10 * 64, 64 ], [ 'zeros to the end of a block', 64 + 100 * 64, 27 * 64 ],
	[ 'zeros for a page', BLOCK - 4096, 4096 ], [ 'zeros for the page with the header', 0, 4096 ])
{
	my ($what, $at, $length) = @$damage;
	foreach my $block (0, 1)
	{
		$node->safe_psql('postgres', add_rows('t', $id, $id + 399));
		$id += 1000;
		$good = answers_by($node, 't', 'seq');
		damaged("the log, $what of block $block", qr/log (file|block)/, sub {
			my $bytes = shift;
			my $was = substr($bytes, $block * BLOCK + $at, $length);
			substr($bytes, $block * BLOCK + $at, $length) = $length == 1 ? $was ^ "\x10" : "\0" x $length;
			return $bytes;
		}, fork => '_vm');
	}
}

$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|terminated by signal/, 'the server never fell');
done_testing();
