// The words of --optimize.
#include <algorithm>

#include "app/compat/unsupported.h"
#include "app/settings/resolve.h"
#include "base/error.h"

namespace atelier::app {
namespace {

// What a word stands for: a setting and its value, or a setting that this build refuses or notes.
struct Word {
  std::string_view words, setting, value;
};

constexpr Word kWords[] = {
    {"torch_compile compile", "enable_compile", "true"},
    {"vae_slicing", "enable_vae_slicing", "true"},
    {"vae_tiling", "enable_vae_tiling", "true"},
    {"tf32", "enable_tf32", "true"},
    {"xformers", "attention_backend", "xformers"},
    {"flash_attention flash", "attention_backend", "flash"},
    {"sage_attention sage", "attention_backend", "sage"},
    {"sdpa", "attention_backend", "sdpa"},
    {"fuse_qkv", "enable_fuse_qkv", "true"},
    {"layerwise_cast", "enable_layerwise_casting", "true"},
    {"cpu_offload", "enable_cpu_offload", "true"},
    {"sequential_cpu_offload", "enable_sequential_cpu_offload", "true"},
    {"group_offload", "enable_group_offloading", "true"},
    {"deep_cache", "cache_type", "deep_cache"},
    {"first_block_cache", "cache_type", "first_block_cache"},
    {"pab_cache pab", "cache_type", "pab"},
    {"faster_cache", "cache_type", "faster_cache"},
    {"cache_dit", "cache_type", "cache_dit"},
    {"taylor_seer", "cache_type", "taylor_seer"},
};

const Word& find_word(const std::string& word, const std::string& where) {
  std::string known;
  for (const auto& w : kWords) {
    for (const auto& spelling : words_of(w.words)) {
      if (spelling == word) return w;
      known += (known.empty() ? "" : ", ") + spelling;
    }
  }
  throw Error(Kind::kUsage, str(where, ": the word \"", word, "\" is unknown; known are ", known));
}

}  // namespace

void apply_optimize(Resolved& resolved) {
  const Origin origin = resolved.origin("optimize");
  for (const auto& word : words_of(resolved.settings.engine.optimize)) {
    const Word& found = find_word(word, origin.text);
    const std::string setting(found.setting), where = str(origin.text, " ", word);
    if (resolved.is_set(setting) && resolved.origin(setting).level >= origin.level) continue;
    resolved.settings.fields([&](const std::string&, const Field& field, const FieldRef& slot) {
      if (field.name == setting) set_from_text(field, slot, {std::string(found.value)}, where);
    });
    resolved.origins[setting] = {origin.level, where};
  }
}

}  // namespace atelier::app
