#include "plan/picture_rows.h"

#include <gtest/gtest.h>

namespace atelier::plan {
namespace {

// 1024 x 1024 on a GPU.
constexpr CodedPicture kLarge{.latent_rows = 128, .pixels = 1024 * 1024};

TEST(PictureRows, AreTheDefaultOfRanksThatDrawTogether) {
  for (const char* layout :
       {"ulysses=2", "cfg=2", "pipefusion=4", "tensor=2, ring=2", "data=2, kv_gather=2", "ulysses=32"})
    EXPECT_TRUE(codes_by_rows(parse_strategy(layout), kLarge)) << layout;
  for (const char* layout : {"", "data=4", "ulysses=2, parallel_vae=false", "ulysses=2, parallel_vae=off"})
    EXPECT_FALSE(codes_by_rows(parse_strategy(layout), kLarge)) << layout;
  EXPECT_FALSE(codes_by_rows(parse_strategy("ulysses=33"), kLarge)) << "fewer than four rows each";
}

TEST(PictureRows, OfSmallPicturesAreLeftToOne) {
  const auto two = parse_strategy("ulysses=2");
  EXPECT_TRUE(codes_by_rows(two, {.latent_rows = 96, .pixels = kLeastPixels}));
  EXPECT_FALSE(codes_by_rows(two, {.latent_rows = 96, .pixels = kLeastPixels - 1}));
  EXPECT_TRUE(codes_by_rows(two, {.latent_rows = 64, .pixels = 512 * 512, .is_device = false}));
  EXPECT_FALSE(codes_by_rows(two, {.latent_rows = 64, .pixels = 512 * 512}));
  EXPECT_FALSE(codes_by_rows(two, {.latent_rows = 64, .pixels = 512 * 512 - 1, .is_device = false}));
  EXPECT_TRUE(codes_by_rows(two, {.latent_rows = 8, .pixels = 512 * 512, .is_device = false}));
  EXPECT_FALSE(codes_by_rows(two, {.latent_rows = 7, .pixels = 512 * 512, .is_device = false}));
}

TEST(PictureRows, AreCutWhereTheyAreAskedFor) {
  const auto asked = parse_strategy("ulysses=2, parallel_vae");
  EXPECT_TRUE(codes_by_rows(asked, {.latent_rows = 1, .pixels = 64}));
  EXPECT_TRUE(codes_by_rows(asked, {.latent_rows = 1, .pixels = 64, .has_tiles = true}));
  EXPECT_FALSE(codes_by_rows(parse_strategy("data=2, parallel_vae"), kLarge));
}

TEST(PictureRows, GiveWayToTilesThatAreAskedFor) {
  auto tiles = kLarge;
  tiles.has_tiles = true;
  EXPECT_FALSE(codes_by_rows(parse_strategy("ulysses=2"), tiles));
  EXPECT_FALSE(may_code_by_rows(parse_strategy("ulysses=2"), true));
  EXPECT_TRUE(may_code_by_rows(parse_strategy("ulysses=2"), false));
  EXPECT_TRUE(may_code_by_rows(parse_strategy("ulysses=2, parallel_vae"), true));
  EXPECT_FALSE(may_code_by_rows({}, false));
}

}  // namespace
}  // namespace atelier::plan
