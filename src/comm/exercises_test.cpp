// The exercises themselves, and the tests that run them over threads.
#include "comm/exercises.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <numeric>
#include <stdexcept>

#include "base/error.h"

namespace atelier::comm::exercises {
namespace {

constexpr c10::ScalarType kDtypes[] = {c10::kFloat, c10::kDouble, c10::kBFloat16, c10::kLong};

void require(bool holds, const std::string& what) {
  if (!holds) throw std::runtime_error(what);
}

at::Tensor filled(int64_t count, double value, const at::TensorOptions& options) {
  return at::full({count}, value, options);
}

bool all_equal(const at::Tensor& tensor, double value) {
  return tensor.eq(value).all().item<bool>();
}

std::vector<int> everyone(const Transport& transport) {
  std::vector<int> ranks(transport.size());
  std::iota(ranks.begin(), ranks.end(), 0);
  return ranks;
}

void reduce(Comm& comm, const at::TensorOptions& options) {
  const int size = comm.size(), rank = comm.rank();
  for (const int64_t count : {0, 1, 2, 7, 1000}) {
    auto sum = at::arange(count, options).remainder(5).add(rank);
    comm.all_reduce(sum).wait();
    const auto expected = at::arange(count, options).remainder(5).mul(size).add(size * (size - 1) / 2);
    require(sum.equal(expected), atelier::str("all_reduce of ", count));
  }
}

void gather(Comm& comm, const at::TensorOptions& options) {
  const int size = comm.size(), rank = comm.rank();
  for (const int kind : {0, 1, 2}) {  // even, uneven, with zeros
    std::vector<int64_t> split(size);
    for (int r = 0; r < size; ++r) split[r] = kind == 0 ? 3 : kind == 1 ? 3 + r : r % 2 * 4;
    const auto mine = filled(split[rank], rank + 1, options);
    auto out = at::zeros({std::accumulate(split.begin(), split.end(), int64_t{0})}, options);
    comm.all_gather(out, mine, split).wait();
    int64_t begin = 0;
    for (int r = 0; r < size; begin += split[r++]) {
      require(all_equal(out.narrow(0, begin, split[r]), r + 1), atelier::str("all_gather from ", r));
    }
  }
}

void exchange(Comm& comm, const at::TensorOptions& options) {
  const int size = comm.size(), rank = comm.rank();
  const auto count = [](int kind, int from, int to) -> int64_t {
    return kind == 0 ? 4 : kind == 1 ? 1 + (from + 2 * to) % 3 : (from + to) % 2 * 5;
  };
  for (const int kind : {0, 1, 2}) {
    std::vector<int64_t> in_split(size), out_split(size);
    std::vector<at::Tensor> parts;
    int64_t in_total = 0, out_total = 0, in_begin = 0, out_begin = 0;
    for (int r = 0; r < size; ++r) in_total += in_split[r] = count(kind, rank, r);
    for (int r = 0; r < size; ++r) out_total += out_split[r] = count(kind, r, rank);
    auto in = at::zeros({in_total}, options), out = at::zeros({out_total}, options);
    for (int r = 0; r < size; in_begin += in_split[r++]) {
      in.narrow(0, in_begin, in_split[r]).fill_(10 * rank + r);
    }
    comm.all_to_all(out, in, out_split, in_split).wait();
    for (int r = 0; r < size; out_begin += out_split[r++]) {
      require(all_equal(out.narrow(0, out_begin, out_split[r]), 10 * r + rank),
              atelier::str("all_to_all from ", r));
    }
  }
}

void hop(Comm& comm, const at::TensorOptions& options) {
  const int size = comm.size(), rank = comm.rank();
  const int next = (rank + 1) % size, previous = (rank + size - 1) % size;
  auto in = at::zeros({2, 3}, options);
  const auto out = filled(6, rank, options).view({2, 3});
  comm.send_recv(out, next, in, previous).wait();
  require(all_equal(in, previous), "send_recv in a ring");
  // An open chain: the first only sends, the last only receives.
  in.zero_();
  comm.send_recv(out, rank + 1 < size ? next : -1, in, rank > 0 ? previous : -1).wait();
  require(all_equal(in, rank > 0 ? previous : 0), "send_recv in a chain");
  // Several messages of one pair, all in flight, one of them empty: they arrive in order.
  std::vector<Work> works;
  std::vector<at::Tensor> received;
  for (int i = 0; i < 4; ++i) {
    const int64_t n = i == 2 ? 0 : 5;
    if (rank + 1 < size) works.push_back(comm.send(filled(n, 10 * rank + i, options), next));
    received.push_back(at::zeros({n}, options));
    if (rank > 0) works.push_back(comm.recv(received.back(), previous));
  }
  for (auto& work : works) work.wait();
  for (int i = 0; i < 4; ++i) {
    require(rank == 0 || all_equal(received[i], 10 * previous + i), atelier::str("message ", i));
  }
}

void spread(Comm& comm, const at::TensorOptions& options) {
  for (int root = 0; root < comm.size(); ++root) {
    auto value = filled(9, comm.rank() == root ? 100 + root : 0, options);
    comm.broadcast(value, root);
    require(all_equal(value, 100 + root), atelier::str("broadcast from ", root));
  }
  comm.barrier();
}

}  // namespace

void every_verb(Transport& transport, c10::Device device) {
  const auto comm = transport.open(everyone(transport), "every verb");
  for (const auto dtype : kDtypes) {
    const auto options = at::TensorOptions().dtype(dtype).device(device);
    try {
      reduce(*comm, options);
      gather(*comm, options);
      exchange(*comm, options);
      hop(*comm, options);
      spread(*comm, options);
    } catch (const std::runtime_error& error) {
      throw std::runtime_error(atelier::str(c10::toString(dtype), ": ", error.what()));
    }
  }
}

void many_groups(Transport& transport, c10::Device device) {
  const auto options = at::TensorOptions().dtype(at::kFloat).device(device);
  const int rank = transport.rank(), size = transport.size();
  std::vector<std::unique_ptr<Comm>> groups;
  std::vector<int> first_ranks;
  // All pairs, each twice, in an order that all ranks share; and everyone.
  for (int a = 0; a < size; ++a) {
    for (int b = a + 1; b < size; ++b) {
      for (const char* const name : {"there", "back"}) {
        const int pair[] = {b, a};  // not in order: a group keeps the order it was given
        if (rank == a || rank == b)
          groups.push_back(transport.open(pair, name)), first_ranks.push_back(a + b);
      }
    }
  }
  groups.push_back(transport.open(everyone(transport), "all"));
  first_ranks.push_back(size * (size - 1) / 2);
  for (int round = 0; round < 3; ++round) {
    std::vector<at::Tensor> sums;
    std::vector<Work> works;
    for (const auto& group : groups) {
      sums.push_back(filled(50, rank, options));
      works.push_back(group->all_reduce(sums.back()));
      sums.push_back(at::zeros({group->size()}, options));
      works.push_back(
          group->all_gather(sums.back(), filled(1, rank, options), std::vector<int64_t>(group->size(), 1)));
    }
    for (auto it = works.rbegin(); it != works.rend(); ++it) it->wait();
    for (size_t i = 0; i < groups.size(); ++i) {
      require(all_equal(sums[2 * i], first_ranks[i]), "sum of a group");
      require(sums[2 * i + 1][groups[i]->rank()].item<float>() == static_cast<float>(rank),
              "order within a group");
    }
  }
}

void same_bits_everywhere(Transport& transport, c10::Device device) {
  const auto comm = transport.open(everyone(transport), "same bits");
  for (const auto dtype : {c10::kFloat, c10::kDouble, c10::kBFloat16, c10::kHalf}) {
    for (const int64_t count : {5, 4001}) {
      const auto options = at::TensorOptions().dtype(at::kDouble).device(device);
      auto sum = at::arange(count, options).mul(0.37).add(comm->rank()).sin().div(3 + comm->rank()).to(dtype);
      comm->all_reduce(sum).wait();
      auto first = sum.clone();
      comm->broadcast(first, 0);
      require(sum.equal(first), "all_reduce differs between ranks");
    }
  }
}

void events(Transport& transport, c10::Device device) {
  std::vector<std::pair<std::string, int64_t>> seen;
  transport.observe([&](const Event& event) { seen.emplace_back(event.verb, event.bytes_sent); });
  const auto comm = transport.open(everyone(transport), "events");
  const int64_t size = comm->size(), rank = comm->rank();
  const auto options = at::TensorOptions().dtype(at::kBFloat16).device(device);
  auto sum = filled(2 * size, 1, options), gathered = at::zeros({3 * size}, options);
  comm->all_reduce(sum).wait();
  comm->all_gather(gathered, filled(3, 1, options), std::vector<int64_t>(size, 3)).wait();
  auto out = at::zeros({size * (rank + 1)}, options), in = at::zeros({size * (size + 1) / 2}, options);
  std::vector<int64_t> in_split(size);
  std::iota(in_split.begin(), in_split.end(), 1);
  comm->all_to_all(out, in, std::vector<int64_t>(size, rank + 1), in_split).wait();
  auto value = filled(7, 1, options);
  comm->broadcast(value, 0);
  transport.observe({});
  comm->barrier();
  const std::vector<std::pair<std::string, int64_t>> expected = {
      {"all_reduce", 4 * (size - 1) * 2},
      {"all_gather", 3 * (size - 1) * 2},
      {"all_to_all", (size * (size + 1) / 2 - (rank + 1)) * 2},
      {"broadcast", rank == 0 ? 7 * (size - 1) * 2 : 0}};
  require(seen == expected, "events");
}

}  // namespace atelier::comm::exercises
