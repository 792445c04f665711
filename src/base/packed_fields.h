// The values of fields as bytes, for lists that are longer than memory. Only this program of this
// build reads them.
#pragma once
#include <string>
#include <string_view>

#include "base/field.h"

namespace atelier {

// Appends the values that are set.
void pack_fields(const Fields& fields, std::string& out);
// Fills the fields of a fresh object, in the order in which they were packed.
void unpack_fields(const Fields& fields, std::string_view packed);

}  // namespace atelier
