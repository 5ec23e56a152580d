// The close look: distributions, positions, and the tokens that differ most.
#include <algorithm>
#include <numeric>

#include "evaluate_fixture.h"
#include "spectralquant/evaluate/details.h"

namespace spectralquant::evaluate {
namespace {

TEST(HistogramTest, EveryTokenIsInTheBinOfItsKld) {
  Positions p;
  p.kld = {0, -1e-7f, 5e-7f, 1.1e-6f, 0.011f, 0.011f, 50, 1000};
  const auto h = kld_histogram(p);
  ASSERT_EQ(h.edges.size(), h.counts.size() + 1);
  EXPECT_EQ(h.edges.front(), 0);
  EXPECT_TRUE(std::isinf(h.edges.back()));
  EXPECT_TRUE(std::is_sorted(h.edges.begin(), h.edges.end()));
  EXPECT_EQ(std::accumulate(h.counts.begin(), h.counts.end(), std::int64_t{0}), 8);
  EXPECT_EQ(h.counts.front(), 3);
  EXPECT_EQ(h.counts.back(), 1);
  for (std::size_t b = 0; b < h.counts.size(); ++b) {
    if (h.edges[b] <= 0.011f && 0.011f < h.edges[b + 1]) {
      EXPECT_EQ(h.counts[b], 2);
    }
  }
}

class DetailTest : public SuiteFixture {
 protected:
  void SetUp() override {
    model::TinyOptions options;
    reference_file_.emplace(gguf::File::open(model::write_tiny_qwen35(path("p.gguf"), options)));
    options.seed = 2;
    candidate_file_.emplace(gguf::File::open(model::write_tiny_qwen35(path("q.gguf"), options)));
    std::string lines;
    for (const auto* text : {"the sea", "a river runs to the sea of stone, and the night is long",
                             "0123", "of night and stone", "to a"})
      lines += std::string("{\"text\": \"") + text + "\"}\n";
    spew(path("texts.jsonl"), lines);
    suite_ = load("", "texts.jsonl");
    Cache none;
    Subject reference(*reference_file_, {}), candidate(*candidate_file_, {});
    positions_ = Scorer(reference, none, {}).of_candidate(candidate, suite_);
  }
  std::optional<gguf::File> reference_file_, candidate_file_;
  Suite suite_;
  Positions positions_;
};

TEST_F(DetailTest, MeansByPositionAddUpToTheMean) {
  const auto by = kld_by_position(positions_, suite_);
  ASSERT_EQ(by.edges.size(), by.tokens.size() + 1);
  double sum = 0, n = 0;
  for (std::size_t b = 0; b < by.tokens.size(); ++b)
    sum += by.kld[b] * by.tokens[b], n += by.tokens[b];
  EXPECT_EQ(n, suite_.n_scored);
  EXPECT_NEAR(sum / n, summarize(positions_, nullptr, nullptr).kld.mean, 1e-6);
  EXPECT_EQ(by.edges[0], 1);
  EXPECT_EQ(by.tokens[0], 5);  // the second token of each document
}

TEST_F(DetailTest, TheWorstTokensAreShownWithWhatBothModelsWouldWrite) {
  Cache cache(path("cache"));
  Subject reference(*reference_file_, {}), candidate(*candidate_file_, {});
  const DetailOptions options{
      .n_worst = 6, .n_browsed = 2, .n_browsed_tokens = 8, .share_with_alternatives = 0.25};
  const auto details = look_closely(reference, candidate, suite_, positions_, cache, {}, options);
  ASSERT_EQ(details.worst.size(), 6u);
  const float largest = *std::max_element(positions_.kld.begin(), positions_.kld.end());
  EXPECT_EQ(positions_.kld[details.worst[0].alternatives.index], largest);
  torch::NoGradGuard no_grad;
  std::size_t rank = 0;
  for (const auto& w : details.worst) {
    const auto& a = w.alternatives;
    EXPECT_LE(positions_.kld[a.index],
              positions_.kld[details.worst[rank == 0 ? 0 : rank - 1].alternatives.index]);
    ++rank;
    const auto& item = suite_.items[w.item];
    const auto tokens =
        torch::tensor(std::vector<std::int64_t>(item.tokens.begin(), item.tokens.end()))
            .unsqueeze(0);
    for (auto* side : {&reference, &candidate}) {
      const auto& top = side == &reference ? a.reference : a.candidate;
      const auto p = side->model().forward(tokens)[0][w.position - 1].softmax(-1);
      EXPECT_EQ(top.tokens[0], p.argmax().item<std::int64_t>());
      for (int k = 0; k < kTopTokens; ++k)
        EXPECT_NEAR(top.probabilities[k], p[top.tokens[k]].item<float>(), 1e-5);
    }
  }
  ASSERT_EQ(details.browsed.size(), 2u);
  EXPECT_EQ(details.browsed[0].item, 0u);
  EXPECT_EQ(details.browsed[1].item, 2u);
  EXPECT_EQ(details.browsed[1].n_tokens, std::min<std::size_t>(8, suite_.items[2].n_scored()));
  EXPECT_EQ(details.browsed[1].alternatives.size(), (details.browsed[1].n_tokens + 3) / 4);

  Subject idle_reference(*reference_file_, {}), idle_candidate(*candidate_file_, {});
  const auto again =
      look_closely(idle_reference, idle_candidate, suite_, positions_, cache, {}, options);
  EXPECT_FALSE(idle_reference.is_loaded() || idle_candidate.is_loaded());
  EXPECT_EQ(again.worst[3].alternatives.candidate.tokens,
            details.worst[3].alternatives.candidate.tokens);
}

}  // namespace
}  // namespace spectralquant::evaluate
