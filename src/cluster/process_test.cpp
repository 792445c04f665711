// What worker processes are given, and how they end.
#include "cluster/process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstddef>

#include "cluster/testing.h"

namespace atelier::cluster {
namespace {

using namespace std::chrono_literals;

// As on kernels, and in sandboxes, that do not know the call.
bool forbid_close_range() {
  std::array<sock_filter, 4> code{{BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
                                   BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_close_range, 0, 1),
                                   BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
                                   BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)}};
  const sock_fprog program{static_cast<unsigned short>(code.size()), code.data()};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

constexpr int kNoFilter = 77;

int closes_all_but(int first, bool has_call) {
  if (!has_call && !forbid_close_range()) return kNoFilter;
  const int low = ::fcntl(STDERR_FILENO, F_DUPFD, 10), high = ::fcntl(STDERR_FILENO, F_DUPFD, 900);
  for (int i = 0; i < 300; ++i) ::dup(STDERR_FILENO);
  if (low < 0 || high < 0 || low >= first) return 2;
  close_from(first);
  for (int fd = first; fd < 1000; ++fd) {
    if (::fcntl(fd, F_GETFD) >= 0) return 1;
  }
  return ::fcntl(low, F_GETFD) >= 0 ? 0 : 3;
}

TEST(Process_AChildIsGivenNothingElse, WhateverItsKernelKnows) {
  for (const bool has_call : {true, false}) {
    const pid_t child = ::fork();
    if (child == 0) ::_exit(closes_all_but(20, has_call));
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFEXITED(status));
    if (WEXITSTATUS(status) == kNoFilter) GTEST_SKIP() << "no system call can be forbidden here";
    EXPECT_EQ(WEXITSTATUS(status), 0) << has_call;
  }
}

}  // namespace
}  // namespace atelier::cluster
