// Errors whose place among the directions is known, and laws that hold for any error.
#include "calibrate/calibrate_fixture.h"
#include "spectralquant/spectra/error_split.h"

namespace spectralquant::spectra {
namespace {

constexpr std::int64_t kRows = 20, kCols = 100;

torch::Tensor moment(std::int64_t n, double factor) {
  const torch::Tensor q = std::get<0>(torch::linalg_qr(torch::randn({n, n}, torch::kFloat64)));
  const torch::Tensor values =
      torch::pow(torch::full({n}, factor, torch::kFloat64), torch::arange(n, torch::kFloat64));
  const torch::Tensor m = q.mm(torch::diag(values)).mm(q.t());
  return ((m + m.t()) / 2).to(torch::kFloat32);
}

/// ½ (Σ G_rs e_r H e_s + Σ f_r e_r C e_r), term by term.
double plain_cost(const torch::Tensor& e, const Cost& cost) {
  const torch::Tensor ed = e.to(torch::kFloat64);
  const torch::Tensor eh = ed.mm(cost.h.to(torch::kFloat64)).mm(ed.t());
  const torch::Tensor g = cost.g.dim() == 1 ? torch::diag(cost.g) : cost.g;
  double sum = (g.to(torch::kFloat64) * eh).sum().item<double>();
  if (cost.c.defined())
    sum += (cost.frequency.to(torch::kFloat64) *
            ed.mm(cost.c.to(torch::kFloat64)).mm(ed.t()).diagonal())
               .sum()
               .item<double>();
  return 0.5 * sum;
}

class ErrorSplitTest : public ::testing::Test {
 protected:
  ErrorSplitTest() {
    torch::manual_seed(5);
    cost_ = {moment(kCols, 0.9), moment(kRows, 0.7), {}, {}, false};
    weights_ = torch::randn({kRows, kCols});
    look();
  }
  void look() {
    spectra_ = {decompose(cost_.h), decompose(cost_.g), {}, false};
    if (cost_.c.defined()) spectra_.lookup = decompose(cost_.c);
  }
  ErrorSplit split(const torch::Tensor& e) const {
    return split_error(weights_, weights_ + e.to(torch::kFloat32), cost_, spectra_);
  }

  Cost cost_;
  MatrixSpectra spectra_;
  torch::Tensor weights_;
};

TEST_F(ErrorSplitTest, CostIsTheQuadraticForm) {
  const torch::Tensor e = 0.01 * torch::randn({kRows, kCols});
  EXPECT_NEAR(split(e).predicted_kl / plain_cost(e, cost_), 1, 1e-4);
  cost_.frequency = torch::rand({kRows});
  cost_.c = moment(kCols, 0.95);
  look();
  const ErrorSplit tied = split(e);
  EXPECT_NEAR(tied.predicted_kl / plain_cost(e, cost_), 1, 1e-4);
  EXPECT_GT(tied.lookup_kl, 0);
  EXPECT_LT(tied.lookup_kl, tied.predicted_kl);
  ASSERT_TRUE(tied.lookup);
}

TEST_F(ErrorSplitTest, DiagonalMomentsAreTheirMatrices) {
  const torch::Tensor g = torch::rand({kRows}), h = torch::rand({kCols}),
                      e = 0.01 * torch::randn({kRows, kCols});
  cost_.g = g, cost_.h = h;
  look();
  const ErrorSplit a = split(e);
  cost_.g = torch::diag(g), cost_.h = torch::diag(h);
  look();
  const ErrorSplit b = split(e);
  EXPECT_NEAR(a.predicted_kl / b.predicted_kl, 1, 1e-6);
  for (std::size_t i = 0; i < kTopShares.size(); ++i) {
    EXPECT_NEAR(a.input->energy[i], b.input->energy[i], 1e-6);
    EXPECT_NEAR(a.output->cost[i], b.output->cost[i], 1e-6);
  }
}

TEST_F(ErrorSplitTest, AnErrorInTheTopDirectionIsFoundThere) {
  const torch::Tensor u = spectra_.input->directions.slice(1, 0, 1),
                      v = spectra_.output->directions.slice(1, 0, 1);
  const ErrorSplit s = split(v.mm(u.t()));
  EXPECT_NEAR(s.energy, 1, 1e-5);
  for (std::size_t i = 0; i < kTopShares.size(); ++i) {
    EXPECT_NEAR(s.input->energy[i], 1, 1e-5);
    EXPECT_NEAR(s.input->cost[i], 1, 1e-5);
    EXPECT_NEAR(s.output->energy[i], 1, 1e-5);
    EXPECT_NEAR(s.output->cost[i], 1, 1e-5);
  }
  EXPECT_NEAR(s.predicted_kl, 0.5, 1e-5);  // both largest eigenvalues are 1
}

TEST_F(ErrorSplitTest, AnErrorBesideTheTopDirectionsIsNotFoundThere) {
  const torch::Tensor u = spectra_.input->directions,
                      e = torch::randn({kRows, kCols}, torch::kFloat64);
  const ErrorSplit s = split(e - e.mm(u).mm(u.t()));
  for (std::size_t i = 0; i < kTopShares.size(); ++i) {
    EXPECT_NEAR(s.input->energy[i], 0, 1e-6);
    EXPECT_NEAR(s.input->cost[i], 0, 1e-4);
  }
  EXPECT_LT(s.predicted_kl, 0.2 * s.white_kl);  // the 80 % left hold .9²⁰ = 12 % of the trace
}

TEST_F(ErrorSplitTest, WhiteNoiseLiesWhereItsSizeSays) {
  weights_ = torch::zeros({kRows, kCols});
  double predicted = 0, white = 0, share[3] = {}, cost_share = 0;
  constexpr int kDraws = 200;
  for (int i = 0; i < kDraws; ++i) {
    const ErrorSplit s = split(torch::randn({kRows, kCols}));
    predicted += s.predicted_kl, white += s.white_kl, cost_share += s.input->cost[1] / kDraws;
    for (int k = 0; k < 3; ++k) share[k] += s.input->energy[k] / kDraws;
  }
  EXPECT_NEAR(predicted / white, 1, 0.03);
  EXPECT_NEAR(share[0], 0.01, 0.002);
  EXPECT_NEAR(share[1], 0.05, 0.003);
  EXPECT_NEAR(share[2], 0.20, 0.005);
  EXPECT_NEAR(cost_share, spectra_.input->share_of_top(5), 0.03);
}

TEST_F(ErrorSplitTest, SharesOfAllDirectionsSumToOne) {
  // An error that lives in the top 20 % alone: what is outside must be nothing, what is inside
  // everything.
  const torch::Tensor u = spectra_.input->directions,
                      e = torch::randn({kRows, kCols}, torch::kFloat64), inside = e.mm(u).mm(u.t());
  const ErrorSplit s = split(inside);
  EXPECT_NEAR(s.input->energy[2], 1, 1e-5);
  EXPECT_NEAR(s.input->cost[2], 1, 1e-5);
  // Energies of the two parts add up to that of the whole, and so do costs: H has no cross terms
  // between its own directions.
  const ErrorSplit rest = split(e - inside), whole = split(e);
  EXPECT_NEAR((s.energy + rest.energy) / whole.energy, 1, 1e-5);
  EXPECT_NEAR((s.predicted_kl + rest.predicted_kl) / whole.predicted_kl, 1, 1e-4);
  EXPECT_NEAR(whole.input->cost[2], s.predicted_kl / whole.predicted_kl, 1e-4);
}

TEST_F(ErrorSplitTest, ARotationOfTheInputsChangesNothing) {
  const torch::Tensor q = std::get<0>(
                          torch::linalg_qr(torch::randn({kCols, kCols}, torch::kFloat64))),
                      e = 0.01 * torch::randn({kRows, kCols}, torch::kFloat64);
  weights_ = torch::zeros({kRows, kCols});
  const ErrorSplit before = split(e);
  cost_.h = q.t().mm(cost_.h.to(torch::kFloat64)).mm(q).to(torch::kFloat32);
  look();
  const ErrorSplit after = split(e.mm(q));
  EXPECT_NEAR(after.predicted_kl / before.predicted_kl, 1, 1e-4);
  for (std::size_t i = 0; i < kTopShares.size(); ++i)
    EXPECT_NEAR(after.input->energy[i], before.input->energy[i], 1e-3);
}

TEST_F(ErrorSplitTest, TwiceTheErrorCostsFourTimes) {
  const torch::Tensor e = 0.01 * torch::randn({kRows, kCols});
  const ErrorSplit one = split(e), two = split(2 * e);
  EXPECT_NEAR(two.predicted_kl / one.predicted_kl, 4, 1e-3);
  EXPECT_NEAR(two.white_kl / one.white_kl, 4, 1e-3);
  EXPECT_NEAR(two.input->cost[0], one.input->cost[0], 1e-4);
  EXPECT_NEAR(one.relative_energy, one.energy / weights_.square().sum().item<double>(), 1e-6);
}

TEST_F(ErrorSplitTest, NoErrorCostsNothing) {
  const ErrorSplit s = split(torch::zeros({kRows, kCols}));
  EXPECT_EQ(s.predicted_kl, 0);
  EXPECT_EQ(s.white_kl, 0);
  EXPECT_EQ(s.input->energy[2], 0);
}

TEST(CostTest, AnEmbeddingThatIsOnlyLookedUpCostsWhatItsTokensCost) {
  calibrate::MatrixSignal signal;
  signal.c = torch::eye(6);
  signal.frequency = torch::tensor({0.5f, 0.5f, 0.0f});
  const Cost cost = Cost::of(signal, 1000);
  EXPECT_TRUE(cost.complete());
  EXPECT_TRUE(cost.lookup_only);
  EXPECT_GT(cost.g[2].item<float>(), 0);  // half a token
  EXPECT_NEAR(cost.g.sum().item<double>(), 1, 1e-6);
  signal.h = torch::eye(6);
  EXPECT_FALSE(Cost::of(signal, 1000).complete());  // a head whose G was not gathered
}

}  // namespace
}  // namespace spectralquant::spectra
