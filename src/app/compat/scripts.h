// The three SDXL scripts: what their flags mean here, and the GPUs that they name.
#pragma once
#include <cstdint>
#include <filesystem>
#include <vector>

#include "app/settings/resolve.h"

namespace atelier::app {

// Gives the settings that the flags of the scripts stand for their values, and says who set them; nothing on
// other surfaces. Part of resolve. Throws Error(kUsage) where a flag and its setting say different things,
// for settings that have no place here, and for GPUs and seeds that are none or stand there twice.
void settle_scripts(Resolved& resolved);

// Lets this process and its workers see no other GPUs than those that are named, in their order. Call it
// before the first question to a GPU.
void show_gpus(const Resolved& resolved);

// How many ranks draw (num_gpus), and in mode multi what a batch of each of them is (batch_size counts those
// of all). devices: GPUs that may be used. Throws Error(kUsage) for GPUs that are not there.
void settle_workers(Resolved& resolved, int devices);

// Seeds of every prompt; empty on other surfaces.
std::vector<uint64_t> seeds_of(const Resolved& resolved);

// The table of pictures, in the folder above that of the pictures.
std::filesystem::path list_file(const Resolved& resolved);
// The number of the GPU that this rank draws on, as --gpu_ids has it; empty on the CPU.
std::string gpu_of(const Resolved& resolved, bool is_cuda, int rank);

}  // namespace atelier::app
