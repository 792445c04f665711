// Letters, numbers and case pairs of Unicode 15 to 17: the reference's tables have them, a distribution's ICU
// may not.
#pragma once

namespace atelier::text {

bool is_recent_letter(char32_t c);
bool is_recent_number(char32_t c);
// The lower case of a recent capital letter, or 0.
char32_t recent_lower_case(char32_t c);

}  // namespace atelier::text
