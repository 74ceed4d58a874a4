#!/bin/bash
# Collects what seine is built with and needs while it runs, from this Debian machine, for one that has none of it: headers,
# libraries, Open MPI's launcher and plug-ins. `tools/gpu_check.sh --libraries FOLDER` takes them from there.
#
# usage: tools/gpu_libraries.sh FOLDER      FOLDER is replaced if this script made it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/packages.sh
if (($# != 1)) || [[ $1 == -* ]]; then
  sed -n '2,/^set/s/^# \?//p' tools/gpu_libraries.sh
  [[ ${1:-} == -h || ${1:-} == --help ]] && exit 0
  exit 64
fi
need_packages "${build_packages[@]}" "${bench_packages[@]}"

folder=$(realpath -m "$1")
if [[ -e $folder && ! -e $folder/lib/openmpi.environment ]]; then
  echo "seine: $folder is there and was not made by this script" >&2
  exit 73
fi
rm -rf "$folder"
libraries=$folder/lib/x86_64-linux-gnu
mkdir -p "$folder"/{bin,tools} "$libraries"

# Packages, without what nobody asks for on the other machine: it becomes what /usr is here.
packages=(libopenmpi-dev openmpi-bin openmpi-common libopenmpi3 libpmix2 libhdf5-dev libcli11-dev libspdlog-dev libfmt-dev
  nlohmann-json3-dev libtomlplusplus-dev libxxhash-dev libgtest-dev libbenchmark-dev libeigen3-dev)
wanted='^/usr/(include|share/(openmpi|pmix|eigen3|cmake|nlohmann_json)|lib/x86_64-linux-gnu)/'
unwanted='\.mod$|/fortran/|/pkgconfig/|(fort|f08|mpif|java|oshmem|_cxx|_cpp|hdf5_hl|hdf5hl|_f90)[^/]*$|libhdf5[^/]*\.a$|/openmpi/lib/lib[^/]*\.a$'
unwanted+='|/unsupported/|/mca_[^/]*(ofi|ucx|psm2?|verbs|openib|portals4|usnic|monitoring)[^/]*\.so$' # fabrics: one machine has no use for them
dpkg -L "${packages[@]}" | grep -E "$wanted" | grep -vE "$unwanted" | sort -u | while read -r file; do
  [[ -f $file || -L $file ]] || continue
  target=$folder/${file#/usr/}
  mkdir -p "${target%/*}"
  cp -P "$file" "$target"
done
for program in orterun orted; do cp -L "/usr/bin/$program" "$folder/tools/"; done

# Links out of the folder lead to what they lead to here, by a link inside of it.
find "$folder" -type l | while read -r link; do
  original=$(readlink -f "/usr/${link#"$folder"/}") || { rm "$link" && continue; }
  target=$folder/${original#/usr/}
  [[ -e $target ]] || install -D "$original" "$target"
  ln -sfrn "$target" "$link"
done
# Programs ask for a library by the name that is written in it.
find "$libraries" -maxdepth 1 -name '*.so.*' -type f | while read -r file; do
  name=$(objdump -p "$file" | awk '$1 == "SONAME" { print $2 }')
  [[ -z $name || -e $libraries/$name ]] || ln -s "${file##*/}" "$libraries/$name"
done

# What all of these need in turn, but for what every machine with a compiler has.
find "$folder" \( -name '*.so*' -o -path "$folder/tools/*" \) -type f -exec ldd {} + 2>/dev/null |
  awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u | grep -vE '/lib(c|m|dl|rt|pthread|resolv|stdc\+\+|gcc_s|gomp)\.so' |
  while read -r file; do [[ -e $libraries/${file##*/} ]] || cp -L "$file" "$libraries/"; done

# A library with a RUNPATH of its own does not look where the program's RPATH says; with an RPATH it does, too.
python3 - "$folder" <<'PATCH'
import pathlib, struct, sys
RPATH, RUNPATH, DYNAMIC = 15, 29, 2
for path in pathlib.Path(sys.argv[1]).rglob("*.so*"):
    data = bytearray(b"" if path.is_symlink() else path.read_bytes())
    if data[:5] != b"\x7fELF\x02":
        continue
    (headers,), (size, count) = struct.unpack_from("<Q", data, 32), struct.unpack_from("<HH", data, 54)
    for header in range(headers, headers + size * count, size):
        kind, _, first, _, _, length = struct.unpack_from("<IIQQQQ", data, header)
        for entry in range(first, first + length, 16) if kind == DYNAMIC else ():
            if struct.unpack_from("<Q", data, entry)[0] == RUNPATH:
                struct.pack_into("<Q", data, entry, RPATH)
                path.write_bytes(data)
PATCH

# Open MPI's own programs look for their libraries here, and for their plug-ins where the environment says.
for program in mpirun:orterun orted:orted; do
  cat >"$folder/bin/${program%%:*}" <<WRAPPER
#!/bin/sh
here=\$(cd "\$(dirname "\$0")/.." && pwd)
LD_LIBRARY_PATH=\$here/lib/x86_64-linux-gnu exec "\$here/tools/${program##*:}" "\$@"
WRAPPER
  chmod +x "$folder/bin/${program%%:*}"
done
# Read by gpu_check.sh with \$libraries set.
cat >"$folder/lib/openmpi.environment" <<'ENVIRONMENT'
export OPAL_PREFIX=$libraries OPAL_BINDIR=$libraries/bin OPAL_LIBDIR=$libraries/lib/x86_64-linux-gnu/openmpi/lib
export OPAL_PKGLIBDIR=$libraries/lib/x86_64-linux-gnu/openmpi/lib/openmpi3 OPAL_DATADIR=$libraries/share
export OPAL_PKGDATADIR=$libraries/share/openmpi OPAL_SYSCONFDIR=$libraries/lib PMIX_INSTALL_PREFIX=$libraries/lib/x86_64-linux-gnu/pmix2
# One machine, perhaps a container: shared memory, without system calls that may be forbidden.
export OMPI_MCA_plm=isolated OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,vader OMPI_MCA_btl_vader_single_copy_mechanism=none
export OMPI_MCA_mca_base_component_show_load_errors=0 PMIX_MCA_mca_base_component_show_load_errors=0
ENVIRONMENT
du -sh "$folder"
