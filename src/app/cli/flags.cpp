// From arguments to flags.
#include "app/cli/flags.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <map>

#include "app/cli/parse.h"
#include "app/compat/environment.h"
#include "app/settings/home.h"
#include "base/error.h"
#include "base/suggest.h"

namespace atelier::app {
namespace {

const std::map<std::string, std::string> kTitles{
    {"model", "Model"},   {"device", "Device"}, {"backend", "Ranks"},   {"input", "Pictures"},
    {"engine", "Engine"}, {"output", "Output"}, {"scripts", "Scripts"}, {"serve", "Server"}};

std::vector<std::string> names_of(const Field& field) {
  std::vector<std::string> out{std::string(field.name)};
  for (auto& alias : words_of(field.aliases)) out.push_back(std::move(alias));
  return out;
}

// "--resume,!--no_resume": the second one switches off.
std::string spellings(const Field& field, const FieldRef& slot) {
  std::string out;
  for (const auto& name : names_of(field)) {
    out += (out.empty() ? "" : ",") + dashed(name);
    if (is_switch(slot) && name.size() > 1 && !name.starts_with("no_")) out += ",!--no_" + name;
  }
  return out;
}

class Parser {
 public:
  explicit Parser(const FlagSet& set) : set_(set), app_(set.about, "atelier " + set.name) {
    app_.allow_extras();
    app_.add_option("--config", config_,
                    "settings from a .yaml or .json file; flags and DG_ variables win over it");
    known_ = {"--config", "--help"};
    for (const auto& [name, help] : set.switches) {
      switches_[name] = app_.add_flag("--" + name, help);
      known_.push_back("--" + name);
    }
    for (const auto& [name, help] : set.values) {
      values_[name] = app_.add_option("--" + name, help);
      known_.push_back("--" + name);
      takes_value_.insert("--" + name);
    }
    Settings settings;
    settings.fields([&](const std::string& section, const Field& field, const FieldRef& slot) {
      if (field.surfaces & set.surface) add(section, field, slot);
    });
  }

  // Throws Error(kUsage) for a flag that the command has no use for.
  void check_use(const std::vector<Given>& flags) const {
    for (const auto& flag : flags) {
      if (!set_.unused.contains(flag.name)) continue;
      throw Error(Kind::kUsage, str(flag.spelling, " has no use in ", set_.name, ": ", set_.why));
    }
  }

  Parsed parse(const Arguments& arguments) {
    Parsed out;
    if (tell_flags(app_)) {
      out.is_help = true;
      return out;
    }
    check_values(arguments);
    try {
      const auto apart = values_apart(arguments);
      app_.parse(Arguments(apart.rbegin(), apart.rend()));
    } catch (const CLI::CallForHelp&) {
      std::cout << app_.help();
      out.is_help = true;
      return out;
    } catch (const CLI::ArgumentMismatch& e) {
      const std::string text = e.what();  // "--prompt: 1 required ..."
      throw Error(Kind::kUsage, text.substr(0, text.find(':')) + " needs a value");
    } catch (const CLI::ParseError& e) {
      throw Error(Kind::kUsage, e.what());
    }
    if (const auto rest = app_.remaining(); !rest.empty()) refuse(rest.front());
    out.config = expand_home(config_, environment());
    if (config_.empty() && app_.get_option("--config")->count() > 0)
      throw Error(Kind::kUsage, "--config needs a .yaml or .json file, found an empty name");
    for (const auto& [name, option] : switches_) {
      if (option->count() > 0) out.switches.insert(name);
    }
    for (const auto& [name, option] : values_) {
      if (option->count() > 0) out.values[name] = option->results().back();
    }
    for (const auto& flag : flags_) {
      if (flag.option->count() == 0) continue;
      out.flags.push_back({flag.names.front(), spelling_in(arguments, flag), words(flag)});
    }
    check_use(out.flags);
    return out;
  }

 private:
  struct Flag {
    std::vector<std::string> names;
    bool is_list;
    CLI::Option* option;
  };

  void add(const std::string& section, const Field& field, const FieldRef& slot) {
    const std::string help(field.help);
    auto* option = is_switch(slot) ? app_.add_flag(spellings(field, slot), help)
                                   : app_.add_option(spellings(field, slot), help);
    if (!is_switch(slot)) option->expected(1, is_list(slot) ? CLI::detail::expected_max_vector_size : 1);
    option->allow_extra_args(is_list(slot));
    option->multi_option_policy(is_list(slot) ? CLI::MultiOptionPolicy::TakeAll
                                              : CLI::MultiOptionPolicy::TakeLast);
    const bool is_hidden = help.empty() || set_.unused.contains(std::string(field.name));
    option->group(is_hidden ? "" : kTitles.at(section));
    flags_.push_back({names_of(field), is_list(slot), option});
    for (const auto& name : flags_.back().names) {
      known_.push_back(dashed(name));
      (is_switch(slot) ? switches_on_ : takes_value_).insert(dashed(name));
    }
  }

  // Otherwise --prompt --seed 1 would draw "--seed" and "1". A value that is spelled like a flag can be
  // written --prompt=--seed.
  void check_values(const Arguments& arguments) const {
    for (size_t i = 0; i < arguments.size(); ++i) {
      if (!takes_value_.count(arguments[i])) continue;
      const std::string next = i + 1 < arguments.size() ? arguments[i + 1] : "--help";
      const std::string key = next.substr(0, next.find('='));
      const bool is_flag =
          next.starts_with("--") && std::find(known_.begin(), known_.end(), key) != known_.end();
      if (is_flag) throw Error(Kind::kUsage, arguments[i] + " needs a value");
    }
  }

  // --a=b as two arguments: CLI11 takes an empty b for none. Switches are joined to theirs, which is
  // optional.
  Arguments values_apart(const Arguments& arguments) const {
    Arguments out;
    for (const auto& a : arguments) {
      if ((a == "true" || a == "false") && !out.empty() && switches_on_.contains(out.back())) {
        out.back() += "=" + a;
        continue;
      }
      const size_t equals = a.find('=');
      const bool is_ours =
          a.starts_with("--") && equals != std::string::npos && takes_value_.count(a.substr(0, equals));
      if (is_ours) out.push_back(a.substr(0, equals));
      out.push_back(is_ours ? a.substr(equals + 1) : a);
    }
    return out;
  }

  // A flag that is given twice counts as it was given last, as everywhere.
  static std::vector<std::string> words(const Flag& flag) {
    auto out = flag.option->results();
    if (!flag.is_list && out.size() > 1) out.erase(out.begin(), out.end() - 1);
    return out;
  }

  static std::string spelling_in(const Arguments& arguments, const Flag& flag) {
    for (auto a = arguments.rbegin(); a != arguments.rend(); ++a) {
      std::string key = a->substr(0, a->find('='));
      for (const auto& name : flag.names) {
        if (key == dashed(name) || key == "--no_" + name) return key;
      }
    }
    return dashed(flag.names.front());
  }

  [[noreturn]] void refuse(const std::string& argument) const {
    if (!argument.starts_with('-')) throw Error(Kind::kUsage, str("unexpected argument \"", argument, "\""));
    const std::string key = argument.substr(0, argument.find('='));
    std::vector<std::string> names;
    for (const auto& known : known_) names.push_back(known.substr(known.find_first_not_of('-')));
    const std::string near = suggestion(key.substr(std::min(key.find_first_not_of('-'), key.size())), names);
    throw Error(Kind::kUsage,
                str("unknown flag ", key,
                    near.empty() ? "; --help lists all" : "; did you mean " + dashed(near) + "?"));
  }

  const FlagSet& set_;
  CLI::App app_;
  std::string config_;
  std::map<std::string, CLI::Option*> switches_, values_;
  std::vector<Flag> flags_;
  std::vector<std::string> known_;
  std::set<std::string> takes_value_, switches_on_;
};

}  // namespace

std::string dashed(const std::string& name) {
  return (name.size() == 1 ? "-" : "--") + name;
}

Parsed parse_flags(const FlagSet& set, const Arguments& arguments) {
  return Parser(set).parse(arguments);
}

}  // namespace atelier::app
