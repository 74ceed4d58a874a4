#include "fuzz/readers.hpp"

#include <unistd.h>
#include <xxhash.h>

#include <array>
#include <string>
#include <vector>

#include "cli/options.hpp"
#include "cli/request_options.hpp"
#include "pools.hpp"
#include "reading/csv.hpp"
#include "reading/id_list.hpp"
#include "seine/checkpoint.hpp"
#include "seine/inspection.hpp"

namespace seine::test {
namespace {

// Writes `bytes` under this name into a folder of the process and hands the path to `read`.
template <class Read>
Exit read_as(const std::string& name, std::string_view bytes, const Read& read) {
  static const Folder folder;
  const std::string path = folder.path() + "/" + name;
  write_text(path, std::string(bytes));
  try {
    return read(path);
  } catch (const Error& error) {
    require(error.code() != Exit::bug, error.what());
    return error.code();
  }
}

Exit read_pool(const Comm& comm, std::string_view bytes) {
  return read_as("pool.h5", bytes, [&](const std::string& path) {
    PoolRequest request;
    request.pool = {path};
    return inspect(request, comm, {}).faults.empty() ? Exit::done : Exit::bad_data;
  });
}

Exit read_ids(const std::string& name, std::string_view bytes) {
  return read_as(name, bytes, [](const std::string& path) {
    read_id_list(path);
    return Exit::done;
  });
}

// What was read is read again from what a batch file would hold.
Exit read_csv(const Comm&, std::string_view bytes) {
  return read_as("ids.csv", bytes, [](const std::string& path) {
    const std::vector<std::string> ids = read_id_list(path);
    std::string text = "row,id\n";
    for (const std::string& id : ids) text += "0," + csv_field(id) + "\n";
    write_text(path, text);
    require(read_id_list(path) == ids, "ids survive CSV");
    return Exit::done;
  });
}

Exit read_text(const Comm&, std::string_view bytes) {
  return read_ids("ids.txt", bytes);
}
Exit read_json(const Comm&, std::string_view bytes) {
  return read_ids("batch.json", bytes);
}
Exit read_batch(const Comm&, std::string_view bytes) {
  return read_ids("batch.h5", bytes);
}

Exit read_config(const Comm&, std::string_view bytes) {
  return read_as("request.toml", bytes, [](const std::string& path) {
    Options options("select", "", "");
    RequestOptions request;
    request.declare(options, true);
    options.parse({"--config", path});
    request.check(options);
    return Exit::done;
  });
}

// Below '!' in the first byte: the rest as it is. Else under a true header, or no fuzzer comes past the checksum.
Exit read_checkpoint(const Comm&, std::string_view bytes) {
  try {
    std::string sealed;
    if (!bytes.empty() && bytes[0] >= '!') {
      bytes.remove_prefix(1);
      const std::string sample = Checkpoint{}.to_bytes();
      constexpr std::size_t checksum_at = 24, content_at = 32;
      const std::uint64_t checksum = XXH3_64bits(bytes.data(), bytes.size());
      sealed = sample.substr(0, content_at).append(bytes);
      sealed.replace(checksum_at, sizeof checksum, reinterpret_cast<const char*>(&checksum), sizeof checksum);
      bytes = sealed;
    }
    const std::string again = Checkpoint::from_bytes(bytes, "checkpoint").to_bytes();
    require(Checkpoint::from_bytes(again, "checkpoint").to_bytes() == again, "a checkpoint survives its file");
    return Exit::done;
  } catch (const Error& error) {
    require(error.code() != Exit::bug, error.what());
    return error.code();
  }
}

constexpr std::array kReaders{
    Reader{"pool", read_pool},
    Reader{"csv", read_csv},
    Reader{"text", read_text},
    Reader{"json", read_json},
    Reader{"batch", read_batch},
    Reader{"config", read_config},
    Reader{"checkpoint", read_checkpoint},
};

}  // namespace

std::span<const Reader> readers() {
  return kReaders;
}

}  // namespace seine::test
