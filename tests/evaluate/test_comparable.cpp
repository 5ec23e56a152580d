// Which tokenizers' files stand in one table.
#include <fmt/format.h>

#include "evaluate_fixture.h"
#include "spectralquant/evaluate/comparable.h"

namespace spectralquant::evaluate {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class ComparableTest : public testing::Test {
 protected:
  ComparableTest()
      : reference_(model::tiny::make_metadata({})), candidate_(model::tiny::make_metadata({})) {
    candidate_.place = "candidate.gguf";
  }
  std::vector<std::string> notes() const { return compare_tokenizers(reference_, candidate_); }
  std::string refused() const {
    return refusal([&] { notes(); });
  }
  std::vector<std::string> strings(const char* key) const {
    const auto views = reference_.find(key)->strings();
    return {views.begin(), views.end()};
  }
  gguf::Metadata reference_, candidate_;
};

TEST_F(ComparableTest, EqualOnesNeedNoNote) { EXPECT_THAT(notes(), IsEmpty()); }

TEST_F(ComparableTest, OtherIdsFlagsAndTypesAreNotes) {
  const auto eos = reference_.require_int("tokenizer.ggml.eos_token_id");
  candidate_.set("tokenizer.ggml.eos_token_id", gguf::Value::of_u32(258));
  candidate_.set("tokenizer.ggml.bos_token_id", gguf::Value::of_u32(0));
  candidate_.set("tokenizer.ggml.add_bos_token", gguf::Value::of_bool(true));
  candidate_.erase("tokenizer.ggml.padding_token_id");
  auto types = reference_.find("tokenizer.ggml.token_type")->numbers();
  std::vector<std::int32_t> ids(types.begin(), types.end());
  ids[100] = 5;
  candidate_.set("tokenizer.ggml.token_type", model::tiny::of_i32s(ids));
  EXPECT_THAT(notes(), testing::UnorderedElementsAre(
                           fmt::format("eos_token_id is 258, the reference's is {}", eos),
                           "bos_token_id is 0, the reference has none",
                           fmt::format("it has no padding_token_id, the reference's is {}", eos),
                           "add_bos_token is true, the reference's is false",
                           "the type of token 100 is 5, the reference's is 1"));
  ids[50] = 5;
  candidate_ = model::tiny::make_metadata({});
  candidate_.set("tokenizer.ggml.token_type", model::tiny::of_i32s(ids));
  reference_ = model::tiny::make_metadata({});
  EXPECT_THAT(notes(), ElementsAre("the types of 2 tokens differ, the first of token 50"));
}

TEST_F(ComparableTest, SentencePieceIsItsTokensAndScores) {
  for (auto* metadata : {&reference_, &candidate_}) {
    metadata->set("tokenizer.ggml.model", gguf::Value::of_string("llama"));
    metadata->set("tokenizer.ggml.scores", model::tiny::of_i32s({3, 2, 1}));
  }
  candidate_.set("tokenizer.ggml.pre", gguf::Value::of_string("gpt-2"));  // means nothing here
  EXPECT_THAT(notes(), IsEmpty());
  candidate_.set("tokenizer.ggml.add_space_prefix", gguf::Value::of_bool(false));
  EXPECT_THAT(notes(), ElementsAre("add_space_prefix is false, the reference has none"));
  candidate_.set("tokenizer.ggml.scores", model::tiny::of_i32s({3, 1, 2}));
  EXPECT_THAT(refused(), HasSubstr("score 1 is another one"));
}

TEST_F(ComparableTest, OtherTokensMergesOrPretokenizersAreRefused) {
  auto tokens = strings("tokenizer.ggml.tokens");
  std::swap(tokens[3], tokens[4]);
  candidate_.set("tokenizer.ggml.tokens", gguf::Value::of_strings(tokens));
  EXPECT_THAT(refused(), HasSubstr("its tokenizer is not the reference's: token 3"));
  EXPECT_THAT(refused(), HasSubstr("candidate.gguf"));
  tokens.pop_back();
  candidate_.set("tokenizer.ggml.tokens", gguf::Value::of_strings(tokens));
  EXPECT_THAT(refused(), HasSubstr("it has 319 tokens, the reference 320"));

  candidate_ = model::tiny::make_metadata({});
  auto merges = strings("tokenizer.ggml.merges");
  std::swap(merges[0], merges[1]);
  candidate_.set("tokenizer.ggml.merges", gguf::Value::of_strings(merges));
  EXPECT_THAT(refused(), HasSubstr("merge 0"));

  candidate_ = model::tiny::make_metadata({});
  candidate_.set("tokenizer.ggml.pre", gguf::Value::of_string("gpt-2"));
  EXPECT_THAT(refused(), HasSubstr("pre-tokenizer"));

  candidate_ = model::tiny::make_metadata({});
  candidate_.erase("tokenizer.ggml.tokens");
  EXPECT_THAT(refused(), HasSubstr("it has 0 tokens"));
}

}  // namespace
}  // namespace spectralquant::evaluate
