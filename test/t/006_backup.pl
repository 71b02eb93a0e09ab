# Goal: a base backup taken under load, by the server's own tool or by copying files in any order,
# restores to an index that agrees with its heap; so does recovery to a named point.
# Method: writers run during each backup; the restored server answers for itself and, where nothing
# was written after the point, as the primary did.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use File::Find;
use File::Copy;
use File::Path qw(make_path);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use XTreeTest;

my $node = new_server('origin', init => [ allows_streaming => 1, has_archiving => 1 ],
	conf => "xtree.max_log_size = '512kB'\n");
create_table($node, 't');
$node->safe_psql('postgres', add_rows('t', 1, 8000));

my @writers;
sub write_meanwhile
{
	my ($base) = @_;
	foreach my $script (
		join("\n", map { add_rows('t', $base + $_ * 50, $base + $_ * 50 + 49) } 0 .. 199),
		join("\n", map { "DELETE FROM t WHERE id % 31 = $_; VACUUM t; SELECT xtree_checkpoint('t_p');" } 0 .. 9))
	{
		push @writers, start_session($node, $script);
	}
	$node->poll_query_until('postgres', "SELECT count(*) > 100 FROM t WHERE id >= $base");
}

sub writers_done
{
	$_->finish foreach @writers;
	@writers = ();
}

# By pg_basebackup, under load; it verifies nothing here, the restored server does.
write_meanwhile(1_000_000);
$node->backup('streamed');
writers_done();
my $restored = PostgreSQL::Test::Cluster->new('restored');
$restored->init_from_backup($node, 'streamed');
$restored->append_conf('postgresql.conf', 'archive_mode = off');
$restored->start;
index_equals_heap($restored, 't', 'pg_basebackup under load');
$restored->safe_psql('postgres', add_rows('t', 9_000_000, 9_000_500));
index_equals_heap($restored, 't', 'pg_basebackup under load, written to');
$restored->stop;

# By hand: files in one order, then in the other, with writing before, during and after.
sub copy_by_hand
{
	my ($name, $reverse) = @_;
	my $target = $node->backup_dir . "/$name";
	my $source = $node->data_dir;
	my $session = $node->background_psql('postgres');
	my @files;

	$session->query_safe('SET client_min_messages = warning');
	$session->query_safe("SELECT pg_backup_start('$name', true)");
	find({ no_chdir => 1, wanted => sub {
		my $file = $_ =~ s/^\Q$source\E\/?//r;
		if (-d $_) { make_path("$target/$file") unless $file =~ m{^pg_wal/.}; chmod 0700, "$target/$file" }
		elsif ($file !~ m{^(pg_wal/|postmaster\.|pg_replslot/)|\.pid$}) { push @files, $file }
	} }, $source);
	@files = sort @files;
	@files = reverse @files if $reverse;
	foreach my $file (@files)
	{
		# A file that went away meanwhile is one that the WAL knows to be gone.
		copy("$source/$file", "$target/$file");
	}
	make_path("$target/pg_wal/archive_status");
	my $label = $session->query_safe('SELECT labelfile FROM pg_backup_stop(wait_for_archive => true)');
	open my $out, '>', "$target/backup_label" or die;
	print $out "$label\n";
	close $out;
	$session->quit;
}

sub all_archived
{
	# A segment without a record in it would not be switched, and never archived.
	$node->safe_psql('postgres', "SELECT pg_create_restore_point('archived')");
	my $segment = $node->safe_psql('postgres', 'SELECT pg_walfile_name(pg_switch_wal())');
	$node->poll_query_until('postgres', "SELECT last_archived_wal >= '$segment' FROM pg_stat_archiver");
}

# A restored server must not add its own timeline to the origin's archive.
sub restore
{
	my ($name, $backup, @settings) = @_;
	my $copy = PostgreSQL::Test::Cluster->new($name);
	$copy->init_from_backup($node, $backup, has_restoring => 1, standby => 0);
	$copy->append_conf('postgresql.conf', $_) foreach ('archive_mode = off', @settings);
	$copy->start;
	$copy->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()');
	return $copy;
}

foreach my $reverse (0, 1)
{
	my $name = $reverse ? 'backward' : 'forward';
	write_meanwhile(2_000_000 + $reverse * 1_000_000);
	copy_by_hand($name, $reverse);
	writers_done();
	all_archived();
	my $expected = answers_by($node, 't', 'seq');
	my $copy = restore($name, $name);
	is(index_equals_heap($copy, 't', "files copied $name"), $expected, "files copied $name: as the origin");
	$copy->safe_psql('postgres', add_rows('t', 9_000_000, 9_000_500));
	$copy->stop('immediate');
	$copy->start;
	index_equals_heap($copy, 't', "files copied $name, written to, then stopped");
	$copy->stop;
}

# To a named point: what was written behind it never was.
$node->safe_psql('postgres', "SELECT xtree_checkpoint('t_p')");
$node->safe_psql('postgres', add_rows('t', 5_000_000, 5_000_999));
my $at_point = answers_by($node, 't', 'seq');
$node->safe_psql('postgres', "SELECT pg_create_restore_point('here')");
$node->safe_psql('postgres', add_rows('t', 5_001_000, 5_002_000));
all_archived();
my $earlier = restore('earlier', 'forward', "recovery_target_name = 'here'",
	"recovery_target_action = 'promote'");
is(index_equals_heap($earlier, 't', 'restored to a point'), $at_point, 'as it was at that point');
$earlier->stop;
unlike(slurp_file($_->logfile), qr/PANIC|broken|terminated by signal 11/, 'the log has no bad news')
  foreach ($node, $restored, $earlier);
$node->stop;
done_testing();
