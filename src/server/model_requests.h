// The request maker of a real server.
#pragma once
#include <memory>

#include "app/run/run_spec.h"
#include "server/request_maker.h"

namespace atelier::server {

// By the settings and the model of a run that is settled; both outlive it.
std::unique_ptr<RequestMaker> make_request_maker(const app::Resolved& resolved, const app::RunSpec& spec);

}  // namespace atelier::server
