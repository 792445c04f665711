// Counters and histograms in Prometheus' text format.
#pragma once
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace atelier::server {

class Metrics {
 public:
  // labels: `code="200",path="/v1/models"`, or empty. help is kept from the first call of a name.
  void count(const std::string& name, const std::string& help, const std::string& labels = "", double by = 1);
  void observe(const std::string& name, const std::string& help, double seconds);
  void set(const std::string& name, const std::string& help, double value, const std::string& labels = "");
  std::string text() const;

 private:
  struct MetricSeries {
    const char* type = "counter";
    std::string help;
    std::map<std::string, double> values;  // by labels
    std::vector<uint64_t> buckets;         // of a histogram
    double sum = 0;
    uint64_t total = 0;
  };
  mutable std::mutex mutex_;
  std::map<std::string, MetricSeries> all_;
};

}  // namespace atelier::server
