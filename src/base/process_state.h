// What another process of this machine does.
#pragma once
#include <sys/types.h>

namespace atelier {

// The letter of proc(5): R, S or D (it lives), T (stopped), Z or X (ended, perhaps not waited for yet); 0
// where there is no such process or it cannot be read.
char process_state(pid_t process);

}  // namespace atelier
