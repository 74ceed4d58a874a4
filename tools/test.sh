#!/bin/bash
# All tests: installs what is missing, checks the formatting, builds the release preset (warnings are errors), runs ctest.
# The last line is "N passed, N failed, N skipped", over GoogleTest cases at every number of ranks.
#
# usage: tools/test.sh [--tidy] [--update-golden] [OPTION OF ctest...]
#   --tidy            clang-tidy over every source, too (slow)
#   --update-golden   write the golden files from this build and stop; read the difference before you commit it
#   -R EXPR, -L LABEL, --repeat until-fail:5, ...   go to ctest
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/packages.sh

tidy=no update_golden=no ctest_options=()
for argument in "$@"; do
  case $argument in
    -h | --help) sed -n '2,/^set/s/^# \?//p' tools/test.sh; exit 0 ;;
    --tidy) tidy=yes ;;
    --update-golden) update_golden=yes ;;
    *) ctest_options+=("$argument") ;;
  esac
done
test_packages=("${build_packages[@]}" "${jobs_packages[@]}" clang-format)
((EUID != 0)) || test_packages+=("${slurm_packages[@]}") # only root may start the daemons; for others that test is skipped
[[ $tidy == yes ]] && test_packages+=(clang-tidy-19) # older ones do not know std::source_location
need_packages "${test_packages[@]}"
if ((EUID == 0)); then # Open MPI asks root to say so twice
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi

cmake --preset release -DCMAKE_EXPORT_COMPILE_COMMANDS=ON
cmake --build --preset release
build=build/release
if [[ $update_golden == yes ]]; then
  exec "$(find $build -name golden_test -type f -perm -u+x)" --update-golden
fi

# Checks outside ctest count as one test each.
passed=0 failed=0 skipped=0 notes=()
sources() { find "$@" -name '*.[ch]pp' -o -name '*.cu' -o -name '*.cuh' -o -name '*.h'; }
check() { # check NAME COMMAND...
  if "${@:2}"; then ((++passed)); else ((++failed)) && notes+=("failed: $1"); fi
}
formatter=$(command -v clang-format-14 || command -v clang-format || true)
if [[ -z $formatter ]]; then
  ((++skipped)) && notes+=("skipped 1: there is no clang-format")
elif [[ $("$formatter" --version) != *"version 14."* ]]; then # versions disagree about the same file
  ((++skipped)) && notes+=("skipped 1: the tree is formatted by clang-format 14; this is $("$formatter" --version)")
else
  mapfile -t files < <(sources src include tests tools)
  check clang-format "$formatter" --dry-run --Werror "${files[@]}"
fi
if [[ $tidy == yes ]]; then
  mapfile -t files < <(find src tests -name '*.cpp')
  check clang-tidy run-clang-tidy-19 -quiet -p $build "${files[@]}"
fi

log=$build/Testing/Temporary/LastTest.log
rm -f $log $log.tmp # it has the second name until ctest ends
export GTEST_COLOR=no
status=0
ctest --preset release --no-tests=error -j "$(nproc)" "${ctest_options[@]}" 2>&1 | tee $build/ctest.txt || status=$?
counts=$({ cat $log 2>/dev/null || cat $log.tmp 2>/dev/null || true; } | awk -f tools/count_tests.awk $build/ctest.txt -)
if [[ $counts == "0 passed, 0 failed, 0 skipped" ]]; then
  check "no test ran" false
elif ((status != 0)) && [[ $counts == *" 0 failed"* ]]; then
  check "ctest ended with $status" false
fi

echo
printf '%s\n' "${notes[@]}" "$(head -n -1 <<<"$counts")" | sed '/^$/d'
read -r cases_passed _ cases_failed _ cases_skipped _ <<<"$(tail -n 1 <<<"$counts")"
((failed += cases_failed)) || true
echo "$((passed + cases_passed)) passed, $failed failed, $((skipped + cases_skipped)) skipped"
((failed == 0))
