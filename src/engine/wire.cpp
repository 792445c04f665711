#include "engine/wire.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "jobs/sha256.h"

namespace atelier::engine {
namespace {

constexpr size_t kTagBytes = 64, kLengthBytes = 4;

std::string raw_sha256(std::string_view bytes) {
  const std::string digits = jobs::sha256(bytes);
  std::string raw;
  for (size_t i = 0; i < digits.size(); i += 2)
    raw.push_back(static_cast<char>(std::stoi(digits.substr(i, 2), nullptr, 16)));
  return raw;
}

std::string hmac(std::string key, std::string_view text) {
  constexpr size_t kBlock = 64;
  if (key.size() > kBlock) key = raw_sha256(key);
  key.resize(kBlock, '\0');
  std::string inner = key, outer = key;
  for (char& c : inner) c = static_cast<char>(c ^ 0x36);
  for (char& c : outer) c = static_cast<char>(c ^ 0x5c);
  return jobs::sha256(outer + raw_sha256(inner.append(text)));
}

// Does not end at the first difference: the time tells nothing.
bool are_equal(std::string_view a, std::string_view b) {
  unsigned difference = a.size() == b.size() ? 0 : 1;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    difference |= static_cast<unsigned char>(a[i] ^ b[i]);
  return difference == 0;
}

uint32_t length_at(const std::string& buffer, size_t at) {
  uint32_t length = 0;
  for (size_t i = 0; i < kLengthBytes; ++i)
    length |= static_cast<uint32_t>(static_cast<unsigned char>(buffer[at + i])) << (8 * i);
  return length;
}

template <class Read>
auto reading(const char* what, const Read& read) {
  try {
    return read();
  } catch (const Json::exception& e) {
    throw Error(Kind::kPeer, str("a message between processes holds no ", what, ": ", e.what()));
  }
}

}  // namespace

Channel::Channel(int fd, Side side, std::string key) : fd_(fd), side_(side), key_(std::move(key)) {
  keep_from_children(fd);
}

Channel::~Channel() {
  ::close(fd_);
}

std::string Channel::tag(Side sender, uint64_t number, std::string_view text) const {
  return hmac(key_, str(static_cast<char>(sender), number, ":", text));
}

bool Channel::send(const Json& value) {
  const std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  std::string frame;
  for (size_t i = 0; i < kLengthBytes; ++i)
    frame.push_back(static_cast<char>((text.size() >> (8 * i)) & 0xff));
  frame += text;
  const std::scoped_lock lock(sending_);
  if (!key_.empty()) frame += tag(side_, sent_, text);
  ++sent_;
  std::string_view rest = frame;
  while (!rest.empty()) {
    const ssize_t n = ::send(fd_, rest.data(), rest.size(), MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    rest.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

bool Channel::take_in() {
  std::array<char, 65536> bytes;
  for (;;) {
    const ssize_t n = ::recv(fd_, bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno == EAGAIN || errno == EWOULDBLOCK;
    if (n == 0) return false;
    buffer_.append(bytes.data(), static_cast<size_t>(n));
    if (static_cast<size_t>(n) < bytes.size()) return true;
  }
}

std::optional<Json> Channel::next() {
  const size_t have = buffer_.size() - consumed_;
  if (have < kLengthBytes) return std::nullopt;
  const uint32_t length = length_at(buffer_, consumed_);
  if (length > kMaxBytes) throw Error(Kind::kPeer, "a message between processes is longer than any of ours");
  const size_t tag_bytes = key_.empty() ? 0 : kTagBytes;
  if (have < kLengthBytes + length + tag_bytes) return std::nullopt;
  const std::string text = buffer_.substr(consumed_ + kLengthBytes, length);
  if (!key_.empty()) {
    const Side other = side_ == Side::kWorker ? Side::kSupervisor : Side::kWorker;
    const auto found = std::string_view(buffer_).substr(consumed_ + kLengthBytes + length, kTagBytes);
    if (!are_equal(found, tag(other, received_, text))) {
      throw Error(Kind::kPeer,
                  "a message between processes was made with another key; is another run using this port?");
    }
  }
  ++received_;
  consumed_ += kLengthBytes + length + tag_bytes;
  if (consumed_ == buffer_.size()) buffer_.clear(), consumed_ = 0;
  Json value = Json::parse(text, nullptr, false);
  if (!value.is_object()) throw Error(Kind::kPeer, "a message between processes is no JSON object");
  return value;
}

std::optional<Json> Channel::wait(std::chrono::milliseconds time) {
  const auto end = std::chrono::steady_clock::now() + time;
  for (bool is_open = true;;) {
    if (auto value = next()) return value;
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
    if (!is_open || left.count() < 0) return std::nullopt;
    pollfd entry{fd_, POLLIN, 0};
    if (::poll(&entry, 1, static_cast<int>(left.count()) + 1) > 0) is_open = take_in();
  }
}

void Channel::shut_down() {
  ::shutdown(fd_, SHUT_RDWR);
}

Json message_of(const char* kind) {
  return {{"is", kind}};
}

std::string kind_of(const Json& message) {
  return reading("kind", [&] { return message.at("is").get<std::string>(); });
}

Json to_json(const Place& p) {
  return {{"rank", p.rank},
          {"size", p.size},
          {"local_rank", p.local_rank},
          {"local_size", p.local_size},
          {"start", p.start},
          {"meeting_file", p.meeting_file},
          {"meeting_host", p.meeting_host},
          {"meeting_port", p.meeting_port}};
}

Place place_from_json(const Json& j) {
  return reading("place", [&] {
    return Place{j.at("rank").get<int>(),
                 j.at("size").get<int>(),
                 j.at("local_rank").get<int>(),
                 j.at("local_size").get<int>(),
                 j.at("start").get<int>(),
                 j.at("meeting_file").get<std::string>(),
                 j.at("meeting_host").get<std::string>(),
                 j.at("meeting_port").get<int>()};
  });
}

Json to_json(const jobs::Item& i) {
  Json j{{"index", i.index},
         {"sub", i.sub},
         {"prompt", i.prompt},
         {"negative_prompt", i.negative_prompt},
         {"has_negative", i.has_negative},
         {"name", i.name},
         {"where", i.where}};
  if (i.height) j["height"] = *i.height;
  if (i.width) j["width"] = *i.width;
  if (i.steps) j["steps"] = *i.steps;
  if (i.guidance) j["guidance"] = *i.guidance;
  if (i.seed) j["seed"] = *i.seed;
  return j;
}

jobs::Item item_from_json(const Json& j) {
  return reading("picture to draw", [&] {
    jobs::Item i;
    j.at("index").get_to(i.index);
    j.at("sub").get_to(i.sub);
    j.at("prompt").get_to(i.prompt);
    j.at("negative_prompt").get_to(i.negative_prompt);
    j.at("has_negative").get_to(i.has_negative);
    j.at("name").get_to(i.name);
    j.at("where").get_to(i.where);
    const auto optional = [&]<class T>(const char* key, std::optional<T>& value) {
      if (j.contains(key)) value = j.at(key).get<T>();
    };
    optional("height", i.height);
    optional("width", i.width);
    optional("steps", i.steps);
    optional("guidance", i.guidance);
    optional("seed", i.seed);
    return i;
  });
}

Json to_json(const RankStats& s) {
  return {{"rank", s.rank},
          {"device", s.device},
          {"weight_bytes", s.weight_bytes},
          {"peak_device_bytes", s.peak_device_bytes},
          {"peak_host_bytes", s.peak_host_bytes},
          {"seconds", s.seconds},
          {"step_ms", s.step_ms},
          {"used", s.used}};
}

RankStats stats_from_json(const Json& j) {
  return reading("statistics", [&] {
    RankStats s;
    j.at("rank").get_to(s.rank);
    j.at("device").get_to(s.device);
    j.at("weight_bytes").get_to(s.weight_bytes);
    j.at("peak_device_bytes").get_to(s.peak_device_bytes);
    j.at("peak_host_bytes").get_to(s.peak_host_bytes);
    j.at("seconds").get_to(s.seconds);
    j.at("step_ms").get_to(s.step_ms);
    j.at("used").get_to(s.used);
    return s;
  });
}

void keep_from_children(int fd) {
  const int flags = ::fcntl(fd, F_GETFD);
  if (flags < 0 || ::fcntl(fd, F_SETFD, flags | FD_CLOEXEC) != 0) {
    throw std::system_error(errno, std::generic_category(),
                            "a descriptor cannot be kept from child processes");
  }
}

}  // namespace atelier::engine
