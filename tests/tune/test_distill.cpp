#include <ATen/Parallel.h>

#include "spectralquant/model/decode.h"
#include "spectralquant/tune/checkpoint.h"
#include "tune/tune_fixture.h"

namespace spectralquant::tune {
namespace {

using ::testing::HasSubstr;

class DistillTest : public ShortRunTest {
 protected:
  DistillTest() : ShortRunTest(32) { at::set_num_threads(1); }

  TensorBytes run(const Progress& progress = {}, const std::string& checkpoint = {}) {
    return distill(*original_, *solved_, text_, options_, torch::kCPU, checkpoint, "key", report_,
                   progress);
  }

  DistillReport report_;
};

TEST_F(DistillTest, TheStudentStartsAsTheOriginal) {
  open();
  Student student(*original_, *solved_, Start::kOriginal, torch::kCPU);
  EXPECT_EQ(student.ids().size(), solved_->tensors().size());
  model::Model model(*original_);
  student.put_into(model);
  for (const gguf::Tensor& tensor : original_->tensors())
    EXPECT_LT(difference(model.weights().get(tensor.name), model::decode(tensor)), 1e-6)
        << tensor.name;
}

TEST_F(DistillTest, EndsWithTheFileItMeasuredAndBeatsTheSolvedOne) {
  open();
  const TensorBytes tuned = run();
  EXPECT_EQ(report_.n_steps, 32);
  EXPECT_EQ(report_.n_tokens, 32 * 128);
  EXPECT_EQ(report_.stages.size(), 8u);
  EXPECT_EQ(report_.stages.back().share, 1);
  EXPECT_LT(report_.held_end, report_.held_start);
  EXPECT_TRUE(report_.gained());
  EXPECT_EQ(tuned.size(), solved_->tensors().size());
  // the state at the end of the last stage is the file, to the last bit
  EXPECT_EQ(report_.held_end, report_.stages.back().held_after);
  model::Model original(*original_), student(*original_);
  put_packed(tuned, *solved_, student);
  const torch::Tensor tokens =
      model::to_tensor(text_.held_aside, 0, text_.held_aside.size(), torch::kCPU);
  const torch::Tensor log_p = original.forward(tokens).log_softmax(-1),
                      log_q = student.forward(tokens).log_softmax(-1);
  EXPECT_NEAR((log_p.exp() * (log_p - log_q)).sum(-1).mean().item<double>(), report_.held_end,
              1e-5);
}

TEST_F(DistillTest, FromTheSolvedFileItBeginsWhereThatStands) {
  open();
  Student student(*original_, *solved_, Start::kSolved, torch::kCPU);
  model::Model model(*original_);
  student.put_into(model);
  for (const gguf::Tensor& tensor : solved_->tensors())
    EXPECT_LT(difference(model.weights().get(tensor.name), model::decode(tensor)), 1e-6)
        << tensor.name;
  options_.start = Start::kSolved;
  EXPECT_FALSE(run().empty());
  EXPECT_NEAR(report_.stages.front().held_before, report_.held_start, 1e-6);
  EXPECT_LT(report_.held_end, report_.held_start);
}

TEST_F(DistillTest, ColumnsThatAreFreedStandWhereTheyStood) {
  open();
  Student student(*original_, *solved_, Start::kSolved, torch::kCPU);
  const std::string name = "blk.0.ffn_up.weight";
  quantize::PartialMatrix& matrix = *student.matrix(name);
  const std::int64_t cols = matrix.cols();
  const torch::Tensor before = matrix.weight.detach().clone(), h = torch::eye(cols);
  student.set_free({name}, {0.75, 1}, {h, {}, {}}, {});
  EXPECT_EQ(matrix.fixed.sum().item<std::int64_t>(), cols * 3 / 4);
  EXPECT_TRUE(torch::equal(matrix.weight.detach(), before));
  // the next part is freed, the first one fixed: its error goes into what is free
  student.set_free({name}, {0.5, 0.75}, {h, {}, {}}, {});
  EXPECT_EQ(matrix.fixed.sum().item<std::int64_t>(), cols * 3 / 4);
  student.set_free({name}, {1, 1}, {h, {}, {}}, {});
  EXPECT_TRUE(matrix.all_fixed());
  EXPECT_LT(difference(matrix.weight.detach(), before), 0.05);
}

TEST_F(DistillTest, TrainingIsWhatGains) {
  open();
  options_.rate = 1e-9;
  run();
  const double untrained = report_.stages.back().held_after;
  options_.rate = 0;  // the usual
  run();
  EXPECT_LT(report_.held_end, 0.9 * untrained);
}

TEST_F(DistillTest, AHeadOfItsOwn) {
  model::TinyOptions tiny;
  tiny.tied = false;
  open(tiny);
  run();
  EXPECT_LT(report_.held_end, report_.held_start);
}

TEST_F(DistillTest, NothingIsReturnedThatIsWorseThanTheSolvedFile) {
  open();
  options_.rate = 0.9;  // weights of noise
  EXPECT_TRUE(run().empty());
  EXPECT_FALSE(report_.gained());
}

TEST_F(DistillTest, FixedColumnsStandAndTheRestMoves) {
  open();
  Student student(*original_, *solved_, Start::kOriginal, torch::kCPU);
  const std::string name = "blk.0.ffn_up.weight";
  quantize::PartialMatrix& matrix = *student.matrix(name);
  const std::int64_t cols = matrix.cols();
  const torch::Tensor h = torch::eye(cols);
  student.set_free({name}, {0.5, 1}, {h, {}, {}}, {});
  student.begin_stage();
  const torch::Tensor before = matrix.weight.detach().clone(), code = matrix.code.clone();
  std::vector<torch::Tensor> gradients(student.ids().size());
  torch::manual_seed(1);
  for (std::size_t i = 0; i < gradients.size(); ++i) {
    if (student.ids()[i] == name) gradients[i] = torch::randn_like(student.leaves()[i]);
  }
  student.update(gradients, {1e-2, 0, 1e-2}, 0, 0);
  const torch::Tensor fixed = matrix.fixed > 0, moved = (matrix.weight.detach() != before).any(0);
  EXPECT_EQ(fixed.sum().item<std::int64_t>(), cols / 2);
  EXPECT_TRUE(torch::equal(moved, fixed.logical_not()));
  // d and dmin move all that is fixed, to values of the format
  student.update(gradients, {0, 1e-2, 0}, 1, 1);
  EXPECT_TRUE(torch::equal(matrix.code, code));
  EXPECT_TRUE(torch::equal(matrix.d, matrix.d.to(torch::kFloat16).to(torch::kFloat32)));
  EXPECT_EQ(difference(matrix.decode().index({torch::indexing::Slice(), fixed}),
                       matrix.weight.detach().index({torch::indexing::Slice(), fixed})),
            0);
  EXPECT_GT(difference(matrix.weight.detach(), before), 0);
}

TEST_F(DistillTest, AStoppedRunGoesOnToTheSameResult) {
  open();
  const TensorBytes whole = run();
  const DistillReport expected = report_;
  const std::string checkpoint = path("checkpoint.gguf");
  struct Stop {};
  for (const int after : {0, 7, 19}) {  // as a stage begins, and within two
    int calls = 0;
    EXPECT_THROW(run(
                     [&](const ProgressEvent&) {
                       if (++calls > after) throw Stop{};
                     },
                     checkpoint),
                 Stop);
    ASSERT_TRUE(std::filesystem::exists(checkpoint));
  }
  int events = 0;
  const TensorBytes resumed = run([&](const ProgressEvent&) { ++events; }, checkpoint);
  EXPECT_LT(events, 24);  // most were done before
  EXPECT_TRUE(resumed == whole);
  EXPECT_EQ(report_.held_end, expected.held_end);
  EXPECT_EQ(report_.held_start, expected.held_start);
  ASSERT_EQ(report_.stages.size(), expected.stages.size());
  for (std::size_t i = 0; i < expected.stages.size(); ++i)
    EXPECT_EQ(report_.stages[i].held_after, expected.stages[i].held_after);

  options_.rate = 1e-3;  // another run does not take it up
  events = 0;
  run([&](const ProgressEvent&) { ++events; }, checkpoint);
  EXPECT_EQ(events, 40);
}

TEST_F(DistillTest, RefusesWithoutTextToHoldAside) {
  open();
  text_.held_aside.clear();
  EXPECT_THAT(refusal([&] { run(); }), HasSubstr("hold aside"));
}

}  // namespace
}  // namespace spectralquant::tune
