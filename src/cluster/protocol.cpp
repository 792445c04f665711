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

Json to_json(const request::Item& i) {
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

request::Item item_from_json(const Json& j) {
  return reading("picture to draw", [&] {
    request::Item i;
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

}  // namespace atelier::cluster
