# Goal: nobody reads through the extension's functions what they could not read without, or disturbs what
# is not theirs; absurd arguments are errors.
# Method: each function is called on somebody else's index by a user with no right, with each right that
# counts, and by the owner; then with all kinds of relations and numbers.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use XTreeTest;

my $node = new_server('hostile');
create_table($node, 't');
$node->safe_psql('postgres', add_rows('t', 1, 500) . q(
	CREATE ROLE owner; CREATE ROLE stranger; CREATE ROLE reader; CREATE ROLE observer; CREATE ROLE keeper;
	GRANT CREATE ON SCHEMA public TO owner;
	GRANT pg_stat_scan_tables TO observer;
	GRANT pg_checkpoint TO keeper;
	ALTER TABLE t OWNER TO owner;
	GRANT SELECT ON t TO reader;
	CREATE TABLE guarded (id bigint PRIMARY KEY, p point, b box);
	INSERT INTO guarded SELECT * FROM t;
	CREATE INDEX guarded_p ON guarded USING xtree (p);
	GRANT SELECT ON guarded TO reader;
	ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
	CREATE POLICY few ON guarded USING (id < 3);));

sub as_role
{
	my ($role, $statement) = @_;
	my ($code, $out, $err) = $node->psql('postgres', "SET ROLE $role; SET enable_seqscan = off; $statement");
	return $code == 0 ? 'yes' : $err =~ /permission denied|must be owner|row-level security/ ? 'no' : $err;
}

# Who may: owner, stranger, reader of the table, pg_stat_scan_tables, pg_checkpoint.
my %may = (
	'xtree_stats' => [ 'yes', 'no', 'no', 'yes', 'no' ],
	'xtree_state' => [ 'yes', 'no', 'no', 'yes', 'no' ],
	'xtree_check' => [ 'yes', 'no', 'no', 'yes', 'no' ],
	'xtree_svg' => [ 'yes', 'no', 'yes', 'no', 'no' ],
	'xtree_checkpoint' => [ 'yes', 'no', 'no', 'no', 'no' ]);
foreach my $function (sort keys %may)
{
	my @answers = map { as_role($_, "SELECT $function('t_p')") } ('owner', 'stranger', 'reader', 'observer', 'keeper');
	is("@answers", "@{ $may{$function} }", "$function: owner, stranger, reader, observer, keeper");
}
is(as_role('stranger', q(SELECT xtree_check('t_p', true))), 'no', 'nor with heapallindexed');
is(as_role('reader', q(SELECT xtree_svg('guarded_p'))), 'no', 'keys are not shown past row security');
is($node->safe_psql('postgres', "SET ROLE $_->[0]; SELECT count(*) FROM pg_stat_xtree"), $_->[1], "the view shows $_->[0] what is theirs")
  foreach ([ 'stranger', 0 ], [ 'reader', 0 ], [ 'owner', 2 ], [ 'observer', 3 ]);

# An index that is new is folded behind a checkpoint. An owner does not make the server checkpoint by that, but is served
# after the next one; who may say CHECKPOINT is served at once.
my $redo = 'SELECT redo_lsn FROM pg_control_checkpoint()';
sub new_index
{
	my ($name) = @_;
	$node->safe_psql('postgres', "SET ROLE owner; CREATE TABLE $name (p point); CREATE INDEX ${name}_p ON $name USING xtree (p);
		INSERT INTO $name SELECT point(i, i) FROM generate_series(1, 100) AS i");
}
new_index('waits');
my $was = $node->safe_psql('postgres', $redo);
my ($status, $folded, $notice) = $node->psql('postgres', q(SET ROLE owner; SELECT xtree_checkpoint('waits_p')));
is("$status $folded", '0 f', 'an owner does not fold what needs a checkpoint');
like($notice, qr/will be folded after the next checkpoint/, 'and is told so');
is($node->safe_psql('postgres', $redo), $was, 'nor makes one');
$node->safe_psql('postgres', 'CHECKPOINT');
ok($node->poll_query_until('postgres', q(SELECT log_bytes = 0 AND checkpoints > 0 FROM xtree_stats('waits_p'))), 'a worker folds after the next');
$node->safe_psql('postgres', 'GRANT pg_checkpoint TO owner');
new_index('at_once');
is($node->safe_psql('postgres', q(SET ROLE owner; SELECT xtree_checkpoint('at_once_p'))), 't', 'a member of pg_checkpoint folds at once');
$node->safe_psql('postgres', 'REVOKE pg_checkpoint FROM owner');

# No function of the extension takes a file name, raw bytes, or runs as somebody else.
is($node->safe_psql('postgres', q(
	SELECT coalesce(string_agg(p.oid::regprocedure::text, ' '), '') FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass
	JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
	WHERE e.extname = 'xtree' AND (p.prosecdef OR p.proargtypes::oid[] && ARRAY['text'::regtype, 'bytea'::regtype, 'cstring'::regtype]::oid[]))),
	'', 'no function takes a name or bytes, or runs with other rights');

# Row security and column rights hold in scans of the index.
is($node->safe_psql('postgres', q(SET ROLE reader; SET enable_seqscan = off; SELECT count(*) FROM guarded WHERE p <@ box '((-1000,-1000),(1000,1000))')),
	'2', 'an index scan shows what the policy allows');
is(as_role('stranger', q(SELECT count(*) FROM t WHERE p <@ box '((0,0),(1,1))')), 'no', 'and nothing to who may not read the table');
is(as_role('stranger', q(EXPLAIN SELECT * FROM t WHERE p <@ box '((0,0),(1,1))')), 'no', 'nor does its plan, whose estimate comes from the index');

# A function that leaks its argument is not called before the policy.
$node->safe_psql('postgres', q(
	CREATE FUNCTION leak(point, box) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$ BEGIN RAISE NOTICE 'saw %', $1; RETURN true; END $$;
	CREATE OPERATOR <!!> (LEFTARG = point, RIGHTARG = box, FUNCTION = leak);));
my ($code, $out, $err) = $node->psql('postgres',
	q(SET ROLE reader; SET enable_seqscan = off; SELECT count(*) FROM guarded WHERE p <!!> box '((0,0),(1,1))' AND p <@ box '((-1000,-1000),(1000,1000))'));
my $saw = () = $err =~ /saw/g;
is($saw, 2, 'a leaky operator sees only rows of the policy') or diag($err);

# Files: only the superuser sets what names none anyway; settings of the server are not a session's.
foreach my $setting ('xtree.max_log_size', 'xtree.log_size_limit', 'xtree.flush_interval', 'xtree.window_budget')
{
	($code, $out, $err) = $node->psql('postgres', "SET ROLE stranger; SET $setting = 1000");
	like($err, qr/cannot be (changed now|set after connection)/, "a session does not set $setting");
}

# Absurd arguments.
$node->safe_psql('postgres', q(
	CREATE TABLE parted (p point) PARTITION BY LIST ((p[0])); CREATE INDEX parted_p ON parted USING xtree (p);
	CREATE VIEW v AS SELECT 1; CREATE SEQUENCE s; CREATE MATERIALIZED VIEW m AS SELECT * FROM t;
	CREATE INDEX g ON t USING gist (p);));
foreach my $function (sort keys %may)
{
	foreach my $target ("'t'", "'t_pkey'", "'g'", "'v'", "'s'", "'m'", "'parted'", "'parted_p'", "'pg_class'", "'pg_class_oid_index'", '0::oid', '4294967295::oid', "'no_such'")
	{
		($code, $out, $err) = $node->psql('postgres', "SELECT $function($target)");
		like($err, qr/ERROR:  (?!XX000)/, "$function($target) is an error");
		unlike($err, qr/unexpected|cache lookup|could not find/, "$function($target): one that says what is wrong");
	}
	is($node->safe_psql('postgres', "SELECT $function(NULL) IS NULL"), 't', "$function(NULL) is NULL") unless $function =~ /stat/;
}
foreach my $level (-1, -2147483648, 2147483647, 64)
{
	($code, $out, $err) = $node->psql('postgres', "SELECT xtree_svg('t_p', $level)");
	like($err, qr/level must be between/, "xtree_svg of level $level is an error");
}
foreach my $option ('fillfactor = 9', 'fillfactor = 101', 'fillfactor = -1', "fillfactor = 'x'", 'nonsense = 1')
{
	($code, $out, $err) = $node->psql('postgres', "CREATE INDEX ON t USING xtree (p) WITH ($option)");
	isnt($code, 0, "WITH ($option) is an error");
}
($code, $out, $err) = $node->psql('postgres', 'SELECT xthandler(NULL)');
like($err, qr/ERROR/, 'the handler is not to be called');
index_equals_heap($node, 't', 'after all of that');
$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|XX000|terminated by signal/, 'the log has no bad news');
done_testing();
