/* A management library for tests: two GPUs joined by NVLink, a third one behind the other socket that no GPU reads.
 * FAKE_NVML=noinit: it does not start. FAKE_NVML=nocounters: counters of links cannot be read, as in many virtual
 * machines. FAKE_NVML=perlink: they can be read link by link only. */
#include <stdlib.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

struct memory { unsigned long long total, free, used; };
struct load { unsigned gpu, memory; };
struct pci { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; };
struct field { unsigned field, scope; long long time, latency; int type, status; unsigned long long value; };

enum { kOk = 0, kUnsupported = 3, kUnknown = 999, kGpus = 3, kLinks = 18 };

static char gpus[kGpus];
static int is(const char* mode) {
  const char* set = getenv("FAKE_NVML");
  return set && strcmp(set, mode) == 0;
}
static int number(void* device) { return (int)((char*)device - gpus); }
static int write_text(char* to, unsigned size, const char* text) {
  if (strlen(text) + 1 > size) return kUnknown;
  strcpy(to, text);
  return kOk;
}

int nvmlInit_v2(void) { return is("noinit") ? 9 : kOk; }
int nvmlShutdown(void) { return kOk; }
const char* nvmlErrorString(int status) { return status == 9 ? "Driver Not Loaded" : "another error"; }
int nvmlSystemGetDriverVersion(char* to, unsigned size) { return write_text(to, size, "580.65.06"); }
int nvmlSystemGetCudaDriverVersion_v2(int* to) { return *to = 13000, kOk; }
int nvmlDeviceGetCount_v2(unsigned* to) { return *to = kGpus, kOk; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void** to) {
  if (i >= kGpus) return 2;
  return *to = &gpus[i], kOk;
}
int nvmlDeviceGetName(void* d, char* to, unsigned size) {
  return write_text(to, size, number(d) == 2 ? "Tesla V100-SXM2-32GB" : "NVIDIA H200");
}
int nvmlDeviceGetUUID(void* d, char* to, unsigned size) { return (void)d, write_text(to, size, "GPU-fake"); }
int nvmlDeviceGetPciInfo_v3(void* d, struct pci* to) {
  memset(to, 0, sizeof *to);
  to->bus = 16u + (unsigned)number(d);
  strcpy(to->bus_id, "00000000:10:00.0");
  to->bus_id[10] = (char)('0' + number(d));
  return kOk;
}
int nvmlDeviceGetCudaComputeCapability(void* d, int* major, int* minor) {
  return *major = number(d) == 2 ? 7 : 9, *minor = 0, kOk;
}
int nvmlDeviceGetMemoryInfo(void* d, struct memory* to) {
  to->total = (number(d) == 2 ? 32ull : 141ull) << 30;
  to->used = (unsigned long long)(number(d) + 1) << 30;
  to->free = to->total - to->used;
  return kOk;
}
int nvmlDeviceGetUtilizationRates(void* d, struct load* to) {
  return to->gpu = 90u - 10u * (unsigned)number(d), to->memory = 25, kOk;
}
int nvmlDeviceGetPowerUsage(void* d, unsigned* to) { return (void)d, *to = 612500, kOk; }
int nvmlDeviceGetEnforcedPowerLimit(void* d, unsigned* to) { return (void)d, *to = 700000, kOk; }
int nvmlDeviceGetClockInfo(void* d, int kind, unsigned* to) { return (void)d, *to = kind == 1 ? 1755 : 0, kOk; }
int nvmlDeviceGetMaxClockInfo(void* d, int kind, unsigned* to) { return (void)d, *to = kind == 1 ? 1980 : 0, kOk; }

int nvmlDeviceGetFieldValues(void* d, int count, struct field* values) {
  for (int i = 0; i < count; ++i) {
    const int can = !is("nocounters") && number(d) < 2 && (values[i].scope < 2 || (values[i].scope == ~0u && !is("perlink")));
    values[i].status = can ? kOk : kUnsupported;
    const unsigned long long one = values[i].field == 138 ? 1000 : 2000; /* KiB of a link */
    values[i].value = values[i].scope == ~0u ? 2 * one : one;
  }
  return kOk;
}
int nvmlDeviceGetNvLinkState(void* d, unsigned link, unsigned* to) {
  if (number(d) == 2 || link >= kLinks) return kUnsupported;
  return *to = link < 2, kOk;
}
int nvmlDeviceGetNvLinkRemotePciInfo_v2(void* d, unsigned link, struct pci* to) {
  (void)link;
  return nvmlDeviceGetPciInfo_v3(&gpus[1 - number(d)], to);
}
int nvmlDeviceGetP2PStatus(void* a, void* b, unsigned kind, int* to) {
  (void)kind;
  return *to = number(a) == 2 || number(b) == 2 ? 1 : kOk, kOk;
}
int nvmlDeviceGetTopologyCommonAncestor(void* a, void* b, int* to) {
  return *to = number(a) == 2 || number(b) == 2 ? 50 : 20, kOk;
}

#ifdef __cplusplus
}
#endif
