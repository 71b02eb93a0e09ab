# Goal: no kill at any moment, of any process, loses or invents an index entry.
# Method: sessions write, copy, vacuum, rebuild, move, prepare and fold at random, over indexes of all types,
# logged or not; after a random time one of them, a fold worker, the flusher, the checkpointer, the postmaster
# or the whole server is killed, sometimes two at once, sometimes again and again during the recovery, or
# sessions are only cancelled and terminated; then index and heap are compared and xtree_check walks everything.
# The settings that say when to fold change on the way. A second table is written by transactions whose WAL is
# not flushed, and compared only some crashes later, when other operations have been given the lost LSNs.
# TORTURE_MINUTES are shared by TORTURE_SERVERS, which differ in checksums, wal_level and size of WAL segments.
# TORTURE_SEED (+ 1 for each further server) repeats a run's choices.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin, "$FindBin::RealBin/../t";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);
use XTreeTest;

my $minutes = $ENV{TORTURE_MINUTES} // 2;
my $servers = $ENV{TORTURE_SERVERS} // 1;
my $first_seed = $ENV{TORTURE_SEED} // int(time);
my ($node, $next, $logged);

# A server of the kind that the seed says.
sub begin_server
{
	my ($seed) = @_;
	my @init = ($seed % 2 ? '--data-checksums' : (), $seed % 4 < 2 ? '--wal-segsize=1' : ());
	my $minimal = $seed % 3 == 0;

	srand($seed);
	note("seed $seed: @init" . ($minimal ? ', wal_level = minimal' : ''));
	$node = new_server("kill$seed", init => @init ? [ extra => \@init ] : [], conf => qq(
restart_after_crash = on
max_prepared_transactions = 20
max_connections = 40
max_wal_size = 200MB
xtree.max_log_size = '256kB'
xtree.flush_interval = '50ms'
checkpoint_timeout = 30s
autovacuum = on
autovacuum_naptime = 1s
allow_in_place_tablespaces = on
log_statement = none
) . ($minimal ? "wal_level = minimal\nmax_wal_senders = 0\n" : ''));
	$next = 10_000;
	$logged = 0;
	create_table($node, 't');
	create_table($node, $_) foreach 'quiet', 'moved';
	create_table($node, 'volatile', 'UNLOGGED');
	$node->safe_psql('postgres', "CREATE TABLESPACE far LOCATION ''");
	$node->safe_psql('postgres', add_rows('t', 1, 5000) . add_rows('quiet', 1, 2000) . add_rows('moved', 1, 2000) . q(
		CREATE TABLE shapes (id bigint, g polygon, c circle);
		CREATE INDEX shapes_g ON shapes USING xtree (g);
		CREATE INDEX shapes_c ON shapes USING xtree (c);
		CREATE INDEX shapes_x ON shapes USING xtree (box(g)) WHERE id % 3 = 0;
		CREATE TABLE booked (id bigint, b box, EXCLUDE USING xtree (b WITH &&));) . shape_rows() . booked_rows());
}

sub write_rows
{
	my ($table) = @_;
	my $count = 1 + int(rand(400));
	my $from = $next;
	$next += $count;
	return add_rows($table // 't', $from, $next - 1);
}

# COPY with places of its own choosing; every third row has no key.
sub copy_rows
{
	my $script = "COPY t FROM stdin;\n";
	foreach (1 .. 1 + int(rand(300)))
	{
		my ($x, $y) = map { sprintf '%.3f', rand(200) - 100 } 1 .. 2;
		$script .= $next % 3 ? "$next\t($x,$y)\t($x,$y),($x,$y)\n" : "$next\t\\N\t\\N\n";
		$next++;
	}
	return "$script\\.\n";
}

# Rows for the indexes of polygons and circles, and of an expression of some rows.
sub shape_rows
{
	my $from = $next;
	$next += 1 + int(rand(200));
	return qq(INSERT INTO shapes SELECT i, CASE WHEN i % 31 > 0 THEN polygon(3 + (i % 5)::int, circle(at, 0.1 + i % 7 / 2.0)) END,
		CASE WHEN i % 37 > 0 THEN circle(at, i % 11 / 3.0) END
		FROM generate_series($from, $next - 1) AS i, point(i * 7919 % 3607 / 10.0 - 180, i * 10473 % 1801 / 10.0 - 90) AS at;\n);
}

# No two of them may overlap; most of those that are offered do.
sub booked_rows
{
	my $from = $next;
	$next += 50;
	return qq(INSERT INTO booked SELECT i, box(at, at + point(0.5, 0.5))
		FROM generate_series($from, $next - 1) AS i, point(i * 7919 % 307 / 9.0, i * 10473 % 181 / 9.0) AS at ON CONFLICT DO NOTHING;\n);
}

# Subtransactions by the hundred, some of which fail.
sub nested_rows
{
	my $from = $next;
	$next += 200;
	return qq(DO \$\$ BEGIN FOR i IN $from .. $next - 1 LOOP BEGIN
		INSERT INTO t VALUES (i, point(i % 181, i % 89), box(point(i % 181, i % 89), point(0, 0)));
		IF i % 3 = 0 THEN RAISE division_by_zero; END IF;
		EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END \$\$;\n);
}

my @rewrites = (
	'TRUNCATE moved;', 'BEGIN; TRUNCATE moved; ROLLBACK;', 'VACUUM FULL moved;', 'CLUSTER moved USING moved_pkey;',
	'ALTER TABLE moved SET UNLOGGED; ALTER TABLE moved SET LOGGED;', 'REINDEX TABLE moved;',
	'ALTER INDEX moved_p SET TABLESPACE far;', 'ALTER INDEX moved_p SET TABLESPACE pg_default;',
	'BEGIN; ALTER INDEX moved_b SET TABLESPACE far; ROLLBACK;', 'REINDEX INDEX CONCURRENTLY moved_b;',
	'BEGIN; DROP INDEX moved_b; CREATE INDEX moved_b ON moved USING xtree (b); ROLLBACK;');

# Each returns a script of many small steps.
my @activities = (
	sub { join "\n", map { write_rows() } 1 .. 60 },
	sub { join "\n", map { copy_rows() } 1 .. 20 },
	sub { "SET synchronous_commit = off;\n" . join "\n", map { write_rows() } 1 .. 60 },
	sub { join "\n", map { 'BEGIN; ' . write_rows() . (rand() < 0.5 ? 'ROLLBACK;' : 'COMMIT;') } 1 .. 60 },
	sub { join "\n", map { 'BEGIN; ' . write_rows() . 'SAVEPOINT s; ' . write_rows() . 'ROLLBACK TO s; ' . write_rows() . 'COMMIT;' } 1 .. 30 },
	sub { join "\n", map { sprintf 'UPDATE t SET p = point(p[0] + 0.25, p[1]), b = box(p, point(1, 1)) WHERE id %% 101 = %d;', rand(101) } 1 .. 30 },
	sub { join "\n", map { sprintf 'DELETE FROM t WHERE id %% 53 = %d; VACUUM t;', rand(53) } 1 .. 10 },
	sub { "VACUUM t;\nSELECT pg_sleep(0.1);\n" x 10 },
	sub { join '', map { nested_rows() } 1 .. 10 },
	sub { join '', map { shape_rows() . sprintf('UPDATE shapes SET g = polygon(box(g)), c = circle(point(c), 2) WHERE id %% 29 = %d; DELETE FROM shapes WHERE id %% 43 = %d;', rand(29), rand(43)) . 'VACUUM shapes;' } 1 .. 15 },
	sub { join '', map { booked_rows() . sprintf('DELETE FROM booked WHERE id %% 13 = %d;', rand(13)) . 'VACUUM booked;' } 1 .. 20 },
	sub { join '', map { write_rows('volatile') . sprintf('DELETE FROM volatile WHERE id %% 17 = %d; VACUUM volatile;', rand(17)) } 1 .. 20 },
	sub { join '', map { write_rows('moved') . $rewrites[ rand @rewrites ] . write_rows('moved') } 1 .. 8 },
	# Under wal_level = minimal nothing of this is in the WAL.
	sub { join '', map { 'BEGIN; DROP TABLE IF EXISTS fresh; CREATE TABLE fresh (id bigint PRIMARY KEY, p point, b box);' .
				'CREATE INDEX fresh_p ON fresh USING xtree (p);' . write_rows('fresh') . 'CREATE INDEX fresh_b ON fresh USING xtree (b);' .
				'SAVEPOINT s; TRUNCATE fresh;' . write_rows('fresh') . (rand() < 0.5 ? 'ROLLBACK TO s;' : '') . write_rows('fresh') .
				(rand() < 0.8 ? 'COMMIT;' : 'ROLLBACK;') . write_rows('fresh') } 1 .. 8 },
	# Table and indexes are there for nobody until somebody says so, perhaps after a crash.
	sub { join '', map { my $table = 'made_' . $next++; "BEGIN; CREATE TABLE $table (id bigint, p point, b box); CREATE INDEX ${table}_p ON $table USING xtree (p);" .
				write_rows($table) . "CREATE INDEX ${table}_b ON $table USING xtree (b);" . write_rows($table) . "PREPARE TRANSACTION '$table';\n" .
				(rand() < 0.3 ? "COMMIT PREPARED '$table'; VACUUM $table;" : rand() < 0.3 ? "ROLLBACK PREPARED '$table';" : '') } 1 .. 3 },
	sub { join '', map { 'CREATE TEMP TABLE own (p point); CREATE INDEX own_p ON own USING xtree (p);' .
				"INSERT INTO own SELECT p FROM t LIMIT 500; VACUUM own; DROP TABLE own;\n" } 1 .. 20 },
	# What runs out of time stops in the middle of whatever it does.
	sub { join '', map { sprintf("SET statement_timeout = '%dms';\n", 1 + rand(60)) . write_rows() . "VACUUM t;\nREINDEX INDEX t_p;\n" .
				sprintf("UPDATE t SET b = box(p, p) WHERE id %% 19 = %d;\n", rand(19)) } 1 .. 20 },
	sub { qq(BEGIN; DECLARE c CURSOR FOR SELECT p FROM t WHERE p <@ box '((-90,-90),(90,90))'; FETCH 100 FROM c; SELECT pg_sleep(0.2); FETCH ALL FROM c; COMMIT;\n) x 10 },
	sub { "SELECT xtree_checkpoint('t_p'), xtree_checkpoint('t_b');\nSELECT pg_sleep(0.05);\n" x 20 },
	sub { "CHECKPOINT;\nSELECT pg_sleep(0.2);\n" x 10 },
	# A checkpoint just behind the last record of an operation, and one that does not wait for it.
	sub { join "\n", map { write_rows() . "CHECKPOINT;\nSELECT xtree_checkpoint('t_p');" } 1 .. 10 },
	sub { rand() < 0.5 ? 'REINDEX INDEX t_p;' : 'REINDEX INDEX CONCURRENTLY t_b;' },
	sub { 'DROP INDEX IF EXISTS t_p_more; CREATE INDEX CONCURRENTLY t_p_more ON t USING xtree (p);' },
	sub { join "\n", map { 'BEGIN; ' . write_rows() . sprintf("PREPARE TRANSACTION 'x%d'; %s", $next, rand() < 0.7 ? sprintf("COMMIT PREPARED 'x%d';", $next) : '') } 1 .. 10 },
	sub { qq(SET enable_seqscan = off; SELECT count(*) FROM t WHERE b && box '((-90,-90),(90,90))';\n) x 50 });

# What differs between the seeds is chosen anew in a round: when to fold.
sub change_settings
{
	my %choice = (
		'xtree.max_log_age' => [ 0, '1s', '2s', '300s' ],
		'xtree.recovery_target_time' => [ 0, '1s', '30s' ],
		'xtree.max_log_size' => [ '128kB', '256kB', '256kB', '64MB' ],
		'xtree.log_size_limit' => [ '256kB', '1MB', '1GB' ],
		'xtree.flush_interval' => [ 0, '10ms', '50ms', '1s' ]);
	my $name = (sort keys %choice)[ rand keys %choice ];
	my $value = $choice{$name}[ rand @{ $choice{$name} } ];

	$node->safe_psql('postgres', "ALTER SYSTEM SET $name = '$value'");
	$node->safe_psql('postgres', 'SELECT pg_reload_conf()');
	return "$name = $value";
}

# A process of the server by kind; workers without a database are seen by the system alone.
my %title = (session => qr/ postgres \[local\] /, checkpointer => qr/: checkpointer/,
	folder => qr/: xtree fold/, flusher => qr/: xtree flusher/, startup => qr/: startup/, vacuum => qr/: autovacuum worker/);

sub postmaster
{
	my ($pid) = eval { split /\n/, slurp_file($node->data_dir . '/postmaster.pid') };
	return $pid;
}

sub victim
{
	my ($kind) = @_;
	my $postmaster = postmaster();

	return undef if !$postmaster;
	# Fold workers live for some milliseconds only.
	for (my $tries = $kind eq 'folder' ? 100 : 1; $tries > 0; $tries--)
	{
		my @found = grep { $_ =~ $title{$kind} } split /\n/, `ps --ppid $postmaster -o pid=,args=`;
		return $1 if @found && $found[ rand @found ] =~ /^\s*(\d+)/;
		sleep(0.01);
	}
	return undef;
}

sub start_server
{
	my ($wait) = @_;
	return system('pg_ctl', '-s', $wait, '-D', $node->data_dir, '-l', $node->logfile, '-o',
		'--cluster-name=' . $node->name, 'start');
}

# Starts the server and stops it again before or soon after its recovery has ended.
sub kill_recovery
{
	start_server('-W');
	# On a busy machine it takes a while until there is something to kill.
	for (1 .. 1000)
	{
		last if defined postmaster();
		sleep(0.01);
	}
	sleep(rand(0.6));
	my $startup = rand() < 0.5 ? victim('startup') : undef;
	kill 'KILL', $startup if defined $startup;
	for (1 .. 100)
	{
		last if system("pg_ctl -s -D '" . $node->data_dir . "' -m immediate stop 2>/dev/null") == 0
		  || !defined postmaster();
		sleep(0.05);
	}
}

# The postmaster alone is killed: its children notice by themselves, and until then nothing can start.
sub kill_postmaster
{
	$node->kill9;
	for (1 .. 200)
	{
		if (start_server('-w') == 0)
		{
			$node->_update_pid(1);
			return;
		}
		sleep(0.1);
	}
	die 'the server does not start again';
}

# Sessions are cancelled and terminated, and the server stays up. Returns how many.
sub disturb
{
	my $count = 0;
	foreach (1 .. 8)
	{
		my $function = rand() < 0.5 ? 'pg_cancel_backend' : 'pg_terminate_backend';
		$count += $node->safe_psql('postgres', qq(SELECT count($function(pid)) FROM
			(SELECT pid FROM pg_stat_activity WHERE backend_type IN ('client backend', 'autovacuum worker', 'xtree fold worker')
				AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1) AS victims));
		sleep(rand(0.2));
	}
	return $count;
}

# The indexes that index_equals_heap does not know.
sub shapes_agree
{
	my ($what) = @_;
	my @questions = (
		"count(*), md5(string_agg(id::text, ',' ORDER BY id)) FROM shapes WHERE g && polygon(box '((-50,-40),(60,70))')",
		"count(*), md5(string_agg(id::text, ',' ORDER BY id)) FROM shapes WHERE c <@ circle '<(10,-20),80>'",
		"count(*), md5(string_agg(id::text, ',' ORDER BY id)) FROM shapes WHERE g IS NULL",
		"count(*), md5(string_agg(id::text, ',' ORDER BY id)) FROM shapes WHERE box(g) && box '((-80,-40),(60,70))' AND id % 3 = 0",
		"count(*), md5(string_agg(id::text, ',' ORDER BY id)) FROM booked WHERE b && box '((3,3),(17,12))'");
	my %by;
	foreach my $scan ('seqscan', 'indexscan', 'bitmapscan')
	{
		my $off = join '', map { "SET enable_$_ = off;" } grep { $_ ne $scan } qw(seqscan indexscan indexonlyscan bitmapscan);
		$by{$scan} = $node->safe_psql('postgres', $off . join '', map { "SELECT $_;" } @questions);
	}
	is($by{$_}, $by{seqscan}, "$what: polygons, circles, a partial index, a constraint: the same by $_") foreach 'indexscan', 'bitmapscan';
	is($node->safe_psql('postgres', 'SET enable_indexscan = off; SET enable_bitmapscan = off; SELECT count(*) FROM booked AS x, booked AS y WHERE x.id < y.id AND x.b && y.b'), 0,
		"$what: no two booked overlap");
	check_indexes("$what: shapes", qw(shapes_g shapes_c shapes_x booked_b_excl));
}

sub check_indexes
{
	my ($what, @names) = @_;
	my ($code, $out, $err) = $node->psql('postgres', join '', map { "SELECT xtree_check('$_', true);" } @names);
	is($code, 0, "$what: xtree_check finds nothing") or diag($err);
}

my (%kills, %total);
# Whatever a crash or a cancelled statement has left: every index of the database, its table's rows included.
sub everything_agrees
{
	my ($what) = @_;
	index_equals_heap($node, $_, "$what: $_") foreach qw(t quiet moved volatile);
	index_equals_heap($node, 'fresh', "$what: fresh") if $node->safe_psql('postgres', "SELECT to_regclass('fresh') IS NOT NULL") eq 't';
	shapes_agree($what);
}

# What an interrupted CONCURRENTLY left is invalid, and the user's to drop (a prepared transaction that has used
# the table would block that); what was left of a constraint's index cannot be.
sub drop_invalid
{
	$node->safe_psql('postgres', "ROLLBACK PREPARED '$_'")
	  foreach split /\n/, $node->safe_psql('postgres', 'SELECT gid FROM pg_prepared_xacts');
	$node->safe_psql('postgres', "DROP INDEX $_")
	  foreach split /\n/, $node->safe_psql('postgres', 'SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid');
	$node->safe_psql('postgres', 'DROP INDEX IF EXISTS t_p_more');
}

# What prepared transactions made, once they are committed. They go, or there would be ever more of them.
sub made_agree
{
	my ($what) = @_;
	foreach my $table (split /\n/, $node->safe_psql('postgres', "SELECT relname FROM pg_class WHERE relname LIKE 'made\\_%' AND relkind = 'r'"))
	{
		index_equals_heap($node, $table, "$what: $table, made by a prepared transaction");
		$node->safe_psql('postgres', "DROP TABLE $table");
		$total{'tables of prepared transactions'}++;
	}
}

# A backup under load, soon after a crash: its pages verify, and what is restored agrees with its heap.
sub backup_agrees
{
	my ($what) = @_;
	my $origin = $node;
	my $name = 'backup' . ++$total{backups};
	my @sessions = map { start_session($origin, "SET statement_timeout = '5s';\n" . $activities[ rand @activities ]->()) } 1 .. 3;

	sleep(rand(0.5));
	command_ok([ 'pg_basebackup', '-D', $origin->backup_dir . "/$name", '-h', $origin->host, '-p', $origin->port, '-c', 'fast', '--no-sync', '-X', 'stream' ], "$what: a backup finds all pages whole");
	$origin->safe_psql('postgres', q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()));
	eval { $_->finish } foreach @sessions;
	$node = PostgreSQL::Test::Cluster->new($origin->name . "_$name");
	$node->init_from_backup($origin, $name);
	$node->start;
	drop_invalid();
	everything_agrees("$what, restored");
	$node->stop('immediate') if rand() < 0.5;
	$node->start if !defined $node->{_pid};
	$node->stop;
	command_ok([ 'pg_checksums', '--check', '-D', $node->data_dir ], "$what: all page checksums of the copy hold")
	  if $origin->safe_psql('postgres', 'SHOW data_checksums') eq 'on';
	$node->clean_node if Test::More->builder->is_passing;
	$node = $origin;
	system('rm', '-rf', $origin->backup_dir . "/$name");
}

sub torture
{
	my ($seed, $seconds) = @_;
	my $end = time + $seconds;
	my $round = 0;

	while (time < $end)
	{
		# No statement waits for ever, where nobody ends it by a crash.
		my @sessions = map { start_session($node, "SET statement_timeout = '20s';\n" . $activities[ rand @activities ]->()) } 1 .. 2 + int(rand(5));
		my $kind = (qw(session session checkpointer folder folder flusher vacuum postmaster server server server clean two disturbed))[ rand 14 ];
		my $pid;

		$round++;
		if (rand() < 0.4)
		{
			# What is not flushed may be lost by the host, and must then be lost by the index.
			push @sessions, start_session($node, "SET synchronous_commit = off;\n" .
				  join("\n", map { write_rows('quiet') } 1 .. 5) .
				  'BEGIN;' . write_rows('quiet') . 'SELECT pg_sleep(5)');
		}
		my $setting = rand() < 0.3 ? ', ' . change_settings() : '';
		sleep(0.05 + rand(1.5));
		$pid = victim($kind eq 'two' ? 'session' : $kind) if $title{$kind} || $kind eq 'two';
		my $other = $kind eq 'two' ? victim((qw(folder checkpointer flusher session))[ rand 4 ]) : undef;
		$kind = 'server' if ($title{$kind} || $kind eq 'two') && !defined $pid;
		$kills{$kind}++;
		if ($kind eq 'server') { $node->stop('immediate') }
		elsif ($kind eq 'clean') { $node->stop('fast') }
		elsif ($kind eq 'postmaster') { kill_postmaster() }
		elsif ($kind eq 'disturbed') { $total{'sessions cancelled or terminated'} += disturb() }
		else { kill 'KILL', grep { defined } $pid, $other }
		eval { $_->finish } foreach @sessions;
		if ($kind eq 'server')
		{
			for (my $again = int(rand(4)); $again > 0; $again--)
			{
				kill_recovery();
				$total{'recoveries killed'}++;
			}
		}
		if ($kind eq 'server' || $kind eq 'clean') { $node->start }
		else { await_server($node) or die 'the server does not come up again' }
		my $what = "seed $seed, round $round, killed: $kind$setting";

		# Prepared transactions survive; half of them stay for the next round.
		foreach my $prepared (split /\n/, $node->safe_psql('postgres', 'SELECT gid FROM pg_prepared_xacts'))
		{
			next if rand() < 0.5;
			$node->safe_psql('postgres', (rand() < 0.5 ? 'COMMIT' : 'ROLLBACK') . " PREPARED '$prepared'");
		}
		drop_invalid() if $round % 3 == 0 || $node->safe_psql('postgres', 'SELECT count(*) FROM pg_prepared_xacts') eq '0';
		index_equals_heap($node, 't', $what);
		# A process that was to be killed may have ended before.
		my $news = slurp_file($node->logfile, $logged);
		is($node->safe_psql('postgres', 'SELECT count(*) FROM volatile'), 0, "$what: what is unlogged is empty")
		  if $news =~ /not properly shut down/;
		my $more = rand();
		if ($more < 0.2)
		{
			index_equals_heap($node, 'quiet', "$what, quiet table");
			$node->safe_psql('postgres', 'DELETE FROM quiet WHERE id % 3 = 0; VACUUM quiet') if rand() < 0.3;
		}
		elsif ($more < 0.4) { index_equals_heap($node, 'moved', "$what, moved") }
		elsif ($more < 0.6) { shapes_agree($what) }
		elsif ($more < 0.7) { index_equals_heap($node, 'volatile', "$what, unlogged") }
		elsif ($more < 0.75) { drop_invalid(); everything_agrees($what) }
		elsif ($more < 0.8 && $node->safe_psql('postgres', 'SHOW wal_level') ne 'minimal') { backup_agrees($what) }
		made_agree($what);
		$news = slurp_file($node->logfile, $logged);
		$logged += length $news;
		unlike($news, qr/PANIC|broken|terminated by signal (11|6|7)\b|TRAP|could not (open|read|stat) file/, "$what: the log has no bad news");
		if (!Test::More->builder->is_passing)
		{
			diag("stopping at the first difference; seed $seed; data directory kept: " . $node->data_dir);
			last;
		}
		$node->safe_psql('postgres', 'DELETE FROM t WHERE id % 2 = 0; VACUUM t; DELETE FROM shapes WHERE id % 2 = 0; VACUUM shapes') if $round % 20 == 0;
	}
	$total{rounds} += $round;
}

foreach my $seed ($first_seed .. $first_seed + $servers - 1)
{
	begin_server($seed);
	torture($seed, 60 * $minutes / $servers);
	last if !Test::More->builder->is_passing;
	drop_invalid();
	everything_agrees("seed $seed, at the end");
	$node->stop;
	command_ok([ 'pg_checksums', '--check', '-D', $node->data_dir ], "seed $seed: all page checksums hold") if $seed % 2;
	$node->clean_node;
}
note(join ', ', (map { "$total{$_} $_" } reverse sort keys %total), map { "killed: $_ $kills{$_}" } sort keys %kills);
done_testing();
