# A Markdown table of measurements: awk -F'|' -v methods="gist xtree" -f report.awk
#
# Reads lines "key|measure|method|value", in the order in which measures shall appear, and prints medians. Two
# methods are floors, and no column:
#   none   the same table with no index. Taken off where the measure begins with "insert", and else named.
#   floor  the same rows fetched by TID. Named, and taken off in another line: the index's own part.
function median(k,    n, i, j, t, v) {
	n = split(values[k], v, " ")
	for (i = 2; i <= n; i++)
		for (j = i; j > 1 && v[j - 1] + 0 > v[j] + 0; j--) { t = v[j]; v[j] = v[j - 1]; v[j - 1] = t }
	return n % 2 ? v[(n + 1) / 2] + 0 : (v[n / 2] + v[n / 2 + 1]) / 2
}
function shown(x) { return sprintf(x >= 100 || x <= -100 ? "%.0f" : x >= 10 || x <= -10 ? "%.1f" : "%.2f", x) }
# What is left of a peer within the noise of its floor has no ratio.
function ratio(own, peer) { return own == "" || peer == "" || peer <= 0 ? "-" : own <= 0 ? "0" : sprintf("%.2f", own / peer) }
# A row: the methods' medians less `less`, and how xtree compares.
function row(key, measure, id, less,    c, m, x, best, own, gist, line) {
	line = "| " key " | " measure " |"
	best = own = gist = ""
	for (c = 1; c <= columns; c++) {
		m = method[c]
		if (!((id, m) in values)) { line = line " - |"; continue }
		x = median(id SUBSEP m) - less
		line = line (m == "xtree" ? " **" shown(x) "** |" : " " shown(x) " |")
		if (m == "xtree") own = x
		# BRIN keeps summaries in place of entries: a peer only where something is looked for.
		else if ((best == "" || x < best) && (m != "brin" || measure ~ /window|count/)) best = x
		if (m == "gist") gist = x
	}
	if (gistcolumn) line = line " " ratio(own, gist) " |"
	if (columns > 2) line = line " " ratio(own, best) " |"
	print line
}
BEGIN {
	columns = split(methods, method, " ")
	name["gist"] = "GiST"; name["spgist"] = "SP-GiST"; name["brin"] = "BRIN"; name["xtree"] = "xtree"
	for (c = 1; c <= columns; c++) if (method[c] == "gist") gistcolumn = 1
}
{
	id = $1 SUBSEP $2
	if (!(id in seen)) { seen[id] = 1; order[++count] = id; keys[count] = $1; measures[count] = $2 }
	values[id, $3] = values[id, $3] " " $4
}
END {
	line = "| key | measure |"; rule = "|---|---|"
	for (c = 1; c <= columns; c++) { line = line " " (method[c] in name ? name[method[c]] : method[c]) " |"; rule = rule "---|" }
	if (gistcolumn) { line = line " xtree / GiST |"; rule = rule "---|" }
	if (columns > 2) { line = line " xtree / best peer |"; rule = rule "---|" }
	print line; print rule
	for (i = 1; i <= count; i++) {
		id = order[i]; measure = measures[i]; less = 0
		if ((id, "none") in values) {
			base = median(id SUBSEP "none")
			if (measure ~ /^insert/) { measure = measure ", over no index (" shown(base) ")"; less = base }
			else measure = measure " (no index: " shown(base) ")"
		}
		if ((id, "floor") in values) measure = measure " (by TID: " shown(median(id SUBSEP "floor")) ")"
		row(keys[i], measure, id, less)
		if ((id, "floor") in values) row(keys[i], measures[i] ": index part", id, median(id SUBSEP "floor"))
	}
}
