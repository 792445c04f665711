// One message for all tensors: their description as JSON, then their bytes.
#include "pipeline/leader.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "pipeline/device.h"

namespace atelier::pipeline {
namespace {

int64_t rounded_up(int64_t bytes, int64_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

// {"lengths", "guidance", "streams": [...], "whole": {...}} of each branch, tensors by sizes and type, null
// if undefined; their bytes go to `parts` in this order.
Json describe(const Conditionings& branches, c10::Device device, std::vector<at::Tensor>& parts) {
  const auto add = [&](const at::Tensor& t) -> Json {
    if (!t.defined()) return nullptr;
    const auto bytes = t.to(device).contiguous().reshape(-1).view(at::kByte);
    parts.push_back(bytes);
    parts.push_back(at::zeros({rounded_up(bytes.numel(), kTensorUnit) - bytes.numel()}, bytes.options()));
    return {{"sizes", t.sizes().vec()}, {"type", static_cast<int>(t.scalar_type())}};
  };
  Json all = Json::array();
  for (const auto& b : branches) {
    Json streams = Json::array(), whole = Json::object();
    for (const auto& t : b.streams) streams.push_back(add(t));
    for (const auto& [name, t] : b.whole) whole[name] = add(t);
    all.push_back({{"lengths", b.lengths}, {"guidance", b.guidance}, {"streams", streams}, {"whole", whole}});
  }
  return all;
}

// The branches again, as views of the bytes.
Conditionings restore(const Json& described, const at::Tensor& bytes) {
  int64_t at = 0;
  const auto next = [&](const Json& d) -> at::Tensor {
    if (d.is_null()) return {};
    const auto sizes = d.at("sizes").get<std::vector<int64_t>>();
    const auto type = static_cast<at::ScalarType>(d.at("type").get<int>());
    const int64_t n = c10::multiply_integers(sizes) * static_cast<int64_t>(c10::elementSize(type)),
                  begin = at;
    at += rounded_up(n, kTensorUnit);
    return bytes.narrow(0, begin, n).view(type).view(sizes);
  };
  Conditionings branches;
  for (const auto& b : described) {
    auto& branch = branches.emplace_back();
    b.at("lengths").get_to(branch.lengths);
    b.at("guidance").get_to(branch.guidance);
    for (const auto& t : b.at("streams")) branch.streams.push_back(next(t));
    for (const auto& [name, t] : b.at("whole").items()) branch.whole[name] = next(t);
  }
  return branches;
}

// {header bytes, bytes of the message}, the message: the header as text, then the tensors.
struct Message {
  at::Tensor sizes, bytes;

  Message() = default;
  Message(const Json& header, std::vector<at::Tensor> parts, c10::Device device) {
    // The message of an exception may hold bytes that are no text.
    std::string text = header.dump(-1, ' ', false, Json::error_handler_t::replace);
    text.resize(static_cast<size_t>(rounded_up(static_cast<int64_t>(text.size()), kHeaderUnit)), ' ');
    auto first = at::empty({static_cast<int64_t>(text.size())}, at::TensorOptions(at::kByte));
    std::memcpy(first.data_ptr(), text.data(), text.size());
    parts.insert(parts.begin(), first.to(device));
    bytes = at::cat(parts);
    sizes = at::tensor({first.numel(), bytes.numel()}, at::TensorOptions(at::kLong)).to(device);
  }
};

// What `make` gives or throws, ready to be sent: nothing behind it can fail on the leader alone.
Message outcome(c10::Device device, const std::function<Conditionings()>& make, Conditionings& made,
                bool tries_again) {
  const auto failure = [&](Kind kind, const std::string& reason) {
    made.clear();
    return Message({{"kind", static_cast<int>(kind)}, {"error", reason}}, {}, device);
  };
  for (bool is_last = !tries_again;; is_last = true) {
    try {
      made = make();
      std::vector<at::Tensor> parts;
      const Json branches = describe(made, device, parts);
      return {{{"branches", branches}}, parts, device};
    } catch (const Error& e) {
      return failure(e.kind(), e.what());
    } catch (const std::exception& e) {
      if (!is_out_of_memory(e)) return failure(Kind::kItem, reason_of(e));
      if (is_last) return failure(Kind::kCapacity, reason_of(e));
    }
    empty_cache(device);  // here, where the exception and what it kept alive are gone
  }
}

// Header and tensors of the leader's message, on every rank.
std::pair<Json, at::Tensor> exchange(comm::Comm& replica, c10::Device device, Message message) {
  const auto options = at::TensorOptions(at::kByte).device(device);
  if (!message.sizes.defined()) message.sizes = at::zeros({2}, options.dtype(at::kLong));
  replica.broadcast(message.sizes, 0);
  const auto sizes = message.sizes.to(at::kCPU);
  replica.check_alive();  // an aborted broadcast leaves anything there
  const int64_t header = sizes[0].item<int64_t>(), all = sizes[1].item<int64_t>();
  if (!message.bytes.defined()) message.bytes = at::empty({all}, options);
  replica.broadcast(message.bytes, 0);
  const auto text = message.bytes.narrow(0, 0, header).to(at::kCPU);
  replica.check_alive();
  const auto* begin = static_cast<const char*>(text.const_data_ptr());
  return {Json::parse(begin, begin + header), message.bytes.narrow(0, header, all - header)};
}

// What every rank gets of the leader's message; `made`: the leader's own.
Conditionings settled(comm::Comm& replica, c10::Device device, Message message, Conditionings& made) {
  const auto [header, bytes] = exchange(replica, device, std::move(message));
  if (header.contains("error"))
    throw RequestError(static_cast<Kind>(header.at("kind").get<int>()),
                       header.at("error").get<std::string>());
  return replica.rank() == 0 ? std::move(made) : restore(header.at("branches"), bytes);
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
  Conditionings made;
  return settled(*replica, device, replica->rank() == 0 ? outcome(device, make, made, true) : Message(),
                 made);
}

Conditionings from_all(comm::Comm& replica, c10::Device device, const std::function<Conditionings()>& make) {
  Conditionings made;
  if (replica.rank() == 0) return settled(replica, device, outcome(device, make, made, false), made);
  try {
    make();
  } catch (const Error&) {  // the leader meets the same and tells it
  }
  return settled(replica, device, {}, made);
}

}  // namespace atelier::pipeline
