# Goal: whatever the order and the pace in which a backup's files are copied, on a primary or on a standby,
# the restored index agrees with the heap.
# Method: low-level backups under insertions, vacuum, folds and rebuilds. The files of the indexes are
# copied before or after all others, logs before data files or after, in random order, in chunks with
# pauses in between; both servers, each restored and walked. pg_basebackup from the standby verifies page
# checksums. ORDER_ROUNDS and ORDER_SEED in the environment.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use File::Find;
use File::Path qw(make_path);
use List::Util qw(shuffle);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);
use XTreeTest;

my $rounds = $ENV{ORDER_ROUNDS} // 2;
my $seed = $ENV{ORDER_SEED} // int(time);
srand($seed);
note("seed $seed");

my $primary = new_server('primary', init => [ allows_streaming => 1, has_archiving => 1, extra => ['--data-checksums'] ],
	conf => "xtree.max_log_size = '256kB'\nxtree.flush_interval = '50ms'\n");
create_table($primary, $_) foreach 't', 'u';
$primary->safe_psql('postgres', add_rows('t', 1, 3000) . add_rows('u', 1, 1000));
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->append_conf('postgresql.conf', "archive_mode = off\n");
$standby->start;

my $base = 0;
my @sessions;

sub load_begins
{
	$base += 1_000_000;
	@sessions = map { start_session($primary, $_) } (
		join("\n", map { add_rows('t', $base + $_ * 50, $base + $_ * 50 + 49) } 0 .. 119),
		join("\n", map { "DELETE FROM t WHERE id % 31 = $_; VACUUM t; UPDATE u SET b = box(p, p) WHERE id % 29 = $_;" } 0 .. 9),
		"SELECT xtree_checkpoint('t_p'), xtree_checkpoint('t_b'), xtree_checkpoint('u_b'); SELECT pg_sleep(0.03);\n" x 30,
		join("\n", map { 'REINDEX INDEX u_p; CHECKPOINT; ' . add_rows('u', $base + $_ * 50, $base + $_ * 50 + 49) . 'SELECT pg_sleep(0.1);' } 0 .. 9));
	$primary->poll_query_until('postgres', "SELECT count(*) > 100 FROM t WHERE id >= $base");
}

# In chunks, so that a file may change between two of them.
sub copy_slowly
{
	my ($from, $to, $pause) = @_;
	open(my $in, '<:raw', $from) or return;    # Gone meanwhile: the WAL knows.
	open(my $out, '>:raw', $to) or die "$to: $!";
	while (sysread($in, my $chunk, 32768))
	{
		syswrite($out, $chunk);
		sleep($pause) if $pause;
	}
}

# Orders of the files of xtree indexes among each other and among the others.
my %rank = (
	'logs first' => sub { $_[0] =~ /_vm$/ ? 0 : $_[1] ? 1 : 2 },
	'data files first, logs last' => sub { $_[1] && $_[0] !~ /_vm$/ ? 0 : $_[1] ? 2 : 1 },
	'indexes last, logs before data files' => sub { !$_[1] ? 0 : $_[0] =~ /_vm$/ ? 1 : 2 },
	'indexes last, data files before logs' => sub { !$_[1] ? 0 : $_[0] =~ /_vm$/ ? 2 : 1 },
	'random' => sub { 0 });

sub copy_by_hand
{
	my ($node, $name, $order) = @_;
	my $source = $node->data_dir;
	my $target = $primary->backup_dir . "/$name";
	my $session = $node->background_psql('postgres');
	my %ours = map { $_ => 1 } split /\n/, $node->safe_psql('postgres',
		q(SELECT pg_relation_filepath(oid) FROM pg_class WHERE relam = (SELECT oid FROM pg_am WHERE amname = 'xtree')));
	my @files;

	$session->query_safe('SET client_min_messages = warning');
	$session->query_safe("SELECT pg_backup_start('$name', true)");
	find({ no_chdir => 1, wanted => sub {
		my $file = $_ =~ s/^\Q$source\E\/?//r;
		if (-d $_) { make_path("$target/$file") unless $file =~ m{^pg_wal/.}; chmod 0700, "$target/$file" }
		elsif ($file !~ m{^(pg_wal/|postmaster\.|pg_replslot/)|\.pid$}) { push @files, $file }
	} }, $source);
	my %place = map { $_ => $rank{$order}->($_, $ours{ $_ =~ s/_vm$//r }) } @files;
	foreach my $file (sort { $place{$a} <=> $place{$b} } shuffle @files)
	{
		my $is_ours = $ours{ $file =~ s/_vm$//r };
		# pg_control comes last where the source is a standby: it says how far recovery must go.
		next if $file eq 'global/pg_control';
		copy_slowly("$source/$file", "$target/$file", $is_ours ? 0.002 : 0);
		sleep(0.02) if $is_ours;
	}
	copy_slowly("$source/global/pg_control", "$target/global/pg_control", 0);
	make_path("$target/pg_wal/archive_status");
	my $label = $session->query_safe('SELECT labelfile FROM pg_backup_stop(wait_for_archive => false)');
	open my $out, '>', "$target/backup_label" or die;
	print $out "$label\n";
	close $out;
	$session->quit;
}

sub all_archived
{
	$primary->safe_psql('postgres', "SELECT pg_create_restore_point('archived')");
	my $segment = $primary->safe_psql('postgres', 'SELECT pg_walfile_name(pg_switch_wal())');
	$primary->poll_query_until('postgres', "SELECT last_archived_wal >= '$segment' FROM pg_stat_archiver");
}

sub restore_and_compare
{
	my ($name, $what) = @_;
	my $copy = PostgreSQL::Test::Cluster->new($name);
	$copy->init_from_backup($primary, $name, has_restoring => 1, standby => 0);
	unlink $copy->data_dir . '/standby.signal';
	$copy->append_conf('postgresql.conf', "$_\n") foreach 'archive_mode = off', "primary_conninfo = ''";
	$copy->start;
	$copy->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()');
	foreach my $table ('t', 'u')
	{
		my $expected = answers_by($primary, $table, 'seq');
		is(index_equals_heap($copy, $table, "$what: $table"), $expected, "$what: $table: as the primary");
	}
	$copy->safe_psql('postgres', add_rows('t', 900_000_000, 900_000_300) . 'DELETE FROM t WHERE id % 5 = 0; VACUUM t');
	$copy->stop('immediate');
	$copy->start;
	index_equals_heap($copy, 't', "$what: written to, then stopped");
	unlike(slurp_file($copy->logfile), qr/PANIC|broken|cannot follow|terminated by signal (11|6|7)/, "$what: the log has no bad news");
	$copy->stop;
	$copy->clean_node;
}

my @orders = shuffle sort keys %rank;
foreach my $round (0 .. $rounds - 1)
{
	my $source = $round % 2 ? $standby : $primary;
	my $order = $orders[ $round % @orders ];
	my $name = "by_hand$round";
	load_begins();
	copy_by_hand($source, $name, $order);
	$_->finish foreach @sessions;
	all_archived();
	restore_and_compare($name, 'from the ' . $source->name . ", $order");
}

# By the server's own tool, which verifies page checksums, and the manifest afterwards.
load_begins();
foreach my $source ($primary, $standby)
{
	my $name = 'streamed_' . $source->name;
	my $target = $primary->backup_dir . "/$name";
	command_ok([ 'pg_basebackup', '-D', $target, '-h', $source->host, '-p', $source->port, '--checkpoint', 'fast', '--no-sync', '-X', 'stream' ],
		"pg_basebackup from the " . $source->name . ' verifies all pages');
	command_ok([ 'pg_verifybackup', $target ], 'and its manifest holds');
}
$_->finish foreach @sessions;
all_archived();
restore_and_compare('streamed_' . $_->name, 'pg_basebackup from the ' . $_->name) foreach $primary, $standby;
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
index_equals_heap($standby, $_, "the standby itself: $_", no_check => 1) foreach 't', 'u';
$standby->stop;
$primary->stop;
command_ok([ 'pg_checksums', '--check', '-D', $_->data_dir ], 'all page checksums hold: ' . $_->name) foreach $primary, $standby;
unlike(slurp_file($_->logfile), qr/PANIC|broken|cannot follow|terminated by signal (11|6|7)/, 'the log of ' . $_->name . ' has no bad news')
  foreach $primary, $standby;
done_testing();
