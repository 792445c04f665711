// c10d's symmetric memory behind Window.
#include "comm/nccl_window.h"

#include <unistd.h>

#include <chrono>
#include <climits>
#include <optional>
#include <torch/csrc/distributed/c10d/GroupRegistry.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/symm_mem/SymmetricMemory.hpp>
#include <utility>

#include "base/check.h"
#include "base/error.h"

namespace atelier::comm {

namespace symmetric = c10d::symmetric_memory;

// rendezvous() exchanges data under keys "<what>/<sequence>/<rank>", where the sequence counts all exchanges
// of the process, whatever their group: ranks that are members of different groups would wait for keys that
// nobody writes. Here the sequence counts from the start of each window.
class WindowStore : public c10d::PrefixStore {
 public:
  explicit WindowStore(c10::intrusive_ptr<c10d::Store> store) : PrefixStore("window", std::move(store)) {}
  void start(int64_t window) {
    window_ = window;
    first_.reset();
  }

  using PrefixStore::set;
  void set(const std::string& key, const std::vector<uint8_t>& value) override {
    PrefixStore::set(common(key), value);
  }
  std::vector<uint8_t> get(const std::string& key) override { return PrefixStore::get(common(key)); }
  void wait(const std::vector<std::string>& keys) override { PrefixStore::wait(common(keys)); }
  void wait(const std::vector<std::string>& keys, const std::chrono::milliseconds& timeout) override {
    PrefixStore::wait(common(keys), timeout);
  }

 private:
  std::string common(const std::string& key) {
    const auto rank_at = key.rfind('/');
    const auto sequence_at =
        rank_at == std::string::npos || rank_at == 0 ? rank_at : key.rfind('/', rank_at - 1);
    if (sequence_at == std::string::npos) return key;
    const auto digits = key.substr(sequence_at + 1, rank_at - sequence_at - 1);
    if (digits.empty() || digits.find_first_not_of("0123456789") != std::string::npos) return key;
    const int64_t sequence = std::stoll(digits);
    if (!first_) first_ = sequence;
    return str(key.substr(0, sequence_at), "/", window_, "/", sequence - *first_, key.substr(rank_at));
  }
  std::vector<std::string> common(std::vector<std::string> keys) {
    for (auto& key : keys) key = common(key);
    return keys;
  }

  int64_t window_ = 0;
  std::optional<int64_t> first_;
};

namespace {

class NcclWindow : public Window {
 public:
  NcclWindow(at::Tensor memory, c10::intrusive_ptr<symmetric::SymmetricMemory> handle)
      : memory_(std::move(memory)), handle_(std::move(handle)), peers_(handle_->get_buffer_ptrs()) {}
  std::span<void* const> peers() const override { return peers_; }
  void barrier(int channel) override { handle_->barrier(channel, /*timeout_ms=*/0); }

 private:
  at::Tensor memory_;
  c10::intrusive_ptr<symmetric::SymmetricMemory> handle_;
  std::vector<void*> peers_;
};

std::string host_name() {
  char name[HOST_NAME_MAX + 1] = "";
  return gethostname(name, sizeof name) == 0 ? name : "";
}

}  // namespace

SymmetricMemory::SymmetricMemory(const c10::intrusive_ptr<c10d::Backend>& nccl,
                                 const c10::intrusive_ptr<c10d::Store>& store, const GroupPlace& place)
    : store_(c10::make_intrusive<WindowStore>(store)),
      rank_(place.rank),
      size_(static_cast<int>(place.key.ranks.size())) {
  // Known within this process only, and for ever: libtorch never forgets a group's info.
  name_ = str(place.key.name, "@", std::chrono::steady_clock::now().time_since_epoch().count());
  const auto group = c10::make_intrusive<c10d::ProcessGroup>(store_, rank_, size_);
  group->setBackend(c10::kCUDA, c10d::ProcessGroup::BackendType::NCCL, nccl);
  group->setDefaultBackend(c10d::ProcessGroup::BackendType::NCCL);
  c10d::register_process_group(name_, group);
  symmetric::set_group_info(name_, rank_, size_, store_);
}

SymmetricMemory::~SymmetricMemory() {
  windows_.clear();
  c10d::unregister_process_group(name_);
}

bool SymmetricMemory::all_say(const std::string& mine, const std::string& question) {
  const auto key = [&](int r) { return str(question, " of ", asked_, " by ", r); };
  try {
    const std::vector<uint8_t> word(mine.begin(), mine.end());
    store_->set(key(rank_), word);
    bool is_same = !word.empty();
    for (int r = 0; r < size_; ++r) is_same = store_->get(key(r)) == word && is_same;
    return is_same;
  } catch (const std::exception& error) {
    throw Error(Kind::kPeer, str("group ", name_, ": not every rank asked for its window: ", error.what()));
  }
}

Window* SymmetricMemory::window(int64_t bytes, c10::Device device) {
  ENSURE(bytes > 0);
  store_->start(++asked_);
  // A rank that cannot go on must say so before the others wait for it in rendezvous().
  at::Tensor memory;
  try {
    memory = symmetric::empty_strided_p2p({bytes}, {1}, at::kByte, device, name_, std::nullopt);
  } catch (const std::exception&) {
    memory.reset();
  }
  if (!all_say(memory.defined() ? host_name() : "", "memory")) return nullptr;
  c10::intrusive_ptr<symmetric::SymmetricMemory> handle;
  try {
    handle = symmetric::rendezvous(memory, name_);
  } catch (const std::exception&) {
    handle.reset();
  }
  if (!all_say(handle ? "yes" : "", "handle")) return nullptr;
  windows_.push_back(std::make_unique<NcclWindow>(std::move(memory), std::move(handle)));
  return windows_.back().get();
}

}  // namespace atelier::comm
