#!/bin/bash
# What cron or scrontab runs every night: the next batch of a labelling campaign, chosen, checked and published.
#
#   jobs/nightly.sh CAMPAIGN.toml                 # all nights that are due; a second start does nothing
#   jobs/nightly.sh CAMPAIGN.toml --status        # what happened in which night
#   jobs/nightly.sh --help
#
# campaign.toml shows what a campaign file holds; README.md says what the exit codes mean and what to do when something
# went wrong.

# --- the site's choices; cron starts with next to no environment ---
PROLOGUE=${PROLOGUE:-}          # a file to source first: module load ..., export PATH=...
PYTHON=${PYTHON:-python3}       # 3.11 or later, with the module xxhash (Debian: python3-xxhash)

set -euo pipefail
set +u # for prologues of others
# shellcheck disable=SC1090
if [[ -n $PROLOGUE ]] && ! source "$PROLOGUE"; then
  echo "nightly: stopped: PROLOGUE=$PROLOGUE failed (exit 78)" >&2
  exit 78
fi
set -u
for module in tomllib xxhash; do
  "$PYTHON" -c "import $module" 2>/dev/null || {
    echo "nightly: stopped: PYTHON=$PYTHON has no module $module; 3.11 or later with xxhash has, say" \
      "PYTHON=/usr/bin/python3 with Debian's python3-xxhash (exit 78)" >&2
    exit 78
  }
done
exec "$PYTHON" "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/nightly" "$@"
