#include "cluster/protocol.h"

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace atelier::cluster {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(RankInfo, rank, group, group_rank, group_size, local_rank, local_size,
                                   start, rendezvous_file, rendezvous_host, rendezvous_name, rendezvous_port)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(RankStats, rank, device, weight_bytes, peak_device_bytes, peak_host_bytes,
                                   peak_reserved_bytes, host_bytes, samples, seconds, used)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(BatchTimes, seconds, step_ms, reread_bytes, computed, reused)

namespace {

template <class T>
Json json_of(const T& value) {
  Json json;
  to_json(json, value);
  return json;
}

template <class T>
T read(const char* what, const Json& json) {
  try {
    return json.get<T>();
  } catch (const Json::exception& e) {
    throw Error(Kind::kPeer, str("a message between processes holds no ", what, ": ", e.what()));
  }
}

}  // namespace

Json message_of(const char* kind) {
  return {{"is", kind}};
}

Json message_of(const char* kind, int64_t run) {
  return {{"is", kind}, {"run", run}};
}

std::string kind_of(const Json& message) {
  return read<std::string>("kind", message.value("is", Json()));
}

Json to_json(const RankInfo& info) {
  return json_of(info);
}

Json to_json(const RankStats& stats) {
  return json_of(stats);
}

Json to_json(const BatchTimes& times) {
  return json_of(times);
}

RankInfo rank_info_from_json(const Json& json) {
  return read<RankInfo>("rank", json);
}

RankStats stats_from_json(const Json& json) {
  return read<RankStats>("statistics", json);
}

BatchTimes times_from_json(const Json& json) {
  return read<BatchTimes>("times", json);
}

}  // namespace atelier::cluster
