// What machines can do, as far as a prediction needs it. Rates of the H200 are measured; other GPUs are cited
// peaks of their makers' data sheets times the share of its own peak that the H200 reached.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace atelier::plan {

// One kind of message: a latency, and a rate for what a rank sends, in s and bytes/s.
struct MessageCost {
  double latency = 0, rate = 1;
  double seconds(double bytes) const { return latency + bytes / rate; }
};

// What lies between the GPUs of one host.
struct Links {
  std::string_view name;  // "nvlink", "pcie", "host"
  MessageCost exchange;   // all-to-all; a sum over ranks is two of them
  MessageCost stores = {
      0, 0};           // into another GPU's memory, with the barrier behind them; rate 0: it is out of reach
  MessageCost shift;   // to the next rank, and from the one before
  MessageCost gather;  // of large, contiguous pieces
  int island = 1 << 20;  // GPUs that reach each other at that rate; beyond it half is left
};

struct Hardware {
  std::string_view name;
  std::string_view source;  // of its peaks: "measured", or "cited: ..."
  int64_t memory = 0;       // bytes of one GPU
  int capability = 0;       // compute capability, 90 for 9.0
  double products = 0;      // FLOP/s of large products in 16 bits
  double attention = 0;     // FLOP/s of attention with heads of 128, all multiprocessors busy
  double flash3 = 1;  // attention's rate with FlashAttention-3, of that with cuDNN; 1: it is not for this GPU
  double bandwidth = 0;  // bytes/s of its memory, by kernels that do little else
  int multiprocessors = 1;
  Links links;

  bool has_e4m3() const { return capability >= 89; }  // products of numbers in e4m3
};

// The presets: those of source hardware pages (A100, L40, L20, V100, T4) and the H100 and H200.
std::span<const Hardware> hardware_presets();
// By a preset's name, or by the name that a driver gives ("NVIDIA H200"); null: unknown.
const Hardware* find_hardware(std::string_view name);
// "nvlink", "pcie" or "host" (neither peer to peer nor NVLink: through the host's memory), for this GPU.
// Throws Error(kUsage) with the names.
Links links_named(std::string_view name, const Hardware& of);
// The same links at a measured rate between two GPUs, bytes/s.
Links at_measured_rate(Links links, double rate);

}  // namespace atelier::plan
