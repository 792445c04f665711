// What the environments of torchrun, mpirun and srun say.
#include <algorithm>
#include <cctype>
#include <charconv>

#include "base/error.h"
#include "cluster/launch/launch.h"

namespace atelier::cluster {
namespace {

class Reader {
 public:
  Reader(const EnvironmentLookup& environment, std::string launcher)
      : environment_(environment), launcher_(std::move(launcher)) {}

  std::optional<int> number(const std::string& name) const {
    const auto text = environment_(name);
    if (!text || text->empty()) return std::nullopt;
    int value = 0;
    const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
    if (error != std::errc() || end != text->data() + text->size()) {
      throw Error(Kind::kUsage, str(launcher_, " has set ", name, "=", *text, ", which is no number"));
    }
    return value;
  }
  std::string text(const std::string& name) const { return environment_(name).value_or(""); }
  bool has(const std::string& name) const { return !text(name).empty(); }
  // Those of the variables that are set, with their values.
  std::string shown(std::initializer_list<const char*> names) const {
    std::string out;
    for (const char* name : names) {
      if (has(name)) out += str(out.empty() ? "" : " ", name, "=", text(name));
    }
    return out;
  }

 private:
  const EnvironmentLookup& environment_;
  std::string launcher_;
};

// The same port on every node for one job, in the range that systems leave to users.
int port_for(const std::string& job) {
  uint32_t hash = 2166136261u;
  for (const char c : job) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
  return 20000 + static_cast<int>(hash % 10000);
}

void check(const LauncherEnv& o) {
  if (o.size < 1 || o.rank < 0 || o.rank + o.ranks > o.size || o.local_rank < 0) {
    throw Error(Kind::kUsage, str(o.launcher, " says rank ", o.rank, " (local ", o.local_rank, ") of ",
                                  o.size, " ranks, which cannot be"));
  }
  if (o.host.empty()) {
    throw Error(Kind::kUsage,
                str(o.launcher,
                    " does not say where rank 0 is; set MASTER_ADDR to the address of its host, "
                    "and MASTER_PORT"));
  }
  if (o.port < 1 || o.port > 65535)
    throw Error(Kind::kUsage, str("MASTER_PORT=", o.port, " is not in 1..65535"));
}

void settle_meeting(LauncherEnv& o, const Reader& env, const std::string& job,
                    const std::string& default_host) {
  if (o.size == 1 && o.rank == 0) return;  // nobody to meet
  o.host = env.has("MASTER_ADDR") ? env.text("MASTER_ADDR") : default_host;
  o.port = env.number("MASTER_PORT").value_or(port_for(job));
  const std::string secret = env.text("ATELIER_CLUSTER_KEY");
  o.key =
      secret.empty() ? str("atelier ", o.launcher, " ", job, " ", o.host, ":", o.port, " ", o.size) : secret;
  check(o);
}

std::optional<LauncherEnv> torchrun(const EnvironmentLookup& environment) {
  const Reader env(environment, "torchrun");
  const auto rank = env.number("RANK"), size = env.number("WORLD_SIZE");
  if (!rank || !size) return std::nullopt;
  LauncherEnv o{.launcher = "torchrun", .rank = *rank, .size = *size};
  o.local_rank = env.number("LOCAL_RANK").value_or(0);
  o.local_size = env.number("LOCAL_WORLD_SIZE").value_or(1);
  o.variables = env.shown({"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"});
  settle_meeting(o, env, env.text("TORCHELASTIC_RUN_ID"), "");
  return o;
}

std::optional<LauncherEnv> mpirun(const EnvironmentLookup& environment) {
  const Reader env(environment, "mpirun");
  const auto rank = env.number("OMPI_COMM_WORLD_RANK"), size = env.number("OMPI_COMM_WORLD_SIZE");
  if (!rank || !size) return std::nullopt;
  LauncherEnv o{.launcher = "mpirun", .rank = *rank, .size = *size};
  o.local_rank = env.number("OMPI_COMM_WORLD_LOCAL_RANK").value_or(0);
  o.local_size = env.number("OMPI_COMM_WORLD_LOCAL_SIZE").value_or(1);
  o.variables = env.shown({"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"});
  const std::string job =
      env.has("PMIX_NAMESPACE") ? env.text("PMIX_NAMESPACE") : env.text("OMPI_MCA_ess_base_jobid");
  settle_meeting(o, env, job, o.local_size == o.size ? "127.0.0.1" : "");
  return o;
}

std::optional<LauncherEnv> srun(const EnvironmentLookup& environment) {
  const Reader env(environment, "srun");
  const auto rank = env.number("SLURM_PROCID");
  auto size = env.number("SLURM_STEP_NUM_TASKS");
  if (!size) size = env.number("SLURM_NTASKS");
  if (!rank || !size) return std::nullopt;
  // a batch script itself is task 0 of a job whose tasks nobody has started
  if (!env.has("SLURM_STEP_ID") && env.text("ENVIRONMENT") == "BATCH") return std::nullopt;
  LauncherEnv o{.launcher = "srun", .rank = *rank, .size = *size};
  o.local_rank = env.number("SLURM_LOCALID").value_or(0);
  o.variables =
      env.shown({"SLURM_PROCID", "SLURM_NTASKS", "SLURM_JOB_NODELIST", "MASTER_ADDR", "MASTER_PORT"});
  const int nodes = env.number("SLURM_STEP_NUM_NODES").value_or(env.number("SLURM_NNODES").value_or(1));
  o.local_size = std::max(1, o.size / std::max(1, nodes));
  std::string host = first_host(env.has("SLURM_STEP_NODELIST") ? env.text("SLURM_STEP_NODELIST")
                                                               : env.text("SLURM_JOB_NODELIST"));
  if (host.empty()) host = env.text("SLURM_LAUNCH_NODE_IPADDR");
  if (host.empty() && nodes == 1) host = "127.0.0.1";
  settle_meeting(o, env, str(env.text("SLURM_JOB_ID"), ".", env.text("SLURM_STEP_ID")), host);
  return o;
}

}  // namespace

std::string meeting_text(const LauncherEnv& env) {
  return str("at ", env.host, ", ports ", env.port + 1, " to ", env.port + LauncherEnv::kPorts,
             env.variables.empty() ? "" : " (" + env.variables + ")");
}

std::string first_host(const std::string& list) {
  const size_t end = std::min(list.find_first_of(",["), list.size());
  std::string host = list.substr(0, end);
  if (end == list.size() || list[end] == ',') return host;
  for (size_t i = end + 1; i < list.size() && std::isdigit(static_cast<unsigned char>(list[i])); ++i)
    host += list[i];
  const size_t close = list.find(']', end);
  if (close == std::string::npos) return host;
  const size_t next = std::min(list.find_first_of(",[", close), list.size());
  return host + list.substr(close + 1, next - close - 1);
}

std::optional<LauncherEnv> find_launcher_env(const EnvironmentLookup& environment) {
  for (const auto read : {torchrun, mpirun, srun}) {
    if (auto env = read(environment)) return env->size > 1 ? env : std::nullopt;
  }
  return std::nullopt;
}

LauncherEnv spanning(const NodeSpan& span) {
  if (span.nodes < 1 || span.node < 0 || span.node >= span.nodes || span.ranks < span.nodes ||
      span.ranks % span.nodes != 0) {
    throw Error(Kind::kUsage, str("span_nodes spreads num_gpus evenly over num_nodes, found node ", span.node,
                                  " of ", span.nodes, " nodes with ", span.ranks, " ranks in all"));
  }
  LauncherEnv o{.launcher = "span_nodes", .size = span.ranks, .ranks = span.ranks / span.nodes};
  o.rank = span.node * o.ranks;
  o.local_size = o.ranks;
  o.host = span.host;
  o.port = span.port;
  o.variables = str("node_rank ", span.node, ", num_nodes ", span.nodes, ", master_addr ", span.host,
                    ", master_port ", span.port);
  o.key = span.key.empty() ? str("atelier span ", o.host, ":", o.port, " ", o.size) : span.key;
  if (o.host.empty()) throw Error(Kind::kUsage, "span_nodes needs master_addr, the address of node 0");
  check(o);
  return o;
}

}  // namespace atelier::cluster
