// In the place of nccl.cpp where nccl.h was not found.
#include "backend/cuda/nccl.hpp"
#include "seine/error.hpp"

namespace seine {
namespace {

class NoPort final : public DevicePort {
 public:
  explicit NoPort(std::string device) : device_(std::move(device)) {}

  std::string device() const override { return device_; }
  std::string load() override { throw Error(Exit::no_device, "the CUDA plug-in was built without NCCL"); }
  std::vector<std::byte> invitation() override { return {}; }
  std::unique_ptr<DeviceTransport> join(std::span<const std::byte>, int, int, std::function<bool()>) override {
    return nullptr;
  }

 private:
  std::string device_;
};

}  // namespace

std::unique_ptr<DevicePort> make_nccl_port(std::string device, DeviceStream, const std::string&,
                                           std::chrono::milliseconds) {
  return std::make_unique<NoPort>(std::move(device));
}

}  // namespace seine
