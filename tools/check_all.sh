#!/bin/bash
# What is too slow for every push: sanitizers over the tests, Valgrind over each strategy, fuzzers and damaged pools.
# Builds what it needs below build/, prints one line per check and ends with 1 where one failed. Logs: build/check_all/.
#
# usage: tools/check_all.sh [--seconds S] [--pools N] [CHECK...]
#   --seconds S   for each fuzzer (60)
#   --pools N     damaged pools (2000)
#   CHECK         of: asan tsan valgrind fuzz pools; all where none is given
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=60 pools=2000 checks=()
while (($#)); do
  case $1 in
    -h | --help) sed -n '2,/^set/s/^# \?//p' tools/check_all.sh; exit 0 ;;
    --seconds) seconds=$2; shift ;;
    --pools) pools=$2; shift ;;
    *) checks+=("$1") ;;
  esac
  shift
done
((${#checks[@]})) || checks=(asan tsan valgrind fuzz pools)

logs=build/check_all jobs=$(nproc)
mkdir -p $logs
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
failed=0
report() { printf '%-28s %-8s %6s s  %s\n' "$@"; }
# check NAME SUMMARY COMMAND...: runs it with its output in a log; SUMMARY is what grep shows of that.
check() {
  local log=$logs/${1// /_}.txt start=$SECONDS verdict=passed
  "${@:3}" >"$log" 2>&1 || { verdict=FAILED && failed=1; }
  report "$1" $verdict $((SECONDS - start)) "$(grep -E "$2" "$log" | tail -n 1 || true)"
}
build() { cmake --preset "$1" && cmake --build --preset "$1" -j "$jobs" "${@:2}"; }

run_asan() {
  build asan
  # Leaks: MPI keeps what it has. Interceptors: HDF5 is not ours to check. Sizes of damaged files are the system's to refuse.
  # Memory: sanitizers have their own, beside what is counted, and beyond the limits of the jobs under Slurm.
  ASAN_OPTIONS=detect_leaks=0:suppressions=$PWD/tests/address_sanitizer.txt:allocator_may_return_null=1 \
    UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 GTEST_FILTER=-Memory.*:Temporary.WithoutRoomForRows ctest --preset asan -j "$jobs" -E 'damaged_pools|slurm_test'
}

# Where this program has threads: the workers of the backend, the reader beside them, results that must not depend on them.
run_tsan() {
  build tsan
  TSAN_OPTIONS=suppressions=$PWD/tests/thread_sanitizer.txt:ignore_noninstrumented_modules=1 \
    ctest --preset tsan -R '^(row_math_test|covering_test.1|row_store_test.1|evaluate_test.1|invariance_test.4)$'
}

run_valgrind() {
  build release --target seine
  local folder strategy strategies
  strategies=$(build/release/bin/seine strategies --json |
    /usr/bin/python3 -c 'import json, sys; print(*(each["name"] for each in json.load(sys.stdin)))') || return 1
  folder=$(mktemp -d)
  build/release/bin/seine synth --rows 300 --dim 9 --classes 4 --passes 2 --ids string --labelled 0.1 --out "$folder" --quiet
  for strategy in $strategies; do
    valgrind --quiet --error-exitcode=99 --suppressions=/usr/share/openmpi/openmpi-valgrind.supp build/release/bin/seine \
      select --pool "$folder"/part-*.h5 --strategy $strategy --batch 12 --threads 2 --device cpu --quiet \
      --out "$folder/$strategy.h5" || { echo "failed: $strategy"; return 1; }
  done
  rm -r "$folder"
  echo "$(wc -w <<<"$strategies") strategies"
}

fuzz_one() {
  local found=$logs/corpus_$1
  mkdir -p "$found"
  (cd $logs && "../fuzz/tests/fuzz_$1" "corpus_$1" "../../tests/fuzz/corpus/$1" -max_total_time="$seconds" -timeout=60 \
    -rss_limit_mb=4096 -malloc_limit_mb=4096 -max_len=16384 -print_final_stats=1)
}

for name in "${checks[@]}"; do
  case $name in
    asan) check "ASan, UBSan" 'tests passed|tests failed' run_asan ;;
    tsan) check "TSan" 'tests passed|tests failed' run_tsan ;;
    valgrind) check "Valgrind" '^[0-9]+ strategies|^failed' run_valgrind ;;
    fuzz)
      check "build of the fuzzers" 'FAILED' build fuzz --target fuzzers
      for reader in pool csv text json batch config checkpoint; do
        check "fuzz $reader" 'number_of_executed_units|SUMMARY' fuzz_one $reader
      done
      ;;
    pools)
      check "build of the release" 'FAILED' build release --target seine
      check "damaged pools" 'runs in' /usr/bin/python3 tools/fuzz_pools.py --seine build/release/bin/seine --count "$pools" \
        --seed "$(date +%j)" --keep $logs/pools
      ;;
    *) echo "check_all.sh: no check \"$name\"; see --help" >&2; exit 64 ;;
  esac
done
exit $failed
