# The Debian packages that seine needs, and a function that installs those that are missing. Sourced by the scripts
# beside it; changes nothing by itself.

# To configure and build everything, tests included, and to start it.
build_packages=(
  g++ cmake ninja-build
  libopenmpi-dev openmpi-bin libhdf5-dev libcli11-dev libspdlog-dev libfmt-dev nlohmann-json3-dev libtomlplusplus-dev
  libxxhash-dev libgtest-dev
)
# For jobs/ and its tests: Python, the hash of batch files, and a Slurm that the tests start themselves. The services of
# these packages stay as they are: without a configuration in /etc/slurm they do not start. h5py: damaged pools.
jobs_packages=(python3 python3-h5py python3-xxhash)
slurm_packages=(slurm-wlm slurm-wlm-basic-plugins munge libpmix2)
# For quickstart and benchmarks: real images, and the Python that trains on them.
python_packages=(dataset-fashion-mnist python3-numpy python3-h5py python3-sklearn python3-matplotlib)
# For benchmarks alone.
bench_packages=(libbenchmark-dev libeigen3-dev python3-venv)

is_installed() { [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed* ]]; }

# need_packages NAME...: installs what is missing of these, or says in one line what to run and stops.
need_packages() {
  if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    echo "seine: no apt-get here; going on with what there is. Needed, by Debian's names: $*" >&2
    return 0
  fi
  local name missing=()
  for name in "$@"; do
    is_installed "$name" || missing+=("$name")
  done
  ((${#missing[@]})) || return 0

  local as_root=()
  if ((EUID != 0)); then
    if ! sudo -n true 2>/dev/null; then
      echo "seine: stopped: packages are missing and only root may install them. Run this line, then start again:" >&2
      echo "  sudo apt-get update && sudo apt-get install --no-install-recommends ${missing[*]}" >&2
      exit 69
    fi
    as_root=(sudo -n)
  fi
  echo "seine: installing ${missing[*]}" >&2
  local apt_get=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o Dpkg::Use-Pty=0) log
  log=$(mktemp)
  if ! { "${apt_get[@]}" update && "${apt_get[@]}" install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    rm -f "$log"
    echo "seine: stopped: apt-get could not install ${missing[*]}; its last lines are above" >&2
    exit 69
  fi
  rm -f "$log"
}
