// What the solver reaches and how long it takes.
//
//   bench_solver [--type T] [--batched] [--threads N] [--rounds N] [--sweeps N] [--radius N]
//     synthetic matrices with correlated moments
//     --batched: the solver of accelerators, on the host
//   bench_solver … FOLDER NAME ROWS COLS
//     FOLDER/NAME.{w,h}[.g][.c,.f]: raw float32
//
// Objectives are relative to weighted (imatrix) rounding under the same moments: lower is better, 1
// is no gain.
#include <fmt/format.h>
#include <torch/types.h>

#include <chrono>
#include <ctime>
#include <fstream>
#include <string>
#include <vector>

#include "spectralquant/core/error.h"
#include "spectralquant/format/round.h"
#include "spectralquant/quantize/batched_solver.h"
#include "spectralquant/quantize/row_solver.h"
#include "spectralquant/quantize/solver.h"

using namespace spectralquant;
using quantize::Problem;

namespace {

/// Second moment of correlated inputs: a few strong directions over noise, as activations have.
torch::Tensor moment(std::int64_t n, std::int64_t samples) {
  const torch::Tensor mix = torch::randn({n / 8, n}) * torch::linspace(2, .05, n / 8).unsqueeze(1);
  const torch::Tensor x =
      torch::randn({samples, n / 8}).matmul(mix) + .3 * torch::randn({samples, n});
  return x.t().matmul(x) / static_cast<double>(samples);
}

torch::Tensor read(const std::string& path, std::vector<std::int64_t> shape) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return {};
  torch::Tensor tensor = torch::empty(shape);
  file.read(reinterpret_cast<char*>(tensor.data_ptr<float>()),
            tensor.numel() * static_cast<std::int64_t>(sizeof(float)));
  if (!file) throw bad_input("too short", path, "write float32");
  return tensor;
}

bool batched = false;
const format::Grid* grid = &format::Q4_K::kGrid;

void measure(const std::string& name, Problem problem, const quantize::SolverOptions& options) {
  problem.grid = grid;
  const std::int64_t rows = problem.target.size(0), cols = problem.target.size(1);
  const torch::Tensor importance =
      problem.h.dim() == 1 ? problem.h : problem.h.diagonal().contiguous();
  const auto rounded =
      format::round_like_llama(*problem.grid, problem.target.data_ptr<float>(), rows, cols,
                               importance.data_ptr<float>(), options.n_threads);
  const double baseline = quantize::objective(problem, rounded);
  const std::clock_t cpu_begin = std::clock();
  const auto begin = std::chrono::steady_clock::now();
  const quantize::Solution solution = batched
                                          ? quantize::solve_batched(problem, options, torch::kCPU)
                                          : quantize::solve(problem, options);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const double cpu_seconds = static_cast<double>(std::clock() - cpu_begin) / CLOCKS_PER_SEC;
  fmt::print(
      "{:24} {:6} x {:5}  start {:.6g}  objective {:.6g}  relative {:.4f}  {:6.3f} s  {:6.3f} s "
      "CPU  {:.3f} us/weight\n",
      name, rows, cols, solution.objective_start, solution.objective, solution.objective / baseline,
      seconds, cpu_seconds, 1e6 * cpu_seconds / static_cast<double>(rows * cols));
}

void measure_all(const std::string& name, Problem problem, const quantize::SolverOptions& options) {
  const torch::Tensor g = problem.g, c = problem.c, frequency = problem.frequency;
  problem.g = problem.c = problem.frequency = torch::Tensor();
  measure(name, problem, options);
  if (g.defined()) {
    problem.g = g;
    measure(name + " two-sided", problem, options);
  }
  if (c.defined()) {
    problem.c = c;
    problem.frequency = frequency;
    measure(name + " tied", problem, options);
  }
}

}  // namespace

int main(int argc, char** argv) try {
  quantize::SolverOptions options;
  std::vector<std::string> words;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    auto number = [&] { return i + 1 < argc ? std::stoi(argv[++i]) : 0; };
    if (word == "--threads")
      options.n_threads = number();
    else if (word == "--batched")
      batched = true;
    else if (word == "--type" && i + 1 < argc)
      grid = &format::grid_of(gguf::type_by_name(argv[++i]).value());
    else if (word == "--rounds")
      options.rounds = number();
    else if (word == "--sweeps")
      options.sweeps = number();
    else if (word == "--radius")
      options.live_scale_radius = number();
    else
      words.push_back(word);
  }
  if (words.size() == 4) {
    const std::int64_t rows = std::stoll(words[2]), cols = std::stoll(words[3]);
    const std::string path = words[0] + "/" + words[1];
    Problem problem;
    problem.target = read(path + ".w", {rows, cols});
    problem.h = read(path + ".h", {cols, cols});
    problem.g = read(path + ".g", {rows, rows});
    problem.c = read(path + ".c", {cols, cols});
    problem.frequency = read(path + ".f", {rows});
    measure_all(words[1], problem, options);
    return 0;
  }
  torch::manual_seed(1);
  for (const auto& [rows, cols] :
       {std::pair<std::int64_t, std::int64_t>{256, 256}, {256, 768}, {1024, 256}, {512, 2048}}) {
    Problem problem;
    problem.target = torch::randn({rows, cols}) * .05;
    problem.h = moment(cols, 4 * cols);
    problem.g = moment(rows, 4 * rows) * 1e-4;
    problem.c = moment(cols, 2 * cols) * 1e-3;
    problem.frequency = torch::rand({rows}).pow(3) * .01;
    measure_all("synthetic", problem, options);
  }
} catch (const std::exception& error) {
  fmt::print(stderr, "{}\n", error.what());
  return 1;
}
