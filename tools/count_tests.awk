# Counts what ctest ran: every GoogleTest case of every entry, and an entry without GoogleTest cases as one.
# Reads two files: what ctest printed (how each entry ended), then its LastTest.log (what each entry printed).
# Prints what failed, what was skipped and why, and last "N passed, N failed, N skipped".

function skip(why) {
  ++skipped
  if (!(why in skips)) reasons[++reason_count] = why
  ++skips[why]
}
function fail(what) { failures[++failure_count] = what; ++failed }
# An entry's output is read: what its cases do not tell, its end does.
function close_entry() {
  if (entry == "") return
  if (end[entry] ~ /Passed/) { if (!cases) ++passed }
  else if (end[entry] ~ /Skipped|Disabled/) skip(entry ": " end[entry])
  else if (!case_failed) fail(entry ": " end[entry] ", not in a test case of rank 0 (crash, time limit, another rank)")
  entry = ""
}

{ gsub(/\033\[[0-9;]*m/, "") }  # colours

FNR == NR {
  if (match($0, /^ *[0-9]+\/[0-9]+ Test +#[0-9]+: /)) {
    name = substr($0, RLENGTH + 1); status = name
    sub(/ .*/, "", name); sub(/^[^ ]+ [ .]*/, "", status); sub(/:? +[0-9.]+ sec.*/, "", status); sub(/^\*+/, "", status); sub(/\*+/, ", ", status)
    end[name] = status
  }
  next
}

/^[0-9]+\/[0-9]+ Testing: / { close_entry(); entry = $3; cases = case_failed = reading = 0; next }
/^Output:$/ { reading = 1; why = ""; next }
/^<end of output>$/ { reading = 0; next }
!reading { next }

/^\[       OK \] .* \([0-9]+ ms\)$/ { ++passed; ++cases; next }
/^\[  FAILED  \] .* \([0-9]+ ms\)$/ {
  sub(/^\[  FAILED  \] /, ""); sub(/ \([0-9]+ ms\)$/, "")
  fail(entry ": " $0); ++cases; ++case_failed; next
}
/^\[  SKIPPED \] .* \([0-9]+ ms\)$/ { skip(why == "" ? "no reason given" : why); ++cases; why = ""; next }
/: Skipped$/ { why = ""; take = 1; next }
/^\[/ { take = 0; next }
take && NF { why = why (why == "" ? "" : " ") $0 }

END {
  close_entry()
  for (i = 1; i <= failure_count; ++i) print "failed: " failures[i]
  for (i = 1; i <= reason_count; ++i) print "skipped " skips[reasons[i]] ": " reasons[i]
  print passed + 0 " passed, " failed + 0 " failed, " skipped + 0 " skipped"
}
