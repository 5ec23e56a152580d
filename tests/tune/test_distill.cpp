#include "spectralquant/tune/blocks.h"
#include "spectralquant/tune/checkpoint.h"
#include "tune/tune_fixture.h"

namespace spectralquant::tune {
namespace {

using ::testing::HasSubstr;

class DistillTest : public ShortRunTest {
 protected:
  DistillTest() : ShortRunTest(24) {
    torch::set_num_threads(1);
    options_.patience = 100;
  }

  TensorBytes run(const Progress& progress = {}, const std::string& checkpoint = {}) {
    return distill(*original_, *solved_, text_, options_, torch::kCPU, checkpoint, "key", report_,
                   progress);
  }

  DistillReport report_;
};

TEST_F(DistillTest, TheStudentStartsAsTheSolvedFile) {
  open();
  Student student(*original_, *solved_, 0.35, torch::kCPU);
  EXPECT_TRUE(is_solved(student.pack()));
  EXPECT_EQ(student.names().size(), solved_->tensors().size());
  model::Model model(*original_);
  student.put_into(model);
  for (const gguf::Tensor& tensor : solved_->tensors())
    EXPECT_TRUE(torch::equal(model.weights().get(tensor.name), decode(tensor))) << tensor.name;
}

TEST_F(DistillTest, LowersTheDivergenceOnTextItHasNotSeen) {
  open();
  const TensorBytes tuned = run();
  EXPECT_EQ(report_.n_steps, 24);
  EXPECT_EQ(report_.n_tokens, 24 * 128);
  EXPECT_GT(report_.best_step, 0);
  EXPECT_LT(report_.held_end, 0.95 * report_.held_start);
  EXPECT_LT(report_.calibration_end, 0.95 * report_.calibration_start);
  EXPECT_EQ(tuned.size(), solved_->tensors().size());
  EXPECT_FALSE(is_solved(tuned));
  double lowest = report_.held_start;
  for (const auto& [step, kl] : report_.curve) lowest = std::min(lowest, kl);
  EXPECT_NEAR(report_.held_end, lowest, 1e-9);  // that of the packed tensors is that of the student
}

TEST_F(DistillTest, AHeadOfItsOwnAndBfloat16) {
  model::TinyOptions tiny;
  tiny.tied = false;
  open(tiny);
  options_.bfloat16 = true;
  run();
  EXPECT_LT(report_.held_end, report_.held_start);
  EXPECT_GT(report_.best_step, 0);
}

TEST_F(DistillTest, NeverReturnsWorseThanTheStart) {
  open();
  options_.rate = 5000;
  options_.adam.damping = 0.1;
  options_.patience = 3;
  const TensorBytes tuned = run();
  EXPECT_TRUE(is_solved(tuned));
  EXPECT_EQ(report_.best_step, 0);
  EXPECT_EQ(report_.held_end, report_.held_start);
  EXPECT_EQ(report_.curve.size(), 4u);  // the start and three that were no better
  EXPECT_LT(report_.steps_done, report_.n_steps);
}

TEST_F(DistillTest, AStoppedRunGoesOnToTheSameResult) {
  open();
  const TensorBytes whole = run();
  const DistillReport expected = report_;
  const std::string checkpoint = path("checkpoint.gguf");
  struct Stop {};
  for (const int after : {5, 13}) {
    int calls = 0;
    EXPECT_THROW(run(
                     [&](const ProgressEvent&) {
                       if (++calls > after) throw Stop{};
                     },
                     checkpoint),
                 Stop);
    ASSERT_TRUE(std::filesystem::exists(checkpoint));
  }
  int steps = 0;
  const TensorBytes resumed = run([&](const ProgressEvent&) { ++steps; }, checkpoint);
  EXPECT_LT(steps, 12);  // most were done before
  EXPECT_TRUE(resumed == whole);
  EXPECT_EQ(report_.curve, expected.curve);
  EXPECT_EQ(report_.held_end, expected.held_end);
  EXPECT_EQ(report_.calibration_start, expected.calibration_start);

  options_.rate = 90;  // another run does not take it up
  steps = 0;
  run([&](const ProgressEvent&) { ++steps; }, checkpoint);
  EXPECT_EQ(steps, 25);
}

TEST_F(DistillTest, BlockByBlockLowersTheDivergenceToo) {
  open();
  options_.tokens = 12 * 128;
  options_.rate = 30;
  const TensorBytes tuned =
      distill_blocks(*original_, *solved_, text_, options_, torch::kCPU, report_);
  EXPECT_EQ(report_.steps_done, 2);
  EXPECT_EQ(report_.curve.size(), 2u);
  EXPECT_LT(report_.held_end, report_.held_start);
  EXPECT_FALSE(tuned.contains("token_embd.weight"));
  EXPECT_TRUE(tuned.contains("blk.1.ffn_down.weight"));
  // The figure at the end is that of the file.
  const DistillReport blocks = report_;
  options_.rate = 1e-9;
  run();
  EXPECT_NEAR(blocks.held_start, report_.held_start, 1e-6);
  model::Model original(*original_), student(*original_);
  for (const gguf::Tensor& tensor : solved_->tensors())
    student.weights().set(tensor.name, decode(tensor));
  put_packed(tuned, *solved_, student);
  const torch::Tensor tokens =
      model::to_tensor(text_.held_aside, 0, text_.held_aside.size(), torch::kCPU);
  const torch::Tensor log_p = original.forward(tokens).log_softmax(-1),
                      log_q = student.forward(tokens).log_softmax(-1);
  EXPECT_NEAR((log_p.exp() * (log_p - log_q)).sum(-1).mean().item<double>(), blocks.held_end, 1e-5);
}

TEST_F(DistillTest, BlockByBlockNeverReturnsWorseThanTheStart) {
  open();
  options_.tokens = 4 * 128;
  options_.rate = 50000;
  options_.adam.damping = 0;
  const TensorBytes tuned =
      distill_blocks(*original_, *solved_, text_, options_, torch::kCPU, report_);
  EXPECT_TRUE(tuned.empty() || is_solved(tuned));
  EXPECT_EQ(report_.held_end, report_.held_start);
}

TEST_F(DistillTest, RefusesWithoutTextToHoldAside) {
  open();
  text_.held_aside.clear();
  EXPECT_THAT(refusal([&] { run(); }), HasSubstr("hold aside"));
  EXPECT_THAT(
      refusal([&] { distill_blocks(*original_, *solved_, text_, options_, torch::kCPU, report_); }),
      HasSubstr("hold aside"));
}

}  // namespace
}  // namespace spectralquant::tune
