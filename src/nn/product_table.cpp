#include "nn/product_table.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <sstream>
#include <string_view>
#include <utility>

namespace atelier::nn {
namespace {

constexpr std::string_view kFirstLine = "atelier products 1";
constexpr size_t kMostShapes = 4096;  // of all pictures that were ever drawn here
constexpr std::string_view kWanted = "wanted", kOwnChoice = "own";

constexpr std::array<std::pair<at::ScalarType, std::string_view>, 2> kTypes{
    {{at::kBFloat16, "bfloat16"}, {at::kHalf, "float16"}}};
constexpr std::array<std::pair<Epilogue, std::string_view>, 4> kEpilogues{{{Epilogue::kNone, "none"},
                                                                           {Epilogue::kBias, "bias"},
                                                                           {Epilogue::kBiasGelu, "bias_gelu"},
                                                                           {Epilogue::kAdd, "add"}}};

template <class Names, class Value>
std::string_view name_in(const Names& names, Value value) {
  for (const auto& [one, name] : names) {
    if (one == value) return name;
  }
  return {};
}

template <class Names, class Value>
bool value_in(const Names& names, std::string_view name, Value& out) {
  for (const auto& [one, its] : names) {
    if (its == name) return out = one, true;
  }
  return false;
}

std::string hex_of(const std::string& bytes) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string out;
  for (const char c : bytes) {
    const auto value = static_cast<unsigned char>(c);
    out += kDigits[value >> 4U];
    out += kDigits[value & 15U];
  }
  return out;
}

std::optional<std::string> bytes_of(std::string_view hex) {
  std::string out;
  const auto digit = [](char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
  };
  if (hex.empty() || hex.size() % 2 != 0) return std::nullopt;
  for (size_t i = 0; i < hex.size(); i += 2) {
    const int high = digit(hex[i]), low = digit(hex[i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    out += static_cast<char>(high * 16 + low);
  }
  return out;
}

struct Entry {
  ProductShape shape;
  std::optional<ProductAlgorithm> algorithm;
};

std::optional<Entry> entry_of(const std::string& line) {
  std::istringstream in(line);
  std::string type, epilogue, algorithm, rest;
  Entry out;
  auto& s = out.shape;
  if (!(in >> type >> epilogue >> s.rows >> s.in >> s.out >> s.weight_stride >> algorithm))
    return std::nullopt;
  if (!value_in(kTypes, type, s.type) || !value_in(kEpilogues, epilogue, s.epilogue)) return std::nullopt;
  if (s.rows <= 0 || s.in <= 0 || s.out <= 0 || s.weight_stride < s.in) return std::nullopt;
  if (algorithm != kWanted) {
    ProductAlgorithm found;
    if (algorithm != kOwnChoice) {
      auto bytes = bytes_of(algorithm);
      if (!bytes) return std::nullopt;
      found.bytes = std::move(*bytes);
    }
    if (!(in >> found.own_us >> found.best_us) || !(found.own_us > 0) || !(found.best_us > 0))
      return std::nullopt;
    out.algorithm = std::move(found);
  }
  return in >> rest ? std::nullopt : std::optional(std::move(out));
}

}  // namespace

const ProductAlgorithm* ProductTable::find(const ProductShape& shape) const {
  const auto found = entries_.find(shape);
  return found == entries_.end() || !found->second ? nullptr : &*found->second;
}

bool ProductTable::want(const ProductShape& shape) {
  return entries_.size() < kMostShapes && entries_.try_emplace(shape).second;
}

std::vector<ProductShape> ProductTable::wanted() const {
  std::vector<ProductShape> out;
  for (const auto& [shape, algorithm] : entries_) {
    if (!algorithm) out.push_back(shape);
  }
  return out;
}

void ProductTable::merge(const ProductTable& other) {
  for (const auto& [shape, algorithm] : other.entries_) {
    auto& mine = entries_[shape];
    if (!mine) mine = algorithm;
  }
}

ProductTable ProductTable::parse(const std::string& text) {
  ProductTable out;
  std::istringstream in(text);
  std::string line;
  if (!std::getline(in, line) || line != kFirstLine) return out;
  while (out.entries_.size() < kMostShapes && std::getline(in, line)) {
    if (auto entry = entry_of(line)) out.entries_[entry->shape] = std::move(entry->algorithm);
  }
  return out;
}

std::string ProductTable::text() const {
  std::ostringstream out;
  out << kFirstLine << '\n';
  for (const auto& [s, algorithm] : entries_) {
    out << name_in(kTypes, s.type) << ' ' << name_in(kEpilogues, s.epilogue) << ' ' << s.rows << ' ' << s.in
        << ' ' << s.out << ' ' << s.weight_stride << ' ';
    if (!algorithm) {
      out << kWanted << '\n';
      continue;
    }
    out << (algorithm->bytes.empty() ? std::string(kOwnChoice) : hex_of(algorithm->bytes)) << ' '
        << algorithm->own_us << ' ' << algorithm->best_us << '\n';
  }
  return out.str();
}

}  // namespace atelier::nn
