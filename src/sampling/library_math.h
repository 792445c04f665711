// Functions of one float as the tensor library rounds them, which is not always as <cmath> does: samplers
// take differences of such numbers, and the reference's are the library's.
#pragma once

namespace atelier::sampling {

float lib_sqrt(float x);
float lib_exp(float x);
float lib_expm1(float x);
float lib_log(float x);
// As numpy's vector loops round it, which are up to 3 units in the last place off. Tables of logarithms are
// numpy's in the reference, and timesteps between their entries are cut to integers.
float numpy_log(float x);

}  // namespace atelier::sampling
