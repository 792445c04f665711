#include "parallel/assemble.h"

#include "base/check.h"
#include "base/error.h"

namespace atelier::parallel {

struct Assembly::Parts {
  Degrees degrees;
  Mesh mesh;
  nn::Sdpa kernel;
  nn::Alone alone;
  nn::Seams denoiser, picture;
  Parts(const Degrees& d, int rank, nn::SdpaBackend backend) : degrees(d), mesh(mesh_sizes(d), rank), kernel(backend) {
    denoiser = {.exchange = &alone, .attention = &kernel};
    picture = denoiser;
  }
};

Assembly::Assembly(const Degrees& degrees, comm::Transport* transport, std::span<const Leg>, nn::SdpaBackend backend)
    : parts_(std::make_unique<Parts>(degrees, transport ? transport->rank() : 0, backend)) {
  ENSURE(world_size(degrees) == (transport ? transport->size() : 1));
}

Assembly::~Assembly() = default;
const Mesh& Assembly::mesh() const { return parts_->mesh; }
const Degrees& Assembly::degrees() const { return parts_->degrees; }
int Assembly::seq_parts() const { return parts_->mesh.sequence_size(); }
int Assembly::seq_rank() const { return parts_->mesh.sequence_rank(); }
const nn::Seams& Assembly::denoiser() const { return parts_->denoiser; }
const nn::Seams& Assembly::picture() const { return parts_->picture; }
int Assembly::picture_parts() const { return 1; }
int Assembly::picture_rank() const { return 0; }
at::Tensor Assembly::gather_rows(const at::Tensor& part, int64_t) const { return part; }
comm::Comm* Assembly::replica() const { return nullptr; }
comm::Comm* Assembly::guidance() const { return nullptr; }
comm::Comm* Assembly::sequence() const { return nullptr; }
comm::Comm* Assembly::hop(Direction) const { return nullptr; }
void Assembly::begin_request() {}
std::set<std::string> Assembly::used() const { return parts_->kernel.used(); }

}  // namespace atelier::parallel
