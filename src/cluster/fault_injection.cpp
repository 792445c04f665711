#include "cluster/fault_injection.h"

#include <c10/util/Exception.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <stdexcept>
#include <utility>
#include <vector>

#include "base/error.h"

namespace atelier::cluster {
namespace {

constexpr std::array<std::pair<std::string_view, Fault::Phase>, 5> kPhases{{{"load", Fault::Phase::kLoad},
                                                                            {"encode", Fault::Phase::kEncode},
                                                                            {"step", Fault::Phase::kStep},
                                                                            {"decode", Fault::Phase::kDecode},
                                                                            {"write", Fault::Phase::kWrite}}};
constexpr std::array<std::pair<std::string_view, Fault::Manner>, 5> kManners{
    {{"kill", Fault::Manner::kKill},
     {"hang", Fault::Manner::kHang},
     {"stop", Fault::Manner::kStop},
     {"oom", Fault::Manner::kOom},
     {"throw", Fault::Manner::kThrow}}};

[[noreturn]] void refuse(std::string_view text) {
  throw Error(Kind::kUsage, str("ATELIER_FAULT=", text,
                                " is not rank:phase[:n]:kind[:always]; phases: load, encode, "
                                "step, decode, write; kinds: kill, hang, stop, oom, throw"));
}

std::vector<std::string_view> split(std::string_view text) {
  std::vector<std::string_view> words;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(':', begin), text.size());
    words.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return words;
}

std::optional<int> number(std::string_view word) {
  int value = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  if (error != std::errc() || end != word.data() + word.size() || value < 0) return std::nullopt;
  return value;
}

template <class Table>
auto find(const Table& table, std::string_view word, std::string_view text) {
  for (const auto& [name, value] : table) {
    if (name == word) return value;
  }
  refuse(text);
}

[[noreturn]] void hang() {
  for (;;) ::pause();
}

}  // namespace

Fault Fault::parse(std::string_view text) {
  auto words = split(text);
  Fault fault;
  if (words.size() > 3 && words.back() == "always") {
    fault.is_lasting = true;
    words.pop_back();
  }
  const auto rank = number(words[0]);
  if (words.size() < 3 || words.size() > 4 || !rank) refuse(text);
  fault.rank = *rank;
  fault.phase = find(kPhases, words[1], text);
  if (words.size() == 4) {
    const auto count = number(words[2]);
    if (!count) refuse(text);
    fault.count = *count;
  }
  fault.manner = find(kManners, words.back(), text);
  return fault;
}

FaultPlan::FaultPlan(const char* text, int rank, int start) {
  if (!text || !*text) return;
  const Fault fault = Fault::parse(text);
  if (fault.rank == rank && (start == 0 || fault.is_lasting)) fault_ = fault;
}

void FaultPlan::reach(Fault::Phase phase) {
  if (!fault_ || fault_->phase != phase || fault_->count-- != 0) return;
  switch (fault_->manner) {
    case Fault::Manner::kKill:
      ::raise(SIGKILL);
      break;
    case Fault::Manner::kHang:
      hang();
    case Fault::Manner::kStop:
      ::raise(SIGSTOP);
      break;
    case Fault::Manner::kOom:
      C10_THROW_ERROR(OutOfMemoryError, "out of memory, injected by ATELIER_FAULT");
    case Fault::Manner::kThrow:
      throw std::runtime_error("injected by ATELIER_FAULT");
  }
}

}  // namespace atelier::cluster
