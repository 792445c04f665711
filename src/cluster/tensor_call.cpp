#include "cluster/tensor_call.h"

#include <ATen/ops/from_blob.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cluster/process.h"

namespace atelier::cluster {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(TensorRef, dtype, shape, offset)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(TensorCall, action, memory, latents, timesteps, inputs,
                                                adapters, expert, result, result_bytes)

namespace {

constexpr int64_t kUnit = 16;  // bytes that a tensor begins at a multiple of
constexpr int64_t kMostBytes = int64_t{1} << 40;

at::ScalarType type_of(const std::string& dtype) {
  if (dtype == "float32") return at::kFloat;
  if (dtype == "float16") return at::kHalf;
  if (dtype == "bfloat16") return at::kBFloat16;
  if (dtype == "int64") return at::kLong;
  throw Error(Kind::kUsage,
              str("tensors of type ", dtype, "; float32, float16, bfloat16 and int64 are read"));
}

}  // namespace

int64_t TensorRef::bytes() const {
  int64_t all = static_cast<int64_t>(c10::elementSize(type_of(dtype)));
  for (const int64_t n : shape) {
    if (n < 0 || n > kMostBytes || __builtin_mul_overflow(all, n, &all) || all > kMostBytes)
      throw Error(Kind::kUsage, "a tensor of impossible size");
  }
  return all;
}

Json to_json(const TensorCall& call) {
  Json json;
  to_json(json, call);
  return json;
}

TensorCall tensor_call_from_json(const Json& json) {
  TensorCall call;
  try {
    call = json.get<TensorCall>();
  } catch (const Json::exception& e) {
    throw Error(Kind::kUsage, str("a call that cannot be understood: ", e.what()));
  }
  if (call.action != "predict" && call.action != "decode")
    throw Error(Kind::kUsage, str("unknown action ", call.action, "; there are predict and decode"));
  return call;
}

MappedTensors::MappedTensors(const std::filesystem::path& file) {
  const Descriptor fd(::open(file.c_str(), O_RDWR | O_CLOEXEC));
  struct stat facts = {};
  const bool is_there = fd.get() >= 0 && ::fstat(fd.get(), &facts) == 0 && facts.st_size > 0;
  void* const at = is_there ? ::mmap(nullptr, static_cast<size_t>(facts.st_size), PROT_READ | PROT_WRITE,
                                     MAP_SHARED, fd.get(), 0)
                            : MAP_FAILED;
  if (at == MAP_FAILED)
    throw Error(Kind::kUsage, str("cannot map the tensors' memory file ", file.string(), ": ",
                                  is_there || fd.get() < 0 ? std::strerror(errno) : "it is empty"));
  data_ = static_cast<char*>(at);
  bytes_ = facts.st_size;
}

MappedTensors::~MappedTensors() {
  ::munmap(data_, static_cast<size_t>(bytes_));
}

at::Tensor MappedTensors::view(const TensorRef& ref) const {
  const int64_t bytes = ref.bytes();
  if (ref.offset < 0 || ref.offset % kUnit != 0 || ref.offset > bytes_ || bytes > bytes_ - ref.offset) {
    throw Error(Kind::kUsage, str("a tensor of ", bytes, " bytes at ", ref.offset, " of a memory file of ",
                                  bytes_, " bytes"));
  }
  return at::from_blob(data_ + ref.offset, ref.shape, at::TensorOptions(type_of(ref.dtype)));
}

}  // namespace atelier::cluster
