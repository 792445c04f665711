#include "cluster/protocol.h"

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace atelier::cluster {
namespace {

template <class Read>
auto reading(const char* what, const Read& read) {
  try {
    return read();
  } catch (const Json::exception& e) {
    throw Error(Kind::kPeer, str("a message between processes holds no ", what, ": ", e.what()));
  }
}

}  // namespace

Json message_of(const char* kind) {
  return {{"is", kind}};
}

std::string kind_of(const Json& message) {
  return reading("kind", [&] { return message.at("is").get<std::string>(); });
}

Json to_json(const RankInfo& p) {
  return {{"rank", p.rank},
          {"size", p.size},
          {"local_rank", p.local_rank},
          {"local_size", p.local_size},
          {"start", p.start},
          {"rendezvous_file", p.rendezvous_file},
          {"rendezvous_host", p.rendezvous_host},
          {"rendezvous_port", p.rendezvous_port}};
}

RankInfo rank_info_from_json(const Json& j) {
  return reading("rank_info", [&] {
    return RankInfo{j.at("rank").get<int>(),
                    j.at("size").get<int>(),
                    j.at("local_rank").get<int>(),
                    j.at("local_size").get<int>(),
                    j.at("start").get<int>(),
                    j.at("rendezvous_file").get<std::string>(),
                    j.at("rendezvous_host").get<std::string>(),
                    j.at("rendezvous_port").get<int>()};
  });
}

Json to_json(const request::Request& request) {
  return fields_to_json(fields_of(request));
}

request::Request request_from_json(const Json& j) {
  try {
    return fields_from_json<request::Request>(j);
  } catch (const Error& e) {
    throw Error(Kind::kPeer, str("a message between processes holds no picture to draw: ", e.what()));
  }
}

Json to_json(const RankStats& s) {
  return {{"rank", s.rank},
          {"device", s.device},
          {"weight_bytes", s.weight_bytes},
          {"peak_device_bytes", s.peak_device_bytes},
          {"peak_host_bytes", s.peak_host_bytes},
          {"seconds", s.seconds},
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
    j.at("used").get_to(s.used);
    return s;
  });
}

}  // namespace atelier::cluster
