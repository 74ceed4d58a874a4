#!/bin/bash
# On a machine with a GPU, in one command and less than eight minutes: builds, runs the tests labelled `gpu`, and prints one
# short table of the kernels against what the card copies and multiplies, and of whole selections against the floor of one
# pass over the pool per pick. Ends with 69 and the driver's text where no device is usable, with 1 where a test failed.
#
# usage: tools/gpu_check.sh [--device cuda|cpu] [--quick] [--libraries FOLDER] [--build FOLDER] [--data FOLDER]
#   --device cpu        the same on the processor, where the table stands beside memcpy and Eigen; gpu tests are skipped
#   --quick             pools a hundredth of the size
#   --libraries FOLDER  of tools/gpu_libraries.sh, for a machine where Open MPI, HDF5 and the like are not installed
#   --build FOLDER      where to build (build/gpu_check)
#   --data FOLDER       where the pools go, about 8 GB, removed in the end (a new folder in $TMPDIR or /tmp)
set -euo pipefail
start=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
from_start() { (cd "$start" && realpath -m "$1"); } # what the caller meant by a path

device=cuda quick=() libraries="" build=build/gpu_check data=""
while (($#)); do
  if [[ $1 == --device || $1 == --libraries || $1 == --build || $1 == --data ]] && (($# < 2)); then
    echo "gpu_check.sh: $1 wants a value; see --help" >&2
    exit 64
  fi
  case $1 in
    -h | --help) sed -n '2,/^set/s/^# \?//p' tools/gpu_check.sh; exit 0 ;;
    --device) device=$2; shift ;;
    --quick) quick=(--quick) ;;
    --libraries)
      libraries=$(from_start "$2")
      [[ -e $libraries/lib/openmpi.environment ]] || { echo "gpu_check.sh: $2 is no folder of tools/gpu_libraries.sh" >&2; exit 66; }
      shift
      ;;
    --build) build=$(from_start "$2"); shift ;;
    --data) data=$(from_start "$2"); shift ;;
    *) echo "gpu_check.sh: unknown option $1; see --help" >&2; exit 64 ;;
  esac
  shift
done
[[ $device == cuda || $device == cpu ]] || { echo "gpu_check.sh: --device is cuda or cpu" >&2; exit 64; }
if [[ $device == cuda ]]; then # before minutes go into a build
  python3 - <<'END' || exit 69
import ctypes, sys
try:
    driver = ctypes.CDLL("libcuda.so.1")
except OSError as error:
    sys.exit(f"gpu_check.sh: there is no driver: {error}")
text = ctypes.c_char_p()
if fault := driver.cuInit(0):
    driver.cuGetErrorString(fault, ctypes.byref(text))
    sys.exit(f"gpu_check.sh: {text.value.decode() if text.value else fault}")
END
  nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc) # cuBLAS lies beside it, where the loader may not look
  toolkit=$(dirname "$(dirname "$(realpath "$nvcc")")")
  export LD_LIBRARY_PATH=$toolkit/lib64${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
fi
mkdir -p "$build"
build=$(realpath "$build")
readonly limit=470 # seconds for everything

configuration=(-S . -B "$build" -DCMAKE_BUILD_TYPE=Release -DSEINE_BENCH=ON)
command -v ninja >/dev/null && configuration+=(-G Ninja)
[[ $device == cuda ]] && configuration+=(-DSEINE_CUDA=ON)
if [[ -n $libraries ]]; then
  source "$libraries/lib/openmpi.environment"
  there=$libraries/lib/x86_64-linux-gnu
  export PATH=$libraries/bin:$PATH
  # An rpath of the old kind also serves the libraries of the libraries, and nobody else's programs.
  configuration+=(-DCMAKE_PREFIX_PATH="$libraries" -DCMAKE_EXE_LINKER_FLAGS="-Wl,--disable-new-dtags,-rpath,$there"
    -DMPI_C_LIB_NAMES=mpi -DMPI_mpi_LIBRARY="$there/openmpi/lib/libmpi.so" -DMPI_C_COMPILER_INCLUDE_DIRS="$there/openmpi/include"
    -DMPIEXEC_EXECUTABLE="$libraries/bin/mpirun" -DHDF5_ROOT="$there/hdf5/serial" -DCMAKE_LIBRARY_ARCHITECTURE=x86_64-linux-gnu)
else
  source tools/packages.sh
  need_packages "${build_packages[@]}" "${bench_packages[@]}"
fi
if ((EUID == 0)); then # Open MPI asks root to say so twice
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
kernels=seine_bench_kernels
[[ $device == cuda ]] && kernels=seine_bench_card

echo "seine: building in $build" >&2
log=$build/build.txt
if ! { cmake "${configuration[@]}" && cmake --build "$build" --parallel "$(nproc)" --target seine gpu_tests $kernels; } >"$log" 2>&1; then
  tail -n 40 "$log" >&2
  echo "seine: stopped: the build failed; the whole of its output is in $log" >&2
  exit 70
fi
echo "seine: built in $SECONDS s" >&2

status=0
"$build/bin/$kernels" --benchmark_list_tests >/dev/null || status=$?
((status == 0)) || exit $status # it has said why

tests=$build/gpu_tests.txt
export GTEST_COLOR=no
rm -f "$build"/Testing/Temporary/LastTest.log*
timeout 240 ctest --test-dir "$build" -L gpu --no-tests=error >"$tests" 2>&1 || status=$?
results=$build/Testing/Temporary/LastTest.log
[[ -e $results ]] || results+=.tmp
counts=$(awk -f tools/count_tests.awk "$tests" "$results")
((status == 0)) || status=1

[[ -n $data ]] || data=$(mktemp -d)
mkdir -p "$data"
trap 'rm -rf "$data"/seine_* && rmdir --ignore-fail-on-non-empty "$data"' EXIT
echo
python3 tools/bench/gpu_table.py --device $device "${quick[@]}" --binaries "$build/bin" --kernels $kernels --data "$data" \
  --seconds $((limit - SECONDS)) || status=1
echo
printf '%s\n' "$counts"
echo "$SECONDS s in all"
exit $status
