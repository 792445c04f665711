// What a request asks of a model's text encoders and conditions that this model does not have.
#pragma once
#include <string>

#include "pipeline/model_repo.h"
#include "request/request.h"

namespace atelier::pipeline {

// Each names the field and what the family takes; empty: there is nothing that it does not take.

// Of max_sequence_length, where it is set.
std::string text_length_problem(const request::Request& request, const ModelRepo& model);
// Layers of the encoders to leave out.
std::string clip_skip_problem(const request::Request& request, const models::Family& family);
// The sizes of photographs, as the reference's call takes them; and where they must have an effect, too.
std::string size_inputs_problem(const request::Request& request, const models::Family& family);
std::string size_conditions_problem(const request::Request& request, const ModelRepo& model);
// Of all that text encoders are asked for: length, layers, prompts for encoders that are not there.
std::string texts_problem(const request::Request& request, const ModelRepo& model);

}  // namespace atelier::pipeline
