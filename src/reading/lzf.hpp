// LZF, the light compression of h5py (filter 32000), which the HDF5 library does not have; reading only.
#pragma once

namespace seine::h5 {

// Makes the filter known to the library, unless it is; cheap enough for every opening of a file.
void add_lzf();

}  // namespace seine::h5
