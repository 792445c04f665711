#include "comm/cuda_window.h"

#include <ATen/cuda/CUDAEvent.h>
#include <ATen/ops/from_blob.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstring>
#include <optional>
#include <random>

#include "base/check.h"
#include "base/error.h"
#include "base/files.h"
#include "kernels/window_barrier.h"

namespace atelier::comm {
namespace {

// Whole pages of the device: CUDA opens nothing smaller, and what else lay in one would be open too.
constexpr int64_t kPage = 2 << 20;
constexpr int64_t kPadBytes = 4096;  // before the window's own bytes: the barrier's words

// What the others must know of a rank's memory. Plain bytes.
struct Offer {
  char host[HOST_NAME_MAX + 1 + 64] = "";
  uint64_t process = 0;  // a token: containers of one host may give several processes one number
  int device = -1;
  int64_t bytes = 0;
  void* address = nullptr;  // null: this rank cannot take part
  cudaIpcMemHandle_t handle = {};
};

std::string bytes_of(const Offer& offer) {
  return {reinterpret_cast<const char*>(&offer), sizeof offer};
}

Offer offer_of(const std::string& bytes) {
  Offer offer;
  if (bytes.size() == sizeof offer) std::memcpy(&offer, bytes.data(), sizeof offer);
  return offer;
}

uint64_t this_process() {
  static const uint64_t token = [] {
    std::random_device random;
    return uint64_t{random()} << 32 | random();
  }();
  return token;
}

// One name per running machine, also where containers share a host name.
std::string host_text() {
  char name[HOST_NAME_MAX + 1] = "";
  gethostname(name, sizeof name - 1);
  std::string boot;
  try {
    boot = read_file("/proc/sys/kernel/random/boot_id");
  } catch (const Error&) {
  }
  return str(name, " ", boot);
}

// A rank's memory as this process sees it.
class Mapping {
 public:
  Mapping(void* address, bool is_opened) : address_(static_cast<char*>(address)), is_opened_(is_opened) {}
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  // At exit the driver may be gone already: errors do not matter here.
  ~Mapping() {
    if (is_opened_) static_cast<void>(cudaIpcCloseMemHandle(address_));
  }
  uint32_t* pad() const { return reinterpret_cast<uint32_t*>(address_); }
  void* data() const { return address_ + kPadBytes; }

 private:
  char* address_;
  bool is_opened_;
};

// This rank's own memory.
class Memory {
 public:
  // No address where there is no memory: the other ranks are told so.
  Memory(int64_t bytes, c10::Device device) : device_(device) {
    const auto size = static_cast<size_t>((bytes + kPadBytes + kPage - 1) / kPage * kPage);
    if (cudaMalloc(&address_, size) != cudaSuccess) {
      static_cast<void>(cudaGetLastError());
      c10::cuda::CUDACachingAllocator::emptyCache();  // torch may keep what it does not use
      if (cudaMalloc(&address_, size) != cudaSuccess) address_ = nullptr;
    }
    const bool is_zero = address_ && cudaMemset(address_, 0, size) == cudaSuccess;
    if (cudaDeviceSynchronize() != cudaSuccess || !is_zero) release();
    static_cast<void>(cudaGetLastError());
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() { release(); }
  void* address() const { return address_; }

 private:
  void release() {
    const c10::cuda::OptionalCUDAGuard guard(device_);
    if (address_) static_cast<void>(cudaFree(address_));
    address_ = nullptr;
  }

  c10::Device device_;
  void* address_ = nullptr;
};

Offer make_offer(const Memory& memory, c10::Device device, int64_t bytes) {
  Offer offer;
  const auto host = host_text();
  std::memcpy(offer.host, host.data(), std::min(host.size(), sizeof offer.host - 1));
  offer.process = this_process();
  offer.device = device.index();
  offer.bytes = bytes;
  const bool is_open =
      memory.address() && cudaIpcGetMemHandle(&offer.handle, memory.address()) == cudaSuccess;
  offer.address = is_open ? memory.address() : nullptr;
  static_cast<void>(cudaGetLastError());
  return offer;
}

// The peer's memory here, or null.
std::unique_ptr<Mapping> open(const Offer& peer, c10::Device device) {
  void* address = nullptr;
  bool is_open = false;
  if (peer.process == this_process()) {  // another thread's: its addresses are ours
    const auto access =
        peer.device == device.index() ? cudaSuccess : cudaDeviceEnablePeerAccess(peer.device, 0);
    is_open = access == cudaSuccess || access == cudaErrorPeerAccessAlreadyEnabled;
    address = peer.address;
  } else {
    is_open = cudaIpcOpenMemHandle(&address, peer.handle, cudaIpcMemLazyEnablePeerAccess) == cudaSuccess;
  }
  static_cast<void>(cudaGetLastError());
  return is_open ? std::make_unique<Mapping>(address, peer.process != this_process()) : nullptr;
}

// What a stream of its own does for a window.
class CopyWork : public Work::Impl {
 public:
  CopyWork(c10::cuda::CUDAStream stream, c10::Device device) : device_(device) { done_.record(stream); }
  void wait() override { done_.block(c10::cuda::getCurrentCUDAStream(device_.index())); }

 private:
  c10::Device device_;
  at::cuda::CUDAEvent done_;
};

class CudaWindow : public Window {
 public:
  CudaWindow(int rank, c10::Device device, int64_t bytes, std::unique_ptr<Memory> memory,
             std::vector<std::unique_ptr<Mapping>> peers, std::shared_ptr<WindowAbort> abort)
      : rank_(rank),
        device_(device),
        bytes_(bytes),
        memory_(std::move(memory)),
        peers_(std::move(peers)),
        abort_(std::move(abort)) {}
  // Nothing that this rank has queued may touch memory that is no longer mapped.
  ~CudaWindow() override {
    const c10::cuda::OptionalCUDAGuard guard(device_);
    static_cast<void>(cudaDeviceSynchronize());
  }

  at::Tensor local() const override { return peer(rank_); }
  at::Tensor peer(int rank) const override {
    // Said, because a thread's memory may lie on another device, which this one reaches as its own.
    return at::from_blob(
        peers_.at(static_cast<size_t>(rank))->data(), {bytes_}, [](void*) {},
        at::TensorOptions(at::kByte).device(device_), device_);
  }
  Work start_copies(std::span<const Range> bytes) override {
    const c10::cuda::CUDAGuard guard(device_);
    at::cuda::CUDAEvent queued;
    queued.record(c10::cuda::getCurrentCUDAStream(device_.index()));
    if (!side_) side_ = c10::cuda::getStreamFromPool(false, device_.index());
    queued.block(*side_);
    copy(bytes);
    return Work(std::make_unique<CopyWork>(*side_, device_));
  }

 protected:
  void meet() override {
    if (abort_->is_set()) throw Error(Kind::kPeer, "a window's group was aborted");
    const c10::cuda::CUDAGuard guard(device_);
    kernels::BarrierPads pads;
    for (size_t r = 0; r < peers_.size(); ++r) pads.pads[r] = peers_[r]->pad();
    kernels::window_barrier({true, c10::cuda::getCurrentCUDAStream(device_.index()).stream()}, pads, rank_,
                            static_cast<int>(peers_.size()), abort_->on_device());
  }

 private:
  // The neighbour first: at any time every rank is written to by one other.
  void copy(std::span<const Range> bytes) const {
    const auto size = static_cast<int>(peers_.size());
    const auto* from = static_cast<const char*>(peers_[static_cast<size_t>(rank_)]->data());
    for (int step = 1; step < size; ++step) {
      auto* to = static_cast<char*>(peers_[static_cast<size_t>((rank_ + step) % size)]->data());
      for (const Range part : bytes) {
        ENSURE(part.begin >= 0 && part.size >= 0 && part.end() <= bytes_);
        if (part.size == 0) continue;
        C10_CUDA_CHECK(cudaMemcpyAsync(to + part.begin, from + part.begin, static_cast<size_t>(part.size),
                                       cudaMemcpyDeviceToDevice, side_->stream()));
      }
    }
  }

  int rank_;
  c10::Device device_;
  int64_t bytes_;
  std::unique_ptr<Memory> memory_;
  std::vector<std::unique_ptr<Mapping>> peers_;
  std::shared_ptr<WindowAbort> abort_;
  std::optional<c10::cuda::CUDAStream> side_;
};

}  // namespace

WindowAbort::WindowAbort() {
  void* pinned = nullptr;
  C10_CUDA_CHECK(cudaHostAlloc(&pinned, sizeof(int), cudaHostAllocPortable));
  flag_ = static_cast<int*>(pinned);
  *flag_ = 0;
}

WindowAbort::~WindowAbort() {
  static_cast<void>(cudaFreeHost(const_cast<int*>(flag_)));
}

std::unique_ptr<Window> open_cuda_window(
    int rank, int size, c10::Device device, int64_t bytes, std::shared_ptr<WindowAbort> abort,
    const std::function<std::vector<std::string>(const std::string&)>& exchange) {
  ENSURE(bytes > 0);
  if (size > kernels::kMaxBarrierRanks) return nullptr;  // on every rank alike
  const c10::cuda::CUDAGuard guard(device);
  auto memory = std::make_unique<Memory>(bytes, device);
  const auto mine = make_offer(*memory, device, bytes);
  std::vector<std::unique_ptr<Mapping>> peers;
  for (const auto& word : exchange(bytes_of(mine))) {
    const auto offer = offer_of(word);
    const bool is_near = offer.address && offer.bytes == bytes && std::strcmp(offer.host, mine.host) == 0;
    const bool is_self = std::ssize(peers) == rank;
    if (is_self) peers.push_back(std::make_unique<Mapping>(memory->address(), false));
    if (!is_self) peers.push_back(is_near && mine.address ? open(offer, device) : nullptr);
  }
  const bool is_open =
      mine.address && std::all_of(peers.begin(), peers.end(), [](const auto& p) { return p != nullptr; });
  const auto verdicts = exchange(is_open ? "open" : "closed");
  if (std::any_of(verdicts.begin(), verdicts.end(), [](auto& v) { return v != "open"; })) return nullptr;
  return std::make_unique<CudaWindow>(rank, device, bytes, std::move(memory), std::move(peers),
                                      std::move(abort));
}

}  // namespace atelier::comm
