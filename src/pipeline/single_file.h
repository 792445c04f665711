// One file that holds a denoiser, and perhaps the autoencoder and the text encoders with it, each behind a
// prefix of its own. Nothing is known about the prefixes: a part is where the names that its family
// declares are found.
#pragma once
#include <filesystem>
#include <span>
#include <vector>

#include "pipeline/component.h"

namespace atelier::pipeline {

// Lets every component whose tensors the files hold read them there, and gives each denoiser the config that
// its file shows: the first file is the first expert's. `components` begin with the experts; their configs
// are those of another model of the family. Reads headers only. Throws Error(kUsage) unless there is a file
// for each expert and all are of one kind, Error(kCheckpoint) that says what a file holds if that is no
// denoiser of the family.
void take_from_files(const models::Family& family, std::span<const std::filesystem::path> files,
                     std::vector<Component>& components);

// The same for components whose sub-folder of `root` has a config and no weights: each reads the first file
// that holds it, no two denoisers the same one, or stays as it is.
void take_missing(const models::Family& family, const std::filesystem::path& root,
                  std::span<const std::filesystem::path> files, std::vector<Component>& components);

// The same for components whose own sub-folder of `root` holds weights all of which stand behind a prefix, as
// other tools save a part alone. What cannot be read is left to those who need it.
void take_prefixed(const models::Family& family, const std::filesystem::path& root,
                   std::vector<Component>& components);

// Of the denoiser that the file holds most of; null: none that is known.
const models::Family* family_of(const std::filesystem::path& file);
// What a file holds, of all families of this build: "a denoiser of the family ...". Empty: nothing
// that is known.
std::string contents_of(const std::filesystem::path& file);

}  // namespace atelier::pipeline
