#include "cluster/channel.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "base/check.h"
#include "base/constant_time.h"
#include "base/digest.h"
#include "base/error.h"

namespace atelier::cluster {
namespace {

constexpr size_t kTagBytes = 64, kLengthBytes = 4, kNonceBytes = 32;

uint32_t length_at(const std::string& buffer, size_t at) {
  uint32_t length = 0;
  for (size_t i = 0; i < kLengthBytes; ++i)
    length |= static_cast<uint32_t>(static_cast<unsigned char>(buffer[at + i])) << (8 * i);
  return length;
}

std::string random_bytes(size_t count) {
  std::string bytes(count, '\0');
  if (::getrandom(bytes.data(), count, 0) != static_cast<ssize_t>(count)) {
    throw std::system_error(errno, std::generic_category(), "no random bytes");
  }
  return bytes;
}

std::string dump(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string text_of(const Json& value) {
  const auto data = value.find("data");
  if (data == value.end() || !data->is_binary()) return dump(value);
  Json head = value;
  head.erase("data");
  const auto& bytes = data->get_binary();
  return dump(head).append(1, '\0').append(bytes.begin(), bytes.end());
}

// Discarded (Json::is_discarded) if it is not JSON.
Json value_of(std::string_view text) {
  const size_t end = std::min(text.find('\0'), text.size());
  Json value = Json::parse(text.substr(0, end), nullptr, false);
  if (value.is_object() && end < text.size())
    value["data"] = Json::binary({text.begin() + static_cast<int64_t>(end) + 1, text.end()});
  return value;
}

}  // namespace

Channel::Channel(int fd, Side side, std::string key)
    : fd_(fd), side_(side), key_(std::move(key)), nonce_(key_.empty() ? "" : random_bytes(kNonceBytes)) {
  keep_from_children(fd);
  std::string_view rest = nonce_;
  write_out(rest, MSG_NOSIGNAL);
}

std::string Channel::tag(Side sender, uint64_t number, std::string_view text) const {
  const auto& receiver = sender == side_ ? their_nonce_ : nonce_;
  return hmac_sha256(key_, str(static_cast<char>(sender), number, ":", receiver, text));
}

bool Channel::write_out(std::string_view& rest, int flags) const {
  while (!rest.empty()) {
    const ssize_t n = ::send(fd(), rest.data(), rest.size(), flags);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return (flags & MSG_DONTWAIT) && (errno == EAGAIN || errno == EWOULDBLOCK);
    rest.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

bool Channel::send(const Json& value) {
  const std::string text = text_of(value);
  ENSURE(text.size() <= kMaxBytes);
  std::string frame;
  for (size_t i = 0; i < kLengthBytes; ++i)
    frame.push_back(static_cast<char>((text.size() >> (8 * i)) & 0xff));
  frame += text;
  const std::scoped_lock lock(sending_);
  if (!key_.empty()) frame += tag(side_, sent_, text);
  ++sent_;
  std::string_view rest = frame;
  if (side_ == Side::kWorker) return write_out(rest, MSG_NOSIGNAL);
  if (kept_.size() > kMaxQueuedBytes) return false;
  if (kept_.empty() && !write_out(rest, MSG_NOSIGNAL | MSG_DONTWAIT)) return false;
  kept_.append(rest);
  return true;
}

bool Channel::flush() {
  const std::scoped_lock lock(sending_);
  std::string_view rest = kept_;
  if (!write_out(rest, MSG_NOSIGNAL | MSG_DONTWAIT)) rest = {};  // its end will be read
  kept_.erase(0, kept_.size() - rest.size());
  return !kept_.empty();
}

bool Channel::take_in() {
  std::array<char, 65536> bytes;
  for (;;) {
    const ssize_t n = ::recv(fd(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno == EAGAIN || errno == EWOULDBLOCK;
    if (n == 0) return false;
    buffer_.append(bytes.data(), static_cast<size_t>(n));
    if (static_cast<size_t>(n) < bytes.size()) return true;
    if (received_ == 0 && buffer_.size() > most_bytes()) return true;
  }
}

bool Channel::take_nonce() {
  if (key_.empty() || !their_nonce_.empty()) return true;
  if (buffer_.size() < kNonceBytes) return false;
  their_nonce_ = buffer_.substr(0, kNonceBytes);
  consumed_ = kNonceBytes;
  return true;
}

uint32_t Channel::most_bytes() const {
  if (received_ > 0) return kMaxBytes;
  return side_ == Side::kPool && !key_.empty() ? kMaxHelloBytes : kMaxFirstBytes;
}

std::optional<Json> Channel::next() {
  if (!take_nonce()) return std::nullopt;
  const size_t have = buffer_.size() - consumed_;
  if (have < kLengthBytes) return std::nullopt;
  const uint32_t length = length_at(buffer_, consumed_);
  if (length > most_bytes())
    throw Error(Kind::kPeer, "a message between processes is longer than any of ours");
  const size_t tag_bytes = key_.empty() ? 0 : kTagBytes;
  if (have < kLengthBytes + length + tag_bytes) return std::nullopt;
  const std::string text = buffer_.substr(consumed_ + kLengthBytes, length);
  if (!key_.empty()) {
    const Side other = side_ == Side::kWorker ? Side::kPool : Side::kWorker;
    const auto found = std::string_view(buffer_).substr(consumed_ + kLengthBytes + length, kTagBytes);
    if (!is_equal_in_constant_time(found, tag(other, received_, text))) {
      throw Error(Kind::kPeer,
                  "a message between processes was made with another key; is another run using this port?");
    }
  }
  ++received_;
  consumed_ += kLengthBytes + length + tag_bytes;
  if (consumed_ == buffer_.size() || consumed_ > kMaxFirstBytes) {
    buffer_.erase(0, consumed_);
    consumed_ = 0;
  }
  Json value = value_of(text);
  if (!value.is_object()) throw Error(Kind::kPeer, "a message between processes is no JSON object");
  return value;
}

bool Channel::greet(std::chrono::milliseconds time) {
  const auto end = std::chrono::steady_clock::now() + time;
  for (bool is_open = true; !take_nonce(); is_open = take_in()) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
    pollfd entry{fd(), POLLIN, 0};
    if (!is_open || left.count() <= 0 || ::poll(&entry, 1, static_cast<int>(left.count())) <= 0) return false;
  }
  return true;
}

std::optional<Json> Channel::wait(std::chrono::milliseconds time) {
  const auto end = std::chrono::steady_clock::now() + time;
  for (bool is_open = true;;) {
    if (auto value = next()) return value;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
    if (!is_open || left.count() <= 0) return std::nullopt;
    pollfd entry{fd(), static_cast<short>(flush() ? POLLIN | POLLOUT : POLLIN), 0};
    if (::poll(&entry, 1, static_cast<int>(left.count())) > 0 && entry.revents != POLLOUT)
      is_open = take_in();
  }
}

void Channel::shut_down() {
  ::shutdown(fd(), SHUT_RDWR);
}

void keep_from_children(int fd) {
  const int flags = ::fcntl(fd, F_GETFD);
  if (flags < 0 || ::fcntl(fd, F_SETFD, flags | FD_CLOEXEC) != 0) {
    throw std::system_error(errno, std::generic_category(),
                            "a descriptor cannot be kept from child processes");
  }
}

}  // namespace atelier::cluster
