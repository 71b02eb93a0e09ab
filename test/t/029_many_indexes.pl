# Goal: a thousand indexes in one database cost a backend neither descriptors nor unbounded mappings, keep
# neither checkpoints nor folds from their work, and leave nothing when they are dropped.
# Method: a partitioned table with an index on each partition and as many more on one table; all of them
# searched by one session and by many, beside inserts, autovacuum, checkpoints and folds; the processes are
# looked at in /proc. XTREE_SCALE_PARTITIONS=1000 is the full form (make check-torture), whose figures are
# in src/README.md, "Scale".
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time sleep);
use XTreeTest;

my $partitions = $ENV{XTREE_SCALE_PARTITIONS} // 100;
my $full = $partitions >= 1000;
my $more = $partitions / 5;    # Indexes on one table.
my $sessions = $full ? 50 : 8;
my $budget = 16;
my $host_files = $full ? 1000 : 64;    # What the host may keep open, of tables and of indexes it has measured.
my $rows = $partitions * 100;

my $node = new_server('many', conf => q(
max_connections = 130
max_locks_per_transaction = 2000
max_worker_processes = 10
max_files_per_process = HOST_FILES
shared_buffers = 128MB
dynamic_shared_memory_type = mmap
autovacuum = on
autovacuum_naptime = 1s
autovacuum_vacuum_insert_threshold = 20
autovacuum_vacuum_threshold = 20
) =~ s/HOST_FILES/$host_files/r . ($full ? "fsync = on\n" : ''));
my $data = $node->data_dir;
my $index_only = 'SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off;';

# How many descriptors a process has, and how many mappings: all, and those of index files.
sub look_at
{
	my $pid = shift;
	my @descriptors = glob("/proc/$pid/fd/*");
	my @maps = split /\n/, eval { slurp_file("/proc/$pid/maps") } // '';

	return (descriptors => scalar(@descriptors), maps => scalar(@maps), windows => scalar(grep { m{/base/\d+/\d+} } @maps));
}

# Bytes of shared memory beyond what the server starts with.
sub memory
{
	my $bytes = 0;

	$bytes += -s $_ // 0 foreach glob("$data/pg_dynshmem/*");
	return $bytes;
}

my $create = qq(
	CREATE TABLE part (id bigint, p point) PARTITION BY RANGE (id);
	DO \$\$ BEGIN FOR i IN 0 .. $partitions - 1 LOOP
		EXECUTE format('CREATE TABLE part_%s PARTITION OF part FOR VALUES FROM (%s) TO (%s)', i, i * 100, i * 100 + 100);
	END LOOP; END \$\$;
	INSERT INTO part SELECT i, point((i * 7919 % 360007) / 1000.0 - 180, (i * 104729 % 180001) / 1000.0 - 90)
	FROM generate_series(0::bigint, $rows - 1) AS i;
	CREATE INDEX part_p ON part USING METHOD (p););
sub create_partitions
{
	my ($prefix, $method) = @_;
	my $script = $create =~ s/METHOD/$method/r;

	$script =~ s/\bpart\b/$prefix/g;
	$script =~ s/\bpart_/${prefix}_/g;
	# One transaction a statement: a lock for every partition is enough.
	$node->safe_psql('postgres', $script, timeout => 600);
}

my $memory_before = memory();
my $start = time;
create_partitions('part', 'xtree');
$node->safe_psql('postgres', qq(
	CREATE TABLE many (id bigint, p point) WITH (autovacuum_enabled = off);
	INSERT INTO many SELECT id, p FROM part WHERE id % 7 = 0;
	DO \$\$ BEGIN FOR i IN 1 .. $more LOOP
		EXECUTE format('CREATE INDEX many_%s ON many USING xtree (p)', i);
	END LOOP; END \$\$;
	CREATE TABLE arrived (pid int);
	CREATE TABLE go (go int);), timeout => 600);
my @paths = split /\n/, $node->safe_psql('postgres', "SELECT pg_relation_filepath(oid) FROM pg_class WHERE relkind = 'i'
	AND relam = (SELECT oid FROM pg_am WHERE amname = 'xtree')");
is(scalar(@paths), $partitions + $more, 'the indexes are there');
note sprintf('created in %.1f s', time - $start);

# --- Answers over all partitions, by sequential and index scans.
my $window = "p <@ box '((-60,-40),(70,50))'";
my $questions = qq(
	SELECT count(*), sum(id) FROM part WHERE $window;
	SELECT string_agg(d::text, ' ') FROM
		(SELECT p <-> point '(8.2,-3.7)' AS d FROM part ORDER BY p <-> point '(8.2,-3.7)' LIMIT 20) AS n;);
my $expected = $node->safe_psql('postgres', 'SET enable_indexscan = off; SET enable_bitmapscan = off;' . $questions,
	timeout => 300);
is($node->safe_psql('postgres', $index_only . $questions, timeout => 300), $expected,
	'index scans over all partitions answer as sequential ones do');
my $plan = $node->safe_psql('postgres', "$index_only EXPLAIN SELECT count(*) FROM part WHERE $window", timeout => 300);
is(scalar(() = $plan =~ /Index (?:Only )?Scan using part_\d+_p_idx/g), $partitions, 'and each partition is searched by its index');

# --- One session, many sessions. Each arrives when it has searched everything, and waits.
sub searcher
{
	my $setting = shift;

	return start_session($node, qq($setting $index_only $questions
		INSERT INTO many VALUES (-1, point(0, 0));
		INSERT INTO arrived VALUES (pg_backend_pid());
		DO \$\$ BEGIN WHILE NOT EXISTS (SELECT FROM go) LOOP PERFORM pg_sleep(0.1); END LOOP; END \$\$;));
}

# Looks at all sessions when they have arrived, and lets them go.
sub when_arrived
{
	my @started = @_;
	my (%most, $private);

	ok($node->poll_query_until('postgres', 'SELECT count(*) >= ' . @started . ' FROM arrived'),
		scalar(@started) . ' sessions have searched every index');
	foreach my $pid (split /\n/, $node->safe_psql('postgres', 'SELECT pid FROM arrived'))
	{
		my %one = look_at($pid);
		my ($anonymous) = (eval { slurp_file("/proc/$pid/status") } // '') =~ /^RssAnon:\s*(\d+)/m;

		$private += $anonymous // 0;
		foreach my $what (keys %one)
		{
			$most{$what} = $one{$what} if $one{$what} > ($most{$what} // -1);
		}
	}
	$node->safe_psql('postgres', 'INSERT INTO go VALUES (1)');
	$_->finish foreach @started;
	$node->safe_psql('postgres', 'TRUNCATE go, arrived');
	$most{private_kib} = int($private / @started);
	note join(', ', scalar(@started) . ' sessions', map { "$_ $most{$_}" } sort keys %most);
	return %most;
}

$start = time;
my %one = when_arrived(searcher(''));
note sprintf('one session: %.1f s', time - $start);
my $descriptors_max = $host_files + 20;
cmp_ok($one{descriptors}, '<=', $descriptors_max, 'a session that has searched every index holds only what the host keeps open');
cmp_ok($one{maps}, '<', 65530 / 10, 'and far fewer mappings than a process may have');

# A small budget: the windows that nothing uses are unmapped.
my %small = when_arrived(searcher("\\c -reuse-previous=on \"options=-cxtree.window_budget=$budget\"\n"));
cmp_ok($small{descriptors}, '<=', $descriptors_max, 'with a small budget, too');
cmp_ok($small{windows}, '<=', $budget, 'and keeps to its budget of windows');
cmp_ok($one{windows}, '>', $budget, 'which the default does not need to');

# Everything meanwhile: inserts that make all logs dirty, vacuum, folds, checkpoints.
$node->append_conf('postgresql.conf', "xtree.max_log_size = '64kB'\n");
$node->reload;
my $dirty = qq(INSERT INTO part SELECT i % $rows, point(i % 360 - 180, i % 180 - 90)
	FROM generate_series(0, $rows * 4 - 1, 7) AS i;\n);
my @beside = map { start_session($node, $_) } (
	$dirty x 2, "CHECKPOINT; SELECT pg_sleep(0.2);\n" x 10,
	"DELETE FROM part WHERE id % 50 = 3; VACUUM part_0, part_1, part_2;\n",
	"SELECT count(xtree_checkpoint(c.oid)) FROM pg_class c WHERE relname LIKE 'part\\_%\\_p\\_idx' AND relkind = 'i';\n");
$start = time;
my %all = when_arrived(map { searcher('') } 1 .. $sessions);
$_->finish foreach @beside;
note sprintf('%d sessions beside everything: %.1f s', $sessions, time - $start);
cmp_ok($all{descriptors}, '<=', $descriptors_max, 'so does each session of many');
cmp_ok($all{maps}, '<=', $one{maps} + 300, 'and mappings do not grow with time');
$expected = $node->safe_psql('postgres', 'SET enable_indexscan = off; SET enable_bitmapscan = off;' . $questions,
	timeout => 300);
is($node->safe_psql('postgres', $index_only . $questions, timeout => 300), $expected,
	'afterwards index scans answer as sequential ones do');
my ($code, $out, $err) = $node->psql('postgres',
	"SELECT count(*) FROM (SELECT xtree_check(c.oid, true) FROM pg_class c WHERE relname ~ '^part_[0-9]+_p_idx') AS c",
	timeout => 600);
is($code, 0, 'and xtree_check finds nothing in any') or diag($err);

# --- Every log wants a fold: the worker gets to each of them.
my $waiting = "SELECT count(*) FROM pg_class c, xtree_state(c.oid) s WHERE relname ~ '^part_[0-9]+_p_idx' AND s.log_bytes > 64 * 1024";
$node->safe_psql('postgres', qq(INSERT INTO part SELECT i % $rows, point(i % 360 - 180, i % 180 - 90)
	FROM generate_series(0, $rows * 15 - 1) AS i), timeout => 600);
$start = time;
ok($node->poll_query_until('postgres', "SELECT ($waiting) = 0"), 'the fold worker gets through all logs');
note sprintf('folded all in %.1f s', time - $start);

# --- A checkpoint over all logs at once, beside GiST's.
if ($full)
{
	create_partitions('gpart', 'gist');
	$node->append_conf('postgresql.conf', "autovacuum = off\nxtree.flush_interval = 0\nxtree.max_log_size = '64MB'\n");
	$node->reload;
	foreach my $round (1 .. 3)
	{
		foreach my $table ('part', 'gpart')
		{
			$node->safe_psql('postgres', 'CHECKPOINT');
			$node->safe_psql('postgres', "INSERT INTO $table SELECT i % $rows, point(i % 360 - 180, i % 180 - 90)
				FROM generate_series(0, $rows * 2 - 1, 10) AS i", timeout => 600);
			$start = time;
			$node->safe_psql('postgres', 'CHECKPOINT', timeout => 600);
			note sprintf('checkpoint over %d dirty indexes of %s: %.2f s', $partitions,
				$table eq 'part' ? 'xtree' : 'GiST', time - $start);
		}
	}
	my $gist = ($questions =~ s/\bpart\b/gpart/gr);
	my @connections = map { start_session($node, qq($index_only $gist
		INSERT INTO arrived VALUES (pg_backend_pid());
		DO \$\$ BEGIN WHILE NOT EXISTS (SELECT FROM go) LOOP PERFORM pg_sleep(0.1); END LOOP; END \$\$;)) } 1 .. 100;
	note 'GiST:';
	when_arrived(@connections);
	note 'xtree:';
	when_arrived(map { searcher('') } 1 .. 100);
	$node->safe_psql('postgres', 'DROP TABLE gpart', timeout => 600);
}

# --- Dropped: nothing is left.
my $memory = memory();
$node->safe_psql('postgres', 'DROP TABLE part, many, go, arrived', timeout => 600);
$node->safe_psql('postgres', 'CHECKPOINT');
is(scalar(map { index_files($node, $_) } @paths), 0, 'no file is left of what was dropped');
# The host keeps segments of shared memory that are empty but for a few blocks, so what shows that an index
# gives its memory back is that the next ones need no more.
if ($full)
{
	sleep(11);    # A sweep of the registry.
	create_partitions('part', 'xtree');
	my $again = memory();
	note "shared memory: $memory_before bytes at first, $memory with all indexes, $again with as many again";
	cmp_ok($again, '<=', $memory, 'and its shared memory serves the next');
}
cmp_ok($memory - $memory_before, '<', 200_000 * ($partitions + $more), 'an index needs little shared memory');
note sprintf('shared memory: %d bytes an index', ($memory - $memory_before) / ($partitions + $more));
$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|broken|terminated by signal|could not fold/, 'the log has no bad news');
done_testing();
