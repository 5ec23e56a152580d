// The command line that makes a file again, from its metadata.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "bash_words.h"
#include "pipeline/pipeline_fixture.h"
#include "spectralquant/pipeline/provenance.h"
#include "spectralquant/pipeline/quantize_command.h"

namespace spectralquant::pipeline {
namespace {

using testing::HasSubstr;

gguf::Metadata metadata_on_two_threads(const QuantizeOptions& options) {
  gguf::Metadata metadata;
  metadata.set("spectralquant.options", gguf::Value::of_string(options_json(options)));
  metadata.set("spectralquant.seed", gguf::Value::of_u64(options.seed));
  metadata.set("spectralquant.threads", gguf::Value::of_u32(2));
  return metadata;
}

std::string command(const std::function<void(QuantizeOptions&)>& change) {
  QuantizeOptions options;
  change(options);
  return quantize_command(metadata_on_two_threads(options), "in.gguf", "out.gguf");
}

TEST(QuantizeCommand, SaysWhatDiffersFromTheDefaults) {
  EXPECT_EQ(command([](auto& o) { o.calibration.files = {"texts/a.txt"}; }),
            "spectralquant quantize in.gguf -o out.gguf --calibration a.txt --threads 2");
  EXPECT_EQ(command([](auto& o) { o.method = Method::kPlain; }),
            "spectralquant quantize in.gguf -o out.gguf --method plain --threads 2");
  const std::vector<std::pair<std::function<void(QuantizeOptions&)>, std::string>> cases = {
      {[](auto& o) { o.calibration.self_temperature = 0.75; }, " --self-temperature 0.75"},
      {[](auto& o) { o.two_sided = false; }, " --effort fast"},
      {[](auto& o) { o.drift_correction = 0, o.solver.feedback = false; },
       " --without drift feedback --threads"},
      {[](auto& o) { o.solver.rounds = 0; }, " --without sweeps"},
      {[](auto& o) { o.plan.fallback = gguf::Type::Q8_0; }, " --fallback q8_0"},
      {[](auto& o) { o.plan.type = gguf::Type::Q6_K; }, " --type q6_k"},
      {[](auto& o) { o.device = "cuda:1"; }, " --device cuda:1"},
      {[](auto& o) { o.tune.tokens = 4096; }, " --tune 4096 --threads"},
      {[](auto& o) { o.solver.damping = 0.5; }, " --threads 2  # no option says: damping 0.5"},
  };
  for (const auto& [change, flag] : cases) EXPECT_THAT(command(change), HasSubstr(flag));
}

TEST(QuantizeCommand, NamesEverySource) {
  EXPECT_THAT(command([](auto& o) {
                o.calibration.files = {"x/a.jsonl", "it's b.txt", "1+1.txt"};
                o.calibration.self_tokens = 1000;
              }),
              HasSubstr("--calibration a.jsonl 'it'\\''s b.txt' 1+1.txt self:1000"));
  EXPECT_THAT(command([](auto& o) { o.signals_file = "x/s.gguf"; }),
              HasSubstr(" --signals s.gguf --threads"));
}

TEST(QuantizeCommand, RefusesWhatItDoesNotKnow) {
  gguf::Metadata metadata;
  metadata.place = "other.gguf";
  EXPECT_THAT(refusal([&] { quantize_command(metadata, "a", "b"); }),
              HasSubstr("does not say how it was made"));
  for (const auto* options :
       {R"({"method":"spectral","new_option":3})", R"({"method":"spectral","damping":"much"})",
        R"({"method":7})", R"({"method":"other"})"}) {
    metadata.set("spectralquant.options", gguf::Value::of_string(options));
    EXPECT_THAT(refusal([&] { quantize_command(metadata, "a", "b"); }),
                HasSubstr("an option that this version does not know"));
  }
}

TEST(QuantizeCommand, ValuesOfTheFileAreWords) {
  QuantizeOptions options;
  options.calibration.files = {"it's $(touch owned).txt", "-x", "line\nbreak"};
  options.device = "`touch owned`; $HOME";
  options.solver.damping = 0.5;  // stands in a comment behind the command
  const auto commands = test::bash_words(
      quantize_command(metadata_on_two_threads(options), "-in $x.gguf", "the\nout.gguf"));
  ASSERT_EQ(commands.size(), 1u);
  EXPECT_EQ(commands[0],
            (test::Words{"spectralquant", "quantize", "./-in $x.gguf", "-o", "the\nout.gguf",
                         "--device", "`touch owned`; $HOME", "--calibration",
                         "it's $(touch owned).txt", "./-x", "line\nbreak", "--threads", "2"}));
}

}  // namespace
}  // namespace spectralquant::pipeline
