// What the blocks of a denoiser multiply: one function per model, in its folder.
#pragma once
#include "base/json.h"
#include "base/model_work.h"

namespace atelier::models {

struct Family;

// config: of the denoiser. Without counts; without blocks where the family does not say. Throws Error(kCheckpoint).
ModelWork work_of(const Family& family, const Json& config);

ModelWork work_flux(const Json& config);
ModelWork work_hunyuan_dit(const Json& config);
ModelWork work_pixart(const Json& config);
ModelWork work_sd3(const Json& config);
ModelWork work_sdxl(const Json& config);
ModelWork work_wan(const Json& config);

}  // namespace atelier::models
