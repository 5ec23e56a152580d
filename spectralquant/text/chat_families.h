#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace spectralquant::text {

/// What stands around the content of a turn: "{role}" is the turn's role, "{eos}" the EOS token.
struct TurnMarkers {
  std::string_view before = {}, after = {};
};

/// A family of chat templates: how it is recognised, and what it puts around turns.
struct ChatFamily {
  using Texts = std::vector<std::string_view>;

  std::string_view name = {};
  Texts in_template = {};      ///< all of them stand in the chat template
  Texts not_in_template = {};  ///< none of them does
  Texts tokens = {};           ///< where there is no template: all are in the vocabulary (if any)

  /// false: recognised, so that it is taken for no other family, but not rendered
  bool is_rendered = true;
  std::string_view start = {};  ///< before the first turn
  TurnMarkers system = {}, user = {}, assistant = {};
  std::string_view assistant_role = "assistant";  ///< {role} of the assistant
  bool any_role = false;                          ///< other roles look like the user's
  bool trims = false;                             ///< white space around contents is dropped
  bool trims_assistant = false;                   ///< around the assistant's alone
  /// The system text has no turn of its own: `system` goes around it, and all of it before the
  /// content of the user's next turn.
  bool folds_system = false;
  std::string_view between = {};     ///< before every user turn but the first
  std::string_view last_after = {};  ///< ends the last turn, if it is the assistant's
  TurnMarkers tool = {};             ///< of a tool's answer, where it is a turn like others

  /// Reasoning stands between these, before the content.
  TurnMarkers reasoning = {};
  std::string_view no_reasoning = {};     ///< in place of it in a turn without
  bool reasoning_is_turn = false;         ///< it has a turn of its own
  bool reasoning_needs_template = false;  ///< only if the template or the architecture knows it
};

/// All families, in the order in which they are tried.
///
/// Source  the models' own chat templates, and llama.cpp's llm_chat_apply_template.
const std::vector<ChatFamily>& chat_families();

/// Names of those that are rendered, for messages.
std::string rendered_chat_families();

}  // namespace spectralquant::text
