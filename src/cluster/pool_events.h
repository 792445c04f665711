// What a worker pool tells its owner.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/error.h"
#include "cluster/protocol.h"
#include "cluster/sink.h"
#include "request/request.h"

namespace atelier::cluster {

// batch: what submit() returned.
struct GroupReady {
  int group = 0;
};
struct StepDone {
  int64_t batch = 0;
  int group = 0, step = 0, steps = 0;  // step counts from 1
};
struct PreviewReady {  // what a picture looks like on its way
  int64_t batch = 0;
  request::Request request;
  int step = 0;      // after this one, from 1
  std::string data;  // an encoded picture
};
struct RequestNote {  // what is done otherwise than asked; more than once where a batch is tried again
  int64_t batch = 0;
  request::Request request;
  std::string note;
};
struct BatchGenerated {  // a part of it, if it was taken apart after a failure
  int64_t batch = 0;
  int group = 0;
  BatchTimes times;
};
struct ArtifactStored {
  int64_t batch = 0;
  int group = 0;
  request::Request request;
  SinkResult stored;  // seconds: of its batch, divided by the batch's requests, and of storing
};
struct CallAnswered {
  int64_t batch = 0;
  int group = 0;
  std::vector<int64_t> shape;  // of the result, which lies in the call's memory
};
struct CallFailed {
  int64_t batch = 0;
  std::optional<Kind> kind;
  std::string reason;
};
struct RequestFailed {
  int64_t batch = 0;
  request::Request request;
  std::string reason;
  int attempts = 0;
  std::optional<Kind> kind;  // of the Error; none: anything else
};
struct BatchDone {  // no event of it follows
  int64_t batch = 0;
  int cancelled = 0;  // requests that were dropped
};
struct GroupRestarted {
  int group = 0;
  std::string reason;
};
struct GroupLost {  // it is not started again; the others draw on
  int group = 0;
  std::string reason;
};

using PoolEvent =
    std::variant<GroupReady, StepDone, PreviewReady, RequestNote, BatchGenerated, ArtifactStored,
                 CallAnswered, CallFailed, RequestFailed, BatchDone, GroupRestarted, GroupLost>;

}  // namespace atelier::cluster
