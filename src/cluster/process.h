// Worker processes: this program again, with nothing of ours open but what they are given, ended for certain.
#pragma once
#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace atelier::cluster {

// A descriptor with an owner.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept;
  ~Descriptor();
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_ = -1;
};

struct ChildPlan {
  int socket = -1;                       // of its messages; becomes kChildSocket
  int rendezvous = -1;                   // of the file where ranks meet, or none; becomes kChildRendezvous
  std::vector<std::string> environment;  // "NAME=value", in front of what this process has
};
inline constexpr int kChildSocket = 3, kChildRendezvous = 4;

class Child {
 public:
  // Runs `<this program> worker --fd 3`, under the name that this process was given. It dies with the calling
  // thread. Its stdout goes to our stderr. Throws Error(kCapacity) when the system gives no process.
  static Child start(const ChildPlan& plan);
  Child(Child&& other) noexcept : id_(std::exchange(other.id_, -1)), status_(other.status_) {}
  Child& operator=(Child&& other) noexcept;
  ~Child();  // end(kPatience)

  // Kills it and waits for its end, at most this long: a process that waits for a lost file server or for a
  // driver may never end. False: then it is left behind, and this is no process any more.
  bool end(std::chrono::milliseconds patience);
  static constexpr std::chrono::seconds kPatience{30};

  pid_t id() const { return id_; }
  void signal(int number) const;
  bool is_stopped() const;  // by a signal such as SIGSTOP
  // The status as from waitpid once it has ended.
  std::optional<int> status();

 private:
  explicit Child(pid_t id) : id_(id) {}
  pid_t id_ = -1;
  std::optional<int> status_;
};

// Closes every descriptor from this one on. Makes system calls only, as a child of a process
// with threads must.
void close_from(int first);

// "was ended by signal 9 (Killed)", "left with exit code 3".
std::string status_text(int status);

// CPU cores that this process may use.
int usable_cores();

// An empty file in memory: gone when the last process closes it, however that ends. Throws Error(kCapacity).
Descriptor memory_file();

}  // namespace atelier::cluster
