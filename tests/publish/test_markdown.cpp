// Markdown of eval's JSON; that it is what eval itself prints is tested where both are written.
#include "sample_results.h"
#include "spectralquant/publish/markdown.h"

namespace spectralquant::publish {
namespace {

using testing::HasSubstr;

TEST(Markdown, HasTheFilesAndTheirFigures) {
  const auto markdown = to_markdown(source(sample_results()));
  EXPECT_THAT(markdown, HasSubstr("| ours | 4.57 |"));
  EXPECT_THAT(markdown, HasSubstr("**held (documents, 1000 tokens)**"));
}

TEST(Markdown, WhatIsNoResultIsRefused) {
  const auto error = error_of([] { to_markdown({"{}", "results.json"}); });
  EXPECT_THAT(error.problem(), HasSubstr("no list \"suites\""));
  EXPECT_THAT(error.place(), HasSubstr("results.json"));
}

}  // namespace
}  // namespace spectralquant::publish
