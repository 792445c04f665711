// A group that hands every verb to another: what planted faults change one verb of.
#pragma once
#include <functional>
#include <memory>
#include <utility>

#include "comm/comm.h"

namespace atelier::parallel::testing {

struct PassedOn : comm::Comm {
  comm::Comm& inner;
  explicit PassedOn(comm::Comm& group) : inner(group) {}
  int rank() const override { return inner.rank(); }
  int size() const override { return inner.size(); }
  std::string_view name() const override { return inner.name(); }
  comm::Work all_reduce(at::Tensor& sum) override { return inner.all_reduce(sum); }
  comm::Work all_gather(at::Tensor& out, const at::Tensor& mine, std::span<const int64_t> split) override {
    return inner.all_gather(out, mine, split);
  }
  comm::Work all_to_all(at::Tensor& out, const at::Tensor& in, std::span<const int64_t> out_split,
                        std::span<const int64_t> in_split) override {
    return inner.all_to_all(out, in, out_split, in_split);
  }
  comm::Work send_recv(const at::Tensor& out, int to, at::Tensor& in, int from) override {
    return inner.send_recv(out, to, in, from);
  }
  comm::Work send(const at::Tensor& out, int to) override { return inner.send(out, to); }
  comm::Work recv(at::Tensor& in, int from) override { return inner.recv(in, from); }
  void broadcast(at::Tensor& value, int root) override { inner.broadcast(value, root); }
  void barrier() override { inner.barrier(); }
  std::unique_ptr<comm::Window> window(int64_t bytes) override { return inner.window(bytes); }
  void wait_at_once() override { inner.wait_at_once(); }
  void abort() noexcept override { inner.abort(); }
  void check_alive() override { inner.check_alive(); }
};

// A group whose windows are changed, and whose exchanges are counted.
struct WindowsChanged : PassedOn {
  using WindowChange = std::function<std::unique_ptr<comm::Window>(std::unique_ptr<comm::Window>)>;
  WindowChange change;
  int messages = 0;
  WindowsChanged(comm::Comm& group, WindowChange how) : PassedOn(group), change(std::move(how)) {}
  std::unique_ptr<comm::Window> window(int64_t bytes) override { return change(inner.window(bytes)); }
  comm::Work all_to_all(at::Tensor& out, const at::Tensor& in, std::span<const int64_t> out_split,
                        std::span<const int64_t> in_split) override {
    ++messages;
    return PassedOn::all_to_all(out, in, out_split, in_split);
  }
};

}  // namespace atelier::parallel::testing
