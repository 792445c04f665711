// The few questions that the engine asks a device.
#pragma once
#include <c10/core/Device.h>

#include <cstdint>
#include <exception>
#include <string>

namespace atelier::pipeline {

// What libraries read from the environment of the process: call it before there is a second thread.
void prepare_process();
// Waits for everything queued on the current stream; nothing on the CPU.
void synchronize(c10::Device device);
// Of one GPU in all, of device 0 where none is named; 0 on the CPU.
int64_t memory_bytes(c10::Device device);
// What buffers of other shapes than the one in use may take: a sixteenth of the device's memory, 1 GiB
// on the CPU.
int64_t kept_shapes_bytes(c10::Device device);
// Bytes of tensors now and at most since the last reset, by the allocator; 0 on the CPU.
int64_t allocated_bytes(c10::Device device);
int64_t peak_bytes(c10::Device device);
// The same with what the allocator keeps for later.
int64_t peak_reserved_bytes(c10::Device device);
void reset_peak(c10::Device device);
// Hands unused cached memory back.
void empty_cache(c10::Device device);
// Tensors, and the workspaces of libraries that are asked for beside them, take at most this share of a GPU's
// memory from now on: an allocation above it fails as one where memory is short. CUDA's context and NCCL's
// buffers lie beyond.
void cap_memory(c10::Device device, double fraction);
// Devices of this build and machine.
int cuda_devices();
// "NVIDIA H100 80GB HBM3", or "CPU".
std::string device_name(c10::Device device);
// Compute capability, 90 for 9.0; of device 0 where none is named. 0 on the CPU.
int cuda_capability(c10::Device device);
// Makes the device current for this thread and sets what must be set before the first tensor on it.
void use_device(c10::Device device);
// Whether it says that memory did not suffice, on any device.
bool is_out_of_memory(const std::exception& e);
// What happened, for people: without the call stacks that libtorch adds.
std::string reason_of(const std::exception& e);
enum class Tf32 { kOff, kOn };
void set_tf32(Tf32 mode);

}  // namespace atelier::pipeline
