#include "cluster/job.h"

#include "base/error.h"

namespace atelier::cluster {

void PoolOptions::fields(const Visit& visit) {
  visit({.name = "max_retries"}, &max_retries);
  visit({.name = "batch_timeout_s"}, &batch_timeout_s);
  visit({.name = "start_timeout_s"}, &start_timeout_s);
  visit({.name = "end_timeout_s"}, &end_timeout_s);
}

void SinkConfig::fields(const Visit& visit) {
  visit({.name = "folder"}, &folder);
  visit({.name = "format"}, &format);
  visit({.name = "quality"}, &quality);
  visit({.name = "returns_bytes"}, &returns_bytes);
}

Json to_json(const Job& job) {
  Json sink = fields_to_json(fields_of(job.sink));
  sink["record"] = job.sink.record;
  return {{"engine", to_json(job.engine)}, {"pool", fields_to_json(fields_of(job.pool))}, {"sink", sink}};
}

Job job_from_json(const Json& json) {
  try {
    Job job{pipeline::engine_config_from_json(json.at("engine")),
            fields_from_json<PoolOptions>(json.at("pool")), fields_from_json<SinkConfig>(json.at("sink"))};
    job.sink.record = json.at("sink").at("record");
    return job;
  } catch (const Json::exception& e) {
    throw Error(Kind::kUsage, str("a worker's job cannot be read: ", e.what()));
  }
}

}  // namespace atelier::cluster
