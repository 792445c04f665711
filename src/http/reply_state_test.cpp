// The way back to a client that has left, between threads.
#include "http/reply_state.h"

#include <gtest/gtest.h>

#include <stdexcept>

#include "http/reply.h"

namespace atelier::http {
namespace {

TEST(ReplyState_AMessageCallThatComesTooLate, IsNotKept) {
  const auto state = std::make_shared<ReplyState>(1 << 20, [] {});
  state->mark_gone();
  WebSocket socket(state);
  socket.on_message([socket](const std::string&) {});
  EXPECT_EQ(state.use_count(), 2);  // here and the socket: no call holds what holds it
}

TEST(ReplyState_CallsThatThrow, StopTheirOwnConnectionAlone) {
  const auto state = std::make_shared<ReplyState>(1 << 20, [] {});
  bool is_told = false;
  state->on_message([](const std::string&) { throw std::runtime_error("on purpose"); });
  state->on_gone([&] {
    is_told = true;
    throw std::runtime_error("on purpose");
  });
  EXPECT_NO_THROW(state->deliver("hello"));
  EXPECT_TRUE(state->is_gone());
  EXPECT_TRUE(is_told);
}

TEST(ReplyState_AfterItsConnection, WakesNobody) {
  int woken = 0;
  const auto state = std::make_shared<ReplyState>(1 << 20, [&] { ++woken; });
  EXPECT_TRUE(state->write("a"));
  EXPECT_EQ(woken, 1);
  state->detach();
  state->write("b");
  state->mark_gone();
  state->end();
  EXPECT_EQ(woken, 1);
}

}  // namespace
}  // namespace atelier::http
