#include "base/error.h"

namespace atelier {

int exit_code(Kind kind) {
  switch (kind) {
    case Kind::kUsage:
    case Kind::kCheckpoint:
      return 2;
    case Kind::kCapacity:
      return 3;
    case Kind::kInterrupted:
      return 130;
    case Kind::kPeer:
    case Kind::kItem:
      return 1;
  }
  return 1;
}

}  // namespace atelier
