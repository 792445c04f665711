// Found by comparing ICU 70 and 72 with what the tokenizers library 0.22.2 does to every code point: its
// regular expressions know Unicode 16, its lower case Unicode 17. Without these, such a character falls into
// another word.
#include "text/unicode_recent.h"

#include <algorithm>
#include <iterator>

namespace atelier::text {
namespace {

struct Range {
  char32_t first, last;
};

constexpr Range kLetters[] = {
    {0x1c89, 0x1c8a},   {0xa7cb, 0xa7cd},   {0xa7da, 0xa7dc},   {0x105c0, 0x105f3}, {0x10d4a, 0x10d65},
    {0x10d6f, 0x10d85}, {0x10ec2, 0x10ec4}, {0x1123f, 0x11240}, {0x11380, 0x11389}, {0x1138b, 0x1138b},
    {0x1138e, 0x1138e}, {0x11390, 0x113b5}, {0x113b7, 0x113b7}, {0x113d1, 0x113d1}, {0x113d3, 0x113d3},
    {0x11bc0, 0x11be0}, {0x11f02, 0x11f02}, {0x11f04, 0x11f10}, {0x11f12, 0x11f33}, {0x1342f, 0x1342f},
    {0x13441, 0x13446}, {0x13460, 0x143fa}, {0x16100, 0x1611d}, {0x16d40, 0x16d6c}, {0x18cff, 0x18cff},
    {0x1b132, 0x1b132}, {0x1b155, 0x1b155}, {0x1df25, 0x1df2a}, {0x1e030, 0x1e06d}, {0x1e4d0, 0x1e4eb},
    {0x1e5d0, 0x1e5ed}, {0x1e5f0, 0x1e5f0}, {0x2b739, 0x2b739}, {0x2ebf0, 0x2ee5d}, {0x31350, 0x323af}};

constexpr Range kNumbers[] = {{0x10d40, 0x10d49}, {0x116d0, 0x116e3}, {0x11bf0, 0x11bf9}, {0x11f50, 0x11f59},
                              {0x16130, 0x16139}, {0x16d70, 0x16d79}, {0x1ccf0, 0x1ccf9}, {0x1d2c0, 0x1d2d3},
                              {0x1e4f0, 0x1e4f9}, {0x1e5f1, 0x1e5fa}};

// Capitals and the lower case of the first; the others follow it in step.
struct CaseRange {
  char32_t first, last, lower;
};

constexpr CaseRange kCapitals[] = {{0x1c89, 0x1c89, 0x1c8a},    {0xa7cb, 0xa7cb, 0x264},
                                   {0xa7cc, 0xa7cc, 0xa7cd},    {0xa7ce, 0xa7ce, 0xa7cf},
                                   {0xa7d2, 0xa7d2, 0xa7d3},    {0xa7d4, 0xa7d4, 0xa7d5},
                                   {0xa7da, 0xa7da, 0xa7db},    {0xa7dc, 0xa7dc, 0x19b},
                                   {0x10d50, 0x10d65, 0x10d70}, {0x16ea0, 0x16eb8, 0x16ebb}};

// The ranges are in order.
template <class AnyRange, size_t kCount>
const AnyRange* find(const AnyRange (&ranges)[kCount], char32_t c) {
  const AnyRange* found = std::ranges::lower_bound(ranges, c, {}, &AnyRange::last);
  return found != std::end(ranges) && found->first <= c ? found : nullptr;
}

}  // namespace

bool is_recent_letter(char32_t c) {
  return find(kLetters, c) != nullptr;
}
bool is_recent_number(char32_t c) {
  return find(kNumbers, c) != nullptr;
}

char32_t recent_lower_case(char32_t c) {
  const CaseRange* range = find(kCapitals, c);
  return range == nullptr ? 0 : range->lower + (c - range->first);
}

}  // namespace atelier::text
