#include "spectralquant/tune/schedule.h"

#include <algorithm>
#include <cmath>

namespace spectralquant::tune {
namespace {

// Shares fixed when the stages begin. The first ones cost next to nothing, because what is left
// answers for them; the last ones are small because little is left to do so.
const std::vector<double> kFewShares = {.25, .5, .625, .75, .8125, .875, .9375, 1};
const std::vector<double> kShares = {.125,  .25,  .375,  .5,     .625,    .75,
                                     .8125, .875, .9375, .96875, .984375, 1};
const std::vector<double> kManyShares = {.0625, .125, .1875, .25,    .3125,   .375,
                                         .4375, .5,   .5625, .625,   .6875,   .75,
                                         .8125, .875, .9375, .96875, .984375, 1};

/// What is free in a run from the solved file.
const std::vector<Stage> kFromSolved = {{.875, 1}, {.9375, 1}, {1, 1}};

/// Tokens a weight from which a run starts from the original.
constexpr double kTokensToStartAnew = 0.75;

/// Steps from which the longer lists pay: about 50 and 100 a stage.
constexpr std::int64_t kStepsOfShares = 550, kStepsOfManyShares = 1700;

/// The shares after this one take half as many steps, but for the last.
constexpr double kShortFrom = 0.96;

constexpr std::int64_t kWarmUpSteps = 5;
constexpr double kEndOfStage = 0.1;

/// Column shares are rounded to this many columns.
constexpr std::int64_t kColumnUnit = 4;

/// Steps of a small run, and the batch of a large one: more tokens a step gain nothing.
constexpr std::int64_t kStepsOfSmallRun = 1024, kSmallestBatch = 2048, kLargestBatch = 32768;

/// Tokens for a model of so many weights or fewer. Larger models get fewer, as each costs more: on
/// an H200 about 6 minutes for 5 million weights, 10 for 36 million, an hour for a billion.
constexpr double kBestTokens = 130e6, kBestWeights = 5e6, kBestPower = 0.25;

/// On a CPU: tokens at most; tokens times weights; tokens a weight below which nothing is gained.
constexpr double kCpuTokens = 1.5e6, kCpuWork = 7e12, kFewestTokens = 0.1;

/// Of a stage's steps.
double weight_of(const Stage& stage) {
  return stage.to == 1 && stage.from > kShortFrom && stage.from < 1 ? 0.5 : 1;
}

/// Of a run from the original.
std::vector<Stage> fixed_for_good(std::int64_t n_steps) {
  const auto& shares = n_steps >= kStepsOfManyShares ? kManyShares
                       : n_steps >= kStepsOfShares   ? kShares
                                                     : kFewShares;
  std::vector<Stage> stages;
  for (const double share : shares) stages.push_back({share, 1});
  return stages;
}

}  // namespace

Start start_of(std::int64_t n_tokens, std::int64_t n_weights) {
  return static_cast<double>(n_tokens) < kTokensToStartAnew * static_cast<double>(n_weights)
             ? Start::kSolved
             : Start::kOriginal;
}

std::vector<Stage> make_stages(Start start, std::int64_t n_steps) {
  std::vector<Stage> stages = start == Start::kSolved ? kFromSolved : fixed_for_good(n_steps);
  double weight = 0;
  for (const Stage& stage : stages) weight += weight_of(stage);
  double done = 0;
  std::int64_t given = 0;
  for (Stage& stage : stages) {
    done += weight_of(stage);
    const auto until =
        static_cast<std::int64_t>(std::llround(done / weight * static_cast<double>(n_steps)));
    stage.n_steps = until - given;
    given = until;
  }
  return stages;
}

double rate_at(std::int64_t step, std::int64_t n_steps, bool last_stage) {
  const std::int64_t warm_up = last_stage ? std::max(kWarmUpSteps, n_steps / 20) : kWarmUpSteps;
  const double rise = std::min(1.0, static_cast<double>(step + 1) / static_cast<double>(warm_up));
  const double done = static_cast<double>(step) / static_cast<double>(n_steps);
  if (last_stage) return rise * 0.5 * (1 + std::cos(M_PI * done));
  return rise * (done < 0.5 ? 1 : 1 - (1 - kEndOfStage) * (2 * done - 1));
}

std::int64_t columns_of(double share, std::int64_t n_columns) {
  return std::llround(share * static_cast<double>(n_columns) / kColumnUnit) * kColumnUnit;
}

std::int64_t default_batch_tokens(std::int64_t n_tokens) {
  return std::clamp(n_tokens / kStepsOfSmallRun, kSmallestBatch, kLargestBatch);
}

std::int64_t default_tokens(std::int64_t n_weights, bool on_cpu) {
  const double weights = std::max(1.0, static_cast<double>(n_weights));
  if (on_cpu) {
    const double tokens = std::min(kCpuTokens, kCpuWork / weights);
    return tokens < kFewestTokens * weights ? 0 : std::llround(tokens);
  }
  const double share = std::min(1.0, std::pow(kBestWeights / weights, kBestPower));
  return std::llround(kBestTokens * share / kLargestBatch) * kLargestBatch;
}

}  // namespace spectralquant::tune
