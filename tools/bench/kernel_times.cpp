// Times of a program's GPU kernels, added up by name, from within CUDA graphs too: a library that CUDA loads by itself.
//   c++ -std=c++20 -O1 -shared -fPIC -I CUDA/include tools/bench/kernel_times.cpp -o kernel_times.so
//   CUDA_INJECTION64_PATH=$PWD/kernel_times.so KERNEL_TIMES=PREFIX atelier bench ...
// Each process writes PREFIX.PID: a line per kernel or copy, "microseconds <tab> calls <tab> name", the longest first.
// tools/bench/kernel_times.py makes a result file of them. CUPTI, the interface of profilers, comes with torch.
// With KERNEL_TIMELINE=1 also PREFIX.PID.line: "begin <space> length <space> stream <space> name" in nanoseconds, for
// tools/bench/exchange.py.
#include <cupti.h>
#include <cxxabi.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace {

struct Total {
  long calls = 0;
  double microseconds = 0;
};

struct Totals {
  std::mutex mutex;
  std::map<std::string, Total> by_name;
};
// Never destroyed: CUPTI's threads may come back at exit.
Totals& totals() {
  static auto* const all = new Totals;
  return *all;
}

std::string path_of_process() {
  return std::string(std::getenv("KERNEL_TIMES")) + "." + std::to_string(getpid());
}

std::FILE* timeline() {
  static std::FILE* const file =
      std::getenv("KERNEL_TIMELINE") && std::getenv("KERNEL_TIMES") ? std::fopen((path_of_process() + ".line").c_str(), "w") : nullptr;
  return file;
}

template <class Record>
void add(const char* name, const CUpti_Activity* activity) {
  const auto* record = reinterpret_cast<const Record*>(activity);
  if (std::FILE* file = timeline()) {
    std::fprintf(file, "%llu %llu %u %s\n", static_cast<unsigned long long>(record->start),
                 static_cast<unsigned long long>(record->end - record->start), record->streamId, name);
  }
  Total& total = totals().by_name[name];
  ++total.calls;
  total.microseconds += static_cast<double>(record->end - record->start) / 1e3;
}

std::string readable(const std::string& name) {
  int status = 0;
  char* text = abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status);
  const std::string out = status == 0 ? text : name;
  std::free(text);
  return out;
}

void write() {
  if (std::getenv("KERNEL_TIMES") == nullptr) return;
  const std::lock_guard lock(totals().mutex);
  std::vector<std::pair<std::string, Total>> rows(totals().by_name.begin(), totals().by_name.end());
  std::sort(rows.begin(), rows.end(),
            [](const auto& a, const auto& b) { return a.second.microseconds > b.second.microseconds; });
  if (std::FILE* file = timeline()) std::fflush(file);
  if (std::FILE* file = rows.empty() ? nullptr : std::fopen(path_of_process().c_str(), "w")) {
    for (const auto& [name, total] : rows)
      std::fprintf(file, "%.1f\t%ld\t%s\n", total.microseconds, total.calls, readable(name).c_str());
    std::fclose(file);
  }
}

void CUPTIAPI give_buffer(uint8_t** buffer, size_t* size, size_t* most_records) {
  *size = size_t{8} << 20;
  *buffer = static_cast<uint8_t*>(std::aligned_alloc(8, *size));
  *most_records = 0;
}

void CUPTIAPI take_buffer(CUcontext, uint32_t, uint8_t* buffer, size_t, size_t valid) {
  {
    const std::lock_guard lock(totals().mutex);
    for (CUpti_Activity* a = nullptr; cuptiActivityGetNextRecord(buffer, valid, &a) == CUPTI_SUCCESS;) {
      if (a->kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL)
        add<CUpti_ActivityKernel9>(reinterpret_cast<CUpti_ActivityKernel9*>(a)->name, a);
      if (a->kind == CUPTI_ACTIVITY_KIND_MEMCPY) add<CUpti_ActivityMemcpy5>("copy", a);
      if (a->kind == CUPTI_ACTIVITY_KIND_MEMSET) add<CUpti_ActivityMemset4>("fill", a);
    }
  }
  std::free(buffer);
  write();  // worker processes end without a word
}

}  // namespace

extern "C" int InitializeInjection() {
  totals();
  cuptiActivityRegisterCallbacks(give_buffer, take_buffer);
  for (const auto kind :
       {CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL, CUPTI_ACTIVITY_KIND_MEMCPY, CUPTI_ACTIVITY_KIND_MEMSET})
    cuptiActivityEnable(kind);
  constexpr uint32_t kMilliseconds = 1000;
  cuptiActivityFlushPeriod(kMilliseconds);
  std::atexit([] { cuptiActivityFlushAll(1); });
  return 1;
}
