// Quantiles of the beta distribution.
#pragma once

namespace atelier::sampling {

// The x in [0, 1] below which a share p of the distribution lies; a, b > 0.
double beta_quantile(double p, double a, double b);

}  // namespace atelier::sampling
