#!/bin/bash
# A real batch out of real data, on two MPI ranks: installs what is missing, builds seine, and hands over to
# quickstart.py, which trains a network, selects with it, trains again and prints what the batch was worth.
#
# usage: tools/quickstart.sh [--seed S] [--batch B] [--out DIR]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
for argument in "$@"; do
  if [[ $argument == -h || $argument == --help ]]; then
    sed -n '2,5s/^# \?//p' "${BASH_SOURCE[0]}"
    exit 0
  fi
done
source "$root/tools/packages.sh"

start=$SECONDS
need_packages "${build_packages[@]}" "${python_packages[@]}"
installed=$SECONDS

echo "seine: building (minutes the first time, seconds later)" >&2
mkdir -p "$root/build"
log=$root/build/quickstart.log
if ! (cd "$root" && cmake --preset release && cmake --build --preset release --target seine) >"$log" 2>&1; then
  tail -n 40 "$log" >&2
  echo "seine: stopped: the build failed; the whole of its output is in $log" >&2
  exit 70
fi
export SEINE_SECONDS_INSTALL=$((installed - start)) SEINE_SECONDS_BUILD=$((SECONDS - installed))

# Debian's python3 by its full name: another one in PATH does not see Debian's modules.
exec /usr/bin/python3 "$root/tools/quickstart.py" "$@"
