// One message for all tensors: their description as JSON, then their bytes.
#include "pipeline/leader.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/json.h"
#include "pipeline/device.h"

namespace atelier::pipeline {
namespace {

int64_t rounded_up(int64_t bytes, int64_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

// The bytes of tensors one after another, and what they are.
class Packer {
 public:
  explicit Packer(c10::Device device) : device_(device) {}

  // null for an undefined tensor
  Json add(const at::Tensor& t) {
    if (!t.defined()) return nullptr;
    const auto flat = t.to(device_).contiguous().reshape(-1);
    const auto bytes = static_cast<int64_t>(flat.nbytes()), room = rounded_up(bytes, kTensorUnit);
    if (bytes > 0) parts_.push_back(flat.view(at::kByte));
    if (room > bytes) parts_.push_back(at::zeros({room - bytes}, flat.options().dtype(at::kByte)));
    return {{"sizes", t.sizes().vec()}, {"type", static_cast<int>(t.scalar_type())}};
  }
  at::Tensor bytes() const {
    return parts_.empty() ? at::empty({0}, at::TensorOptions(at::kByte).device(device_)) : at::cat(parts_);
  }

 private:
  c10::Device device_;
  std::vector<at::Tensor> parts_;
};

// Views of the received bytes, in the order in which they were added.
class Unpacker {
 public:
  explicit Unpacker(at::Tensor bytes) : bytes_(std::move(bytes)) {}

  at::Tensor next(const Json& described) {
    if (described.is_null()) return {};
    const auto sizes = described.at("sizes").get<std::vector<int64_t>>();
    const auto type = static_cast<at::ScalarType>(described.at("type").get<int>());
    const int64_t bytes = c10::multiply_integers(sizes) * static_cast<int64_t>(c10::elementSize(type));
    const auto flat = bytes_.narrow(0, at_, bytes);
    at_ += rounded_up(bytes, kTensorUnit);
    if (bytes == 0) return at::empty(sizes, bytes_.options().dtype(type));
    return flat.view(type).view(sizes);
  }

 private:
  at::Tensor bytes_;
  int64_t at_ = 0;
};

Json describe(const Conditionings& branches, Packer& packer) {
  Json all = Json::array();
  for (const auto& b : branches) {
    Json streams = Json::array(), whole = Json::object();
    for (const auto& t : b.streams) streams.push_back(packer.add(t));
    for (const auto& [name, t] : b.whole) whole[name] = packer.add(t);
    all.push_back({{"streams", streams}, {"whole", whole}, {"lengths", b.lengths}, {"guidance", b.guidance}});
  }
  return all;
}

Conditionings restore(const Json& described, Unpacker& unpacker) {
  Conditionings branches;
  for (const auto& b : described) {
    auto& branch = branches.emplace_back();
    for (const auto& t : b.at("streams")) branch.streams.push_back(unpacker.next(t));
    for (const auto& [name, t] : b.at("whole").items()) branch.whole[name] = unpacker.next(t);
    branch.lengths = b.at("lengths").get<std::vector<int64_t>>();
    branch.guidance = b.at("guidance").get<double>();
  }
  return branches;
}

// What `make` gives or throws, as a header: {"branches"} or {"kind", "error"}.
struct Outcome {
  Conditionings branches;
  Json header;
  at::Tensor bytes;

  Outcome(c10::Device device, const std::function<Conditionings()>& make) {
    for (int tries = 2; tries > 0; --tries) {
      try {
        Packer packer(device);
        branches = make();
        header = {{"branches", describe(branches, packer)}};
        bytes = packer.bytes();
        return;
      } catch (const Error& e) {
        fail(device, e.kind(), e.what());
        return;
      } catch (const std::exception& e) {
        const bool short_of_memory = is_out_of_memory(e);
        fail(device, short_of_memory ? Kind::kCapacity : Kind::kItem, reason_of(e));
        if (!short_of_memory) return;
      }
      empty_cache(device);
    }
  }

 private:
  void fail(c10::Device device, Kind kind, const std::string& reason) {
    branches.clear();
    header = {{"kind", static_cast<int>(kind)}, {"error", reason}};
    bytes = at::empty({0}, at::TensorOptions(at::kByte).device(device));
  }
};

// The header and the tensors' bytes of the leader, on every rank.
std::pair<Json, at::Tensor> exchange(comm::Comm& replica, c10::Device device, const Outcome* mine) {
  const auto on_device = at::TensorOptions(at::kByte).device(device);
  auto sizes = at::zeros({2}, at::TensorOptions(at::kLong));
  at::Tensor all;
  if (mine) {
    // A message of the reason may hold bytes that are no text.
    std::string text = mine->header.dump(-1, ' ', false, Json::error_handler_t::replace);
    text.resize(static_cast<size_t>(rounded_up(static_cast<int64_t>(text.size()), kHeaderUnit)), ' ');
    auto header = at::empty({static_cast<int64_t>(text.size())}, at::TensorOptions(at::kByte));
    std::memcpy(header.data_ptr(), text.data(), text.size());
    sizes = at::tensor({header.numel(), mine->bytes.numel()}, at::TensorOptions(at::kLong));
    all = at::cat({header.to(device), mine->bytes});
  }
  auto announced = sizes.to(device);
  replica.broadcast(announced, 0);
  sizes = announced.to(at::kCPU);
  replica.check_alive();  // an aborted broadcast leaves anything there
  const int64_t header_bytes = sizes[0].item<int64_t>(), tensor_bytes = sizes[1].item<int64_t>();
  if (!mine) all = at::empty({header_bytes + tensor_bytes}, on_device);
  replica.broadcast(all, 0);
  const auto text = all.narrow(0, 0, header_bytes).to(at::kCPU).contiguous();
  replica.check_alive();
  const auto* begin = static_cast<const char*>(text.const_data_ptr());
  return {Json::parse(begin, begin + header_bytes), all.narrow(0, header_bytes, tensor_bytes)};
}

}  // namespace

Conditionings from_leader(comm::Comm* replica, c10::Device device,
                          const std::function<Conditionings()>& make) {
  if (!replica) {
    try {
      return make();
    } catch (const RequestError&) {
      throw;
    } catch (const Error& e) {
      throw RequestError(e.kind(), e.what());
    }
  }
  std::optional<Outcome> mine;
  if (replica->rank() == 0) mine.emplace(device, make);
  const auto [header, bytes] = exchange(*replica, device, mine ? &*mine : nullptr);
  if (header.contains("error"))
    throw RequestError(static_cast<Kind>(header.at("kind").get<int>()),
                       header.at("error").get<std::string>());
  if (mine) return std::move(mine->branches);
  Unpacker unpacker(bytes);
  return restore(header.at("branches"), unpacker);
}

}  // namespace atelier::pipeline
