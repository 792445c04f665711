// What a process learns from the environment of its launcher.
#include <gtest/gtest.h>

#include <map>

#include "base/error.h"
#include "cluster/fault_injection.h"
#include "cluster/launch/launch.h"

namespace atelier::cluster {
namespace {

using Variables = std::map<std::string, std::string>;

std::optional<LauncherEnv> outer_of(const Variables& variables) {
  return find_launcher_env([&](const std::string& name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    return found == variables.end() ? std::nullopt : std::optional(found->second);
  });
}

TEST(Outer_AProcessOfItsOwnHasNone, AlsoWithOneRank) {
  EXPECT_FALSE(outer_of({}));
  EXPECT_FALSE(outer_of({{"MASTER_ADDR", "a"}, {"SLURM_NTASKS", "4"}}));
  EXPECT_FALSE(outer_of({{"RANK", "0"}, {"WORLD_SIZE", "1"}, {"MASTER_ADDR", "a"}, {"MASTER_PORT", "1"}}));
  EXPECT_FALSE(outer_of({{"RANK", "0"}, {"WORLD_SIZE", "1"}, {"LOCAL_RANK", "0"}}));  // without an address
}

TEST(Outer_TorchrunIsRead, AndGoesBeforeOthers) {
  const Variables torchrun{{"RANK", "5"},
                           {"LOCAL_RANK", "1"},
                           {"WORLD_SIZE", "8"},
                           {"LOCAL_WORLD_SIZE", "4"},
                           {"MASTER_ADDR", "10.0.0.1"},
                           {"MASTER_PORT", "29400"},
                           {"SLURM_PROCID", "0"},
                           {"SLURM_NTASKS", "2"}};
  const auto env = outer_of(torchrun);
  ASSERT_TRUE(env);
  EXPECT_EQ(env->rank, 5);
  EXPECT_EQ(env->local_rank, 1);
  EXPECT_EQ(env->local_size, 4);
  EXPECT_EQ(env->size, 8);
  EXPECT_EQ(env->host, "10.0.0.1");
  EXPECT_EQ(env->port, 29400);
  EXPECT_EQ(env->launcher, "torchrun");
}

TEST(Outer_AllRanksOfOneRunAgreeOnKeyAndPort, AndOtherRunsDoNot) {
  const auto of = [](const char* rank, const char* job) {
    return *outer_of({{"OMPI_COMM_WORLD_RANK", rank},
                      {"OMPI_COMM_WORLD_SIZE", "2"},
                      {"OMPI_COMM_WORLD_LOCAL_RANK", rank},
                      {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"},
                      {"PMIX_NAMESPACE", job}});
  };
  EXPECT_EQ(of("0", "77").host, "127.0.0.1");
  EXPECT_EQ(of("0", "77").port, of("1", "77").port);
  EXPECT_EQ(of("0", "77").key, of("1", "77").key);
  EXPECT_NE(of("0", "77").key, of("0", "78").key);
}

TEST(Outer_SeveralHostsNeedAnAddress, NamedInTheError) {
  try {
    outer_of(
        {{"OMPI_COMM_WORLD_RANK", "0"}, {"OMPI_COMM_WORLD_SIZE", "4"}, {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), Kind::kUsage);
    EXPECT_NE(std::string(e.what()).find("MASTER_ADDR"), std::string::npos);
  }
}

TEST(Outer_SrunIsRead, ButNotABatchScript) {
  Variables srun{{"SLURM_PROCID", "3"},
                 {"SLURM_LOCALID", "1"},
                 {"SLURM_NTASKS", "4"},
                 {"SLURM_JOB_ID", "9"},
                 {"SLURM_JOB_NODELIST", "gpu[03-05,9]"},
                 {"SLURM_NNODES", "2"}};
  EXPECT_EQ(outer_of(srun)->host, "gpu03");
  EXPECT_EQ(outer_of(srun)->local_size, 2);
  srun["MASTER_ADDR"] = "other";
  EXPECT_EQ(outer_of(srun)->host, "other");
  srun["ENVIRONMENT"] = "BATCH";
  EXPECT_FALSE(outer_of(srun));
  srun["SLURM_STEP_ID"] = "0";
  EXPECT_TRUE(outer_of(srun));
}

TEST(Outer_NonsenseIsRefused, NamingTheVariable) {
  const Variables good{{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "a"}, {"MASTER_PORT", "29400"}};
  for (const auto& [name, value] :
       Variables{{"RANK", "2"}, {"WORLD_SIZE", "x"}, {"MASTER_PORT", "99999"}, {"RANK", "-1"}}) {
    auto variables = good;
    variables[name] = value;
    EXPECT_THROW(outer_of(variables), Error) << name << "=" << value;
  }
}

TEST(Outer_TheMeetingIsToldByItsVariables, SoThatLeftOverOnesAreSeen) {
  const auto env =
      outer_of({{"RANK", "1"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "10.0.0.1"}, {"MASTER_PORT", "29500"}});
  ASSERT_TRUE(env);
  EXPECT_EQ(meeting_text(*env),
            "at 10.0.0.1, ports 29501 to 29508 (RANK=1 WORLD_SIZE=2 MASTER_ADDR=10.0.0.1 MASTER_PORT=29500)");
}

TEST(Outer_AnAddressOfAnotherMachineIsRefused, AtRank0) {
  // documentation addresses belong to nobody [RFC 5737]
  LauncherEnv env{.launcher = "torchrun", .size = 2, .host = "192.0.2.77", .port = 29500, .key = "k"};
  try {
    Coordinator coordinator(env);
    ADD_FAILURE() << "listens";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), Kind::kUsage);
    EXPECT_NE(std::string(e.what()).find("192.0.2.77"), std::string::npos) << e.what();
  }
}

TEST(Outer_TheFirstHostOfASlurmListIsFound, InEverySpelling) {
  EXPECT_EQ(first_host("gpu[03-05,9],login1"), "gpu03");
  EXPECT_EQ(first_host("a,b"), "a");
  EXPECT_EQ(first_host("rack1-n[7,8]-ib"), "rack1-n7-ib");
  EXPECT_EQ(first_host("single"), "single");
  EXPECT_EQ(first_host(""), "");
}

TEST(Outer_NodesShareTheRanksEvenly, OrAreRefused) {
  const auto env = spanning({.node = 1, .nodes = 2, .ranks = 4, .host = "h"});
  EXPECT_EQ(env.rank, 2);
  EXPECT_EQ(env.ranks, 2);
  EXPECT_EQ(env.size, 4);
  EXPECT_THROW(spanning({.node = 0, .nodes = 2, .ranks = 3, .host = "h"}), Error);
  EXPECT_THROW(spanning({.node = 2, .nodes = 2, .ranks = 4, .host = "h"}), Error);
  EXPECT_THROW(spanning({.node = 0, .nodes = 2, .ranks = 4}), Error);
}

TEST(Faults_TextsAreRead, OrRefused) {
  const auto fault = Fault::parse("1:step:2:kill:always");
  EXPECT_EQ(fault.rank, 1);
  EXPECT_EQ(fault.phase, Fault::Phase::kStep);
  EXPECT_EQ(fault.count, 2);
  EXPECT_EQ(fault.manner, Fault::Manner::kKill);
  EXPECT_TRUE(fault.is_lasting);
  EXPECT_FALSE(Fault::parse("0:load:oom").is_lasting);
  for (const char* text : {"", "x", "0:step", "0:step:x:kill", "0:nowhere:kill", "0:step:1:explode",
                           "-1:step:kill", "0:step:1:kill:never"})
    EXPECT_THROW(Fault::parse(text), Error) << text;
}

TEST(Faults_HappenAtTheirTurn, InTheFirstStartOnly) {
  FaultPlan plan("2:step:1:throw", 2, 0);
  plan.reach(Fault::Phase::kDecode);
  plan.reach(Fault::Phase::kStep);
  EXPECT_THROW(plan.reach(Fault::Phase::kStep), std::runtime_error);
  plan.reach(Fault::Phase::kStep);
  FaultPlan("2:load:throw", 1, 0).reach(Fault::Phase::kLoad);
  FaultPlan("2:load:throw", 2, 1).reach(Fault::Phase::kLoad);
  EXPECT_THROW(FaultPlan("2:load:throw:always", 2, 1).reach(Fault::Phase::kLoad), std::runtime_error);
}

}  // namespace
}  // namespace atelier::cluster
