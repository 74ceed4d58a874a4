#include "reading/lzf.hpp"

#include <hdf5.h>

#include <cstddef>
#include <cstring>

namespace seine::h5 {
namespace {

constexpr H5Z_filter_t kLzf = 32000;

// A control byte below 32 starts a run of literals; any other one says how far back and how long to copy. False where
// the input is damaged.
bool inflate_lzf(const unsigned char* in, std::size_t in_size, unsigned char* out, std::size_t out_size) {
  const unsigned char* const in_end = in + in_size;
  unsigned char* const begin = out;
  unsigned char* const out_end = out + out_size;
  while (in < in_end) {
    const unsigned control = *in++;
    if (control < 32) {
      const std::size_t length = control + 1;
      if (length > static_cast<std::size_t>(in_end - in) || length > static_cast<std::size_t>(out_end - out))
        return false;
      std::memcpy(out, in, length);
      in += length;
      out += length;
      continue;
    }
    std::size_t length = control >> 5;
    if (length == 7) length += in < in_end ? *in++ : 0;
    length += 2;
    if (in == in_end) return false;
    const std::size_t back = ((control & 31) << 8 | *in++) + 1;
    if (back > static_cast<std::size_t>(out - begin) || length > static_cast<std::size_t>(out_end - out)) return false;
    for (; length > 0; --length, ++out) *out = *(out - back);  // the two ranges may overlap: byte by byte
  }
  return out == out_end;
}

// In the form that the library calls. values[2]: bytes of a whole chunk, as h5py stores it.
std::size_t lzf_filter(unsigned flags, std::size_t value_count, const unsigned* values, std::size_t stored,
                       std::size_t* capacity, void** buffer) {
  if (!(flags & H5Z_FLAG_REVERSE) || value_count < 3) return 0;
  const std::size_t size = values[2];
  void* inflated = H5allocate_memory(size, false);
  if (!inflated) return 0;
  if (!inflate_lzf(static_cast<const unsigned char*>(*buffer), stored, static_cast<unsigned char*>(inflated), size)) {
    H5free_memory(inflated);
    return 0;
  }
  H5free_memory(*buffer);
  *buffer = inflated;
  *capacity = size;
  return size;
}

}  // namespace

void add_lzf() {
  if (H5Zfilter_avail(kLzf) > 0) return;
  const H5Z_class2_t lzf{H5Z_CLASS_T_VERS, kLzf, 0, 1, "lzf", nullptr, nullptr, lzf_filter};
  H5Zregister(&lzf);
}

}  // namespace seine::h5
