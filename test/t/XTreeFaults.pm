# What the tests of faults share: programs of test/shim, built where they are needed, and servers that run
# under them.
#
# A server on the power shim (shim/power.h) keeps a shadow of its data directory that holds what was
# synced. cut_power stops everything at one moment and puts the shadow in the directory's place.
package XTreeFaults;

use strict;
use warnings;
use Exporter 'import';
use Fcntl qw(:flock);
use File::Basename;
use POSIX ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

our @EXPORT = qw(build_shim start_under start_with scarce_start scarce power_on power_start power_forget kill_server cut_power power_syncs power_lies processes_of);

my $shims = dirname(__FILE__) . '/../shim';
my %built;

# Path of the shared object or program made of test/shim/NAME.c.
sub build_shim
{
	my ($name, @options) = @_;

	return $built{$name} if $built{$name};
	my $out = PostgreSQL::Test::Utils::tempdir_short() . "/$name";
	system_or_bail('cc', '-O1', '-Wall', '-Wextra', '-o', $out, @options, "$shims/$name.c", '-ldl');
	return $built{$name} = $out;
}

# Starts the server with this in its environment.
sub start_under
{
	my ($node, %environment) = @_;

	local @ENV{ keys %environment } = values %environment;
	$node->start(fail_ok => 1) or BAIL_OUT('the server does not start under the shim');
}

# Starts the server by a command that ends by executing its arguments.
sub start_with
{
	my ($node, @command) = @_;
	my $directory = PostgreSQL::Test::Utils::tempdir_short();
	my ($real) = grep { -x } map { "$_/pg_ctl" } split /:/, $ENV{PATH};
	my $quoted = join ' ', map { s/'/'\\''/gr =~ s/^|$/'/gr } @command;

	append_to_file("$directory/pg_ctl", "#!/bin/sh\nexec $quoted '$real' \"\$@\"\n");
	chmod 0755, "$directory/pg_ctl";
	start_under($node, PATH => "$directory:$ENV{PATH}");
}

# Starts a stopped server on the shim that can refuse (shim/scarce.c). Returns what `scarce` needs.
sub scarce_start
{
	my ($node) = @_;
	my $control = $node->basedir . '/scarce';

	scarce($control);
	start_under($node, LD_PRELOAD => build_shim('scarce', '-shared', '-fPIC'),
		SCARCE_DATA => $node->data_dir, SCARCE_CONTROL => $control);
	return $control;
}

# From now on so many more reservations, maps of files or segments of dynamic shared memory are granted; -1: any number.
sub scarce
{
	my ($control, %left) = @_;

	open my $file, -e $control ? '+<' : '+>', $control or die "$control: $!";
	binmode $file;
	syswrite $file, pack('q6', $left{reservations} // -1, 0, $left{maps} // -1, 0, $left{segments} // -1, 0);
	close $file;
}

sub shadow_of
{
	my ($node) = @_;
	return $node->basedir . '/shadow';
}

# For a stopped server: what its directory holds now is on the disk.
sub power_environment
{
	my ($node) = @_;
	my $shadow = shadow_of($node);
	my $shim = build_shim('power', '-shared', '-fPIC');

	if (!-d "$shadow/tree")
	{
		mkdir $shadow;
		system_or_bail('cp', '-a', $node->data_dir, "$shadow/tree");
	}
	unlink "$shadow/off", "$shadow/journal";
	return (LD_PRELOAD => $shim, POWER_DATA => $node->data_dir, POWER_SHADOW => $shadow);
}

# A server has been stopped in good order: all that it holds is on the disk.
sub power_forget
{
	my ($node) = @_;
	system_or_bail('rm', '-rf', shadow_of($node));
}

# Starts a stopped server on the power shim, and waits for the end of its recovery.
sub power_on
{
	my ($node) = @_;
	start_under($node, power_environment($node));
}

# Starts it without waiting: cut_power may follow at any time.
sub power_start
{
	my ($node) = @_;
	my %environment = power_environment($node);

	local @ENV{ keys %environment } = values %environment;
	$node->{_pid} = fork // die "fork: $!";
	return if $node->{_pid};
	open STDERR, '>>', $node->logfile;
	open STDOUT, '>>', $node->logfile;
	open STDIN, '<', '/dev/null';
	POSIX::setsid();
	exec 'postgres', '-D', $node->data_dir or POSIX::_exit(127);
}

# Ids of the postmaster and all its children.
sub processes_of
{
	my ($node) = @_;
	my $postmaster = $node->{_pid};
	return ($postmaster, split ' ', `ps --ppid $postmaster -o pid=`);
}

# False for zombies, too.
sub alive
{
	my ($process) = @_;
	open my $stat, '<', "/proc/$process/stat" or return 0;
	return (<$stat> // '') =~ /\) [^ZX] /;
}

sub locked
{
	my ($node, $step) = @_;

	open my $lock, '+>>', shadow_of($node) . '/lock' or die "lock: $!";
	flock $lock, LOCK_EX or die "lock: $!";
	$step->();
	close $lock;
}

# Kills all processes of a server: what they have not synced stays, in the page cache.
sub kill_server
{
	my ($node) = @_;
	my ($postmaster) = processes_of($node);
	kill 'STOP', $postmaster;
	my @processes = processes_of($node);
	kill 'KILL', @processes[ 1 .. $#processes ];
	$node->kill9;
	waitpid $postmaster, POSIX::WNOHANG();
	foreach my $process (@processes)
	{
		sleep 0.01 while alive($process);
	}
	waitpid $postmaster, POSIX::WNOHANG();
	# A process that is not reaped yet would count as a server.
	unlink glob($node->host . '/.s.PGSQL.' . $node->port . '*'), $node->data_dir . '/postmaster.pid';
}

# The power goes off now. Returns what of the unsynced survived: nothing if the seed is 0.
sub cut_power
{
	my ($node, $seed) = @_;
	my $shadow = shadow_of($node);
	my $program = build_shim('power_cut');
	my $data = $node->data_dir;

	# From here on nothing reaches the disk and nobody is told that it did; so what the processes still
	# do until they are killed depends on no sync that the disk has not seen.
	locked($node, sub { append_to_file("$shadow/off", '') });
	kill_server($node);
	my $kept = `'$program' '$data' '$shadow' $seed`;
	BAIL_OUT("power_cut failed: $?") if $?;
	# The directory itself stays: by its inode the host finds the shared memory it left.
	system_or_bail('sh', '-c', "rm -rf '$data'/* && cp -a '$shadow/tree/.' '$data/'");
	chomp $kept;
	is(-s "$shadow/trouble" ? slurp_file("$shadow/trouble") : '', '', 'the shim saw nothing odd');
	return $kept;
}

# Syncs honored so far.
sub power_syncs
{
	my ($node) = @_;
	return -s shadow_of($node) . '/syncs';
}

# From now on the disk lies about syncs of files like this.
sub power_lies
{
	my ($node, $pattern) = @_;
	my $file = shadow_of($node) . '/lies';

	unlink $file;
	append_to_file($file, $pattern) if defined $pattern;
}

1;
