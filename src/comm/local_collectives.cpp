// The collectives of a local group, once every rank has called: do the calls fit, and the copying itself.
#include <cstring>

#include "base/error.h"
#include "base/partition.h"
#include "comm/checked.h"
#include "comm/local_group.h"
#include "comm/sum.h"

namespace atelier::comm {
namespace {

char* bytes(const at::Tensor& tensor) {
  return static_cast<char*>(tensor.data_ptr());
}

void copy(char* to, const char* from, int64_t count) {
  if (count > 0) std::memcpy(to, from, static_cast<size_t>(count));
}

std::string misfit_tensors(int rank, const at::Tensor& first, const at::Tensor& other) {
  if (first.defined() != other.defined()) return str("rank ", rank, " passes other tensors than rank 0");
  if (first.defined() && first.scalar_type() != other.scalar_type()) {
    return str("rank ", rank, " passes ", c10::toString(other.scalar_type()), ", rank 0 ",
               c10::toString(first.scalar_type()));
  }
  return "";
}

std::string misfit_splits(const std::vector<LocalCall>& calls) {
  const int size = static_cast<int>(calls.size());
  for (int from = 0; from < size; ++from) {
    for (int to = 0; to < size; ++to) {
      const int64_t sent =
          calls[from].verb == "all_gather" ? calls[from].in.numel() : calls[from].in_split[to];
      const int64_t expected = calls[to].out_split[from];
      if (sent != expected) {
        return str("rank ", from, " sends ", sent, " elements, rank ", to, " expects ", expected);
      }
    }
  }
  return "";
}

void reduce(const std::vector<LocalCall>& calls) {
  const auto& first = calls[0].out;
  std::vector<const void*> parts;
  for (const auto& call : calls) parts.push_back(call.out.data_ptr());
  add_parts(first.data_ptr(), parts, first.numel(), first.scalar_type());
  for (size_t r = 1; r < calls.size(); ++r) {
    copy(bytes(calls[r].out), bytes(first), static_cast<int64_t>(first.nbytes()));
  }
}

void exchange(const std::vector<LocalCall>& calls) {
  for (size_t to = 0; to < calls.size(); ++to) {
    const auto out_begin = offsets(calls[to].out_split);
    for (size_t from = 0; from < calls.size(); ++from) {
      const int64_t width = calls[from].in.element_size();
      const int64_t in_begin = calls[from].verb == "all_gather" ? 0 : offsets(calls[from].in_split)[to];
      copy(bytes(calls[to].out) + out_begin[from] * width, bytes(calls[from].in) + in_begin * width,
           calls[to].out_split[from] * width);
    }
  }
}

}  // namespace

std::string misfit(const std::vector<LocalCall>& calls) {
  const auto& first = calls[0];
  for (int r = 1; r < static_cast<int>(calls.size()); ++r) {
    const auto& call = calls[r];
    if (call.verb != first.verb) return str("rank ", r, " calls ", call.verb, ", rank 0 ", first.verb);
    if (call.number != first.number) return str("rank ", r, " says ", call.number, ", rank 0 ", first.number);
    if (auto found = misfit_tensors(r, first.out, call.out); !found.empty()) return found;
    if (auto found = misfit_tensors(r, first.in, call.in); !found.empty()) return found;
    const bool is_equal_sized = first.verb == "all_reduce" || first.verb == "broadcast";
    if (is_equal_sized && call.out.numel() != first.out.numel()) {
      return str("rank ", r, " passes ", call.out.numel(), " elements, rank 0 ", first.out.numel());
    }
  }
  return first.out_split.empty() ? "" : misfit_splits(calls);
}

void perform(const std::vector<LocalCall>& calls) {
  const auto& first = calls[0];
  if (first.verb == "all_reduce") reduce(calls);
  if (!first.out_split.empty()) exchange(calls);
  if (first.verb == "broadcast") {
    const auto& source = calls[first.number].out;
    for (const auto& call : calls) {
      if (call.out.data_ptr() != source.data_ptr()) {
        copy(bytes(call.out), bytes(source), static_cast<int64_t>(source.nbytes()));
      }
    }
  }
}

}  // namespace atelier::comm
