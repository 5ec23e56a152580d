#pragma once
#include <map>
#include <memory>
#include <string>

#include "spectralquant/evaluate/cache.h"
#include "spectralquant/evaluate/score.h"

namespace spectralquant::evaluate {

/// A file and its model, which is made when something has to be computed with it.
class Subject {
 public:
  Subject(const gguf::File& file, model::ModelOptions options)
      : file_(file), options_(options), hash_(file.hash()) {}

  const gguf::File& file() const { return file_; }
  const std::string& hash() const { return hash_; }  ///< of the file's bytes
  const model::ModelOptions& options() const { return options_; }
  model::Model& model();
  void unload() { model_.reset(); }  ///< frees the decoded weights; model() makes them anew
  bool is_loaded() const { return model_ != nullptr; }

 private:
  const gguf::File& file_;
  model::ModelOptions options_;
  std::string hash_;
  std::unique_ptr<model::Model> model_;
};

/// What decides a result of one model on one suite, for the cache. `also`: whatever else does.
std::string cache_key(const Subject& subject, const std::string& suite_hash,
                      const std::string& also);

/// Scores files against one reference and computes only what the cache does not hold.
///
/// The reference runs once per suite, and not at all when every result is known; its hidden states
/// are shared by the candidates. Or it is not there, and its predictions were stored before.
class Scorer {
 public:
  Scorer(Subject& reference, Cache& cache, EvaluateOptions options)
      : reference_(&reference), cache_(cache), options_(options) {}
  /// Scores on suite_of(stored) only.
  Scorer(const StoredLogits& stored, Cache& cache, EvaluateOptions options)
      : stored_(&stored), cache_(cache), options_(options) {}

  Positions of_reference(const Suite& suite, const Progress& progress = {});
  /// Errors   as compare().
  Positions of_candidate(Subject& candidate, const Suite& suite, const Progress& progress = {});

 private:
  const std::vector<torch::Tensor>& hidden(const Suite& suite, const Progress& progress);

  Subject* reference_ = nullptr;  ///< one of the two
  const StoredLogits* stored_ = nullptr;
  Cache& cache_;
  EvaluateOptions options_;
  std::map<std::string, std::vector<torch::Tensor>> hidden_;  ///< by suite hash
};

}  // namespace spectralquant::evaluate
