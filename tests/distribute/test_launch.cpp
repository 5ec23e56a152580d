#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "spectralquant/core/error.h"
#include "spectralquant/distribute/launch.h"

namespace spectralquant::distribute {
namespace {

using ::testing::HasSubstr;

using Environment = std::map<std::string, std::string>;

Launch read(const Environment& environment) {
  return read_launch([&](const char* name) -> const char* {
    const auto it = environment.find(name);
    return it == environment.end() ? nullptr : it->second.c_str();
  });
}

std::string refusal(const Environment& environment) {
  try {
    read(environment);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadUsage);
    return error.what();
  }
  return "";
}

TEST(LaunchTest, WithoutALauncherOneProcess) {
  EXPECT_EQ(read({}).size, 1);
  EXPECT_EQ(read({{"RANK", "0"}, {"WORLD_SIZE", "1"}}).size, 1);
  EXPECT_EQ(read({{"MASTER_ADDR", "somewhere"}}).size, 1);
}

TEST(LaunchTest, Torchrun) {
  const Launch launch = read({{"RANK", "5"},
                              {"WORLD_SIZE", "8"},
                              {"LOCAL_RANK", "1"},
                              {"LOCAL_WORLD_SIZE", "4"},
                              {"MASTER_ADDR", "10.0.0.1"},
                              {"MASTER_PORT", "1234"},
                              {"TORCHELASTIC_USE_AGENT_STORE", "True"},
                              {"TORCHELASTIC_RESTART_COUNT", "2"}});
  EXPECT_EQ(launch.rank, 5);
  EXPECT_EQ(launch.size, 8);
  EXPECT_EQ(launch.local_rank, 1);
  EXPECT_EQ(launch.local_size, 4);
  EXPECT_EQ(launch.address, "10.0.0.1");
  EXPECT_EQ(launch.port, 1234);
  EXPECT_TRUE(launch.store_runs_elsewhere);
  EXPECT_EQ(launch.prefix, "spectralquant/2/");
}

TEST(LaunchTest, OpenMpi) {
  const Environment on_one_machine{{"OMPI_COMM_WORLD_RANK", "1"},
                                   {"OMPI_COMM_WORLD_SIZE", "2"},
                                   {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                                   {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}};
  const Launch launch = read(on_one_machine);
  EXPECT_EQ(launch.rank, 1);
  EXPECT_EQ(launch.local_size, 2);
  EXPECT_EQ(launch.address, "127.0.0.1");
  EXPECT_EQ(launch.port, kDefaultPort);
  EXPECT_FALSE(launch.store_runs_elsewhere);
  Environment on_two = on_one_machine;
  on_two["OMPI_COMM_WORLD_LOCAL_SIZE"] = "1";
  EXPECT_THAT(refusal(on_two), HasSubstr("MASTER_ADDR"));
  on_two["MASTER_ADDR"] = "node1";
  EXPECT_EQ(read(on_two).address, "node1");
}

TEST(LaunchTest, SlurmStepsAndNotItsBatchScripts) {
  const Environment step{{"SLURM_PROCID", "3"},      {"SLURM_STEP_NUM_TASKS", "4"},
                         {"SLURM_LOCALID", "1"},     {"SLURM_STEP_NODELIST", "gpu[07-12,15],x1"},
                         {"SLURM_JOB_ID", "123456"}, {"SLURM_STEP_ID", "0"}};
  const Launch launch = read(step);
  EXPECT_EQ(launch.rank, 3);
  EXPECT_EQ(launch.size, 4);
  EXPECT_EQ(launch.local_rank, 1);
  EXPECT_EQ(launch.address, "gpu07");
  EXPECT_GE(launch.port, 15000);
  Environment next_step = step;
  next_step["SLURM_STEP_ID"] = "1";
  EXPECT_NE(read(next_step).port, launch.port);
  next_step["SLURM_STEP_NODELIST"] = "login,gpu07";
  EXPECT_EQ(read(next_step).address, "login");
  EXPECT_EQ(read({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "4"}}).size, 1);
}

TEST(LaunchTest, WhatCannotBeIsNamed) {
  EXPECT_THAT(refusal({{"RANK", "0"}}), HasSubstr("RANK is set, WORLD_SIZE is not"));
  EXPECT_THAT(refusal({{"WORLD_SIZE", "2"}}), HasSubstr("WORLD_SIZE is set, RANK is not"));
  EXPECT_THAT(refusal({{"RANK", "two"}, {"WORLD_SIZE", "2"}}), HasSubstr("RANK is \"two\""));
  EXPECT_THAT(refusal({{"RANK", "-1"}, {"WORLD_SIZE", "2"}}), HasSubstr("RANK is \"-1\""));
  EXPECT_THAT(refusal({{"RANK", "2"}, {"WORLD_SIZE", "2"}}), HasSubstr("process 2 of 2"));
  EXPECT_THAT(refusal({{"RANK", "0"}, {"WORLD_SIZE", "0"}}), HasSubstr("process 0 of 0"));
  EXPECT_THAT(refusal({{"RANK", "0"}, {"WORLD_SIZE", "2"}}), HasSubstr("MASTER_ADDR"));
  EXPECT_THAT(
      refusal({{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "a"}, {"MASTER_PORT", "70000"}}),
      HasSubstr("MASTER_PORT is 70000"));
}

}  // namespace
}  // namespace spectralquant::distribute
