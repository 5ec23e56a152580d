// Multiple-choice questions: what is read, what is scored, how answers are counted.
#include <cmath>

#include "evaluate_fixture.h"
#include "spectralquant/evaluate/choice.h"

namespace spectralquant::evaluate {
namespace {

using testing::HasSubstr;

class ChoiceTest : public SuiteFixture {
 protected:
  ChoiceSuite read(const std::string& lines) {
    spew(path("q.jsonl"), lines);
    return load_choices("sense=" + path("q.jsonl"), tokenizer());
  }
  std::string refused(const std::string& lines) {
    return refusal([&] { read(lines); });
  }
};

TEST_F(ChoiceTest, EveryChoiceIsScoredAfterItsQuestion) {
  const auto choices =
      read(R"({"question": "the river runs to", "choices": ["the sea", "stone"], "answer": 0})"
           "\n\n"
           R"({"prompt": "0123 ", "choices": ["4", "55", "6"], "answer": "C"})");
  ASSERT_EQ(choices.questions.size(), 2u);
  EXPECT_EQ(choices.questions[0].answer, 0u);
  EXPECT_EQ(choices.questions[1].answer, 2u);
  EXPECT_EQ(choices.questions[1].first_item, 2u);
  EXPECT_EQ(choices.questions[0].bytes, (std::vector<std::size_t>{7, 5}));
  EXPECT_EQ(choices.questions[1].place, path("q.jsonl") + ":3");
  ASSERT_EQ(choices.suite.items.size(), 5u);
  EXPECT_EQ(choices.suite.items[0].tokens, tokenizer().encode("the river runs to the sea"));
  EXPECT_EQ(choices.suite.items[4].tokens, tokenizer().encode("0123 6"));
  std::int64_t n = 0;
  for (const auto& item : choices.suite.items) {
    EXPECT_GE(item.first_scored, 1);
    n += static_cast<std::int64_t>(item.n_scored());
  }
  EXPECT_EQ(choices.suite.n_scored, n);
  EXPECT_EQ(choices.suite.items[0].first_scored,
            static_cast<std::int64_t>(tokenizer().encode("the river runs to").size()));
  EXPECT_EQ(choices.suite.n_units, 2);
}

TEST_F(ChoiceTest, ReadsListsWithLabelsAndAnswersAsText) {
  const auto choices = read(
      R"({"question": "q", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answer": "2"})"
      "\n"
      R"({"question": "q", "choices": ["x", "y"], "answer": "y"})");
  EXPECT_EQ(choices.questions[0].answer, 1u);
  EXPECT_EQ(choices.questions[1].answer, 1u);
}

TEST_F(ChoiceTest, ReadsAnArrayAsWell) {
  const auto choices = read(R"([{"question": "q", "choices": ["x", "y"], "answer": 0},
                                {"question": "q", "choices": ["x", "y"], "answer": 1}])");
  ASSERT_EQ(choices.questions.size(), 2u);
  EXPECT_EQ(choices.questions[1].answer, 1u);
  EXPECT_EQ(choices.questions[1].place, path("q.jsonl") + ", item 2");
}

TEST_F(ChoiceTest, RefusesWithFileAndLine) {
  const std::string good = R"({"question": "q", "choices": ["x", "y"], "answer": 0})";
  EXPECT_THAT(refused(good + "\n{\"question\": \"q\"}"), HasSubstr("q.jsonl:2"));
  EXPECT_THAT(refused("{\"question\": \"q\", \"choices\": [\"x\"]}"),
              HasSubstr("fewer than two choices"));
  EXPECT_THAT(refused("{\"choices\": [\"x\", \"y\"], \"answer\": 0}"),
              HasSubstr("neither \"question\" nor \"prompt\""));
  EXPECT_THAT(refused(R"({"question": "q", "choices": ["x", 3], "answer": 0})"),
              HasSubstr("a choice is no text"));
  for (const auto* answer : {"2", "-1", "\"Z\"", "null", "0.5"})
    EXPECT_THAT(refused(R"({"question": "q", "choices": ["x", "y"], "answer": )" +
                        std::string(answer) + "}"),
                HasSubstr("none of the choices"))
        << answer;
  EXPECT_THAT(refused("no json"), HasSubstr("is named as JSON, but is none"));
  EXPECT_THAT(refused("{\"question\": \"\xff\"}"), HasSubstr("not UTF-8"));
  EXPECT_THAT(refused("\n"), HasSubstr("holds no question"));
  EXPECT_THAT(refusal([&] { load_choices("a=" + path("none.jsonl"), tokenizer()); }),
              HasSubstr("cannot read"));
  for (const auto* text : {"file.jsonl", "=file.jsonl", "name="})
    EXPECT_THAT(refusal([&] { load_choices(text, tokenizer()); }), HasSubstr("NAME=FILE")) << text;
}

/// Positions with the given loss on every scored token of each item.
Positions with_losses(const ChoiceSuite& choices, const std::vector<float>& by_item) {
  Positions out;
  for (std::size_t i = 0; i < by_item.size(); ++i) {
    const auto n = choices.suite.items[i].n_scored();
    out.loss.insert(out.loss.end(), n, by_item[i] / static_cast<float>(n));
  }
  return out;
}

TEST_F(ChoiceTest, SpecialTokensAreLettersUnlessAskedFor) {
  spew(path("special.jsonl"),
       R"({"question": "<|im_start|>q", "choices": ["0", "1"], "answer": 0})");
  const auto load = [&](const char* end) {
    return load_choices("quiz=" + path("special.jsonl") + end, tokenizer()).suite.items[0].tokens;
  };
  EXPECT_EQ(load(":+special"), tokenizer().encode("<|im_start|>q 0"));
  EXPECT_EQ(load(""), tokenizer().encode("<|im_start|>q 0", {.parse_special = false}));
}

TEST_F(ChoiceTest, AModelWithoutNumbersHasNoFigures) {
  const auto choices = read(R"({"question": "q", "choices": ["0", "1"], "answer": 0})");
  const auto reference = with_losses(choices, {1, 5}), model = with_losses(choices, {NAN, 5});
  const auto score = score_choices(choices, reference, model, {});
  EXPECT_FALSE(score.is_finite());
  EXPECT_TRUE(std::isnan(score.accuracy.mean));
  EXPECT_EQ(score.gained + score.lost, 0);
}

TEST_F(ChoiceTest, CountsAnswersAndFlips) {
  std::string lines;
  for (int q = 0; q < 4; ++q)
    lines += R"({"question": "q", "choices": ["0", "1111111111"], "answer": 0})"
             "\n";
  const auto choices = read(lines);
  //                                         right      right      wrong      wrong
  const auto reference = with_losses(choices, {1, 5, 1, 5, 5, 4, 5, 4});
  // loses the second, gains the third
  const auto model = with_losses(choices, {1, 5, 6, 5, 3, 4, 5, 4});
  const auto score = score_choices(choices, reference, model, {});
  EXPECT_DOUBLE_EQ(score.accuracy.mean, 0.5);
  EXPECT_DOUBLE_EQ(score.accuracy_per_byte.mean, 0.0);  // ten bytes make the long choice cheap
  EXPECT_DOUBLE_EQ(score.agreement.mean, 0.5);
  EXPECT_EQ(score.gained, 1);
  EXPECT_EQ(score.lost, 1);
  EXPECT_LT(score.accuracy.low, score.accuracy.high);
  const auto self = score_choices(choices, reference, reference, {});
  EXPECT_DOUBLE_EQ(self.agreement.mean, 1.0);
  EXPECT_EQ(self.gained + self.lost, 0);
}

}  // namespace
}  // namespace spectralquant::evaluate
