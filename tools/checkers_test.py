#!/usr/bin/env python3
"""Plants violations in small trees and expects rooms.py and style.py to find each of them, and nothing else."""
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import rooms  # noqa: E402
import style  # noqa: E402
from cpp_text import without  # noqa: E402

CMAKE = '''
atelier_room(base LIBRARIES spdlog::spdlog)  # the bottom
atelier_room(comm ROOMS base LIBRARIES torch_cpu)
atelier_room(nn ROOMS base LIBRARIES torch_cpu)
atelier_room(plan ROOMS base)
atelier_room(models ROOMS base nn)
atelier_room(hub ROOMS base)
atelier_room(text ROOMS base)
atelier_room(weights ROOMS base LIBRARIES torch_cpu)
'''


def checked(checker, files, cmake=CMAKE):
    """What the checker says about a throw-away repository of these files."""
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for name, text in {'src/CMakeLists.txt': cmake, 'src/base/a.h': '', **files}.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return checker.check(root)[0]


def rooms_problems(files, cmake=CMAKE):
    return checked(rooms, files, cmake)


def style_problems(files):
    return checked(style, files)


class CppText(unittest.TestCase):
    def test_comments_and_literals_are_told_apart(self):
        text = 'a("//no", \'"\', R"(/* { */)", 1\'000); // yes {\n/* x\ny */ b'
        self.assertEqual(without(text), 'a("//no", \'"\', R"(/* { */)", 1\'000);         \n    \n     b')
        self.assertNotIn('{', without(text, literals=True))
        self.assertIn("1'000", without(text, literals=True))


class Rooms(unittest.TestCase):
    def expect(self, words, files, cmake=CMAKE):
        problems = rooms_problems(files, cmake)
        self.assertEqual(len(problems), 1, problems)
        self.assertIn(words, problems[0])

    def test_good_tree_passes(self):
        self.assertEqual(rooms_problems({
            'src/models/flux.cpp': '#include <ATen/core/Tensor.h>\n#include "nn/a.h"\n#include "models/family.h"\n'
                                   'int patch_size; // patchify, draft, strange\n',
            'src/comm/nccl.cpp': '#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>\n#include "comm/comm.h"\n',
            'src/plan/a.cpp': '#include "base/a.h"\n// FLUX is only named in a comment\nint swan, fluxes;\n',
            'src/hub/hub_names.cpp': 'int flux;\n',
            'src/plan/a_test.cpp': 'int flux;\n'}), [])

    def test_include_of_a_room_that_is_not_linked(self):
        self.expect('room plan may include only base, plan', {'src/plan/a.cpp': '\n#include "nn/a.h"\n'})
        self.expect('src/models/x.cpp:1', {'src/models/x.cpp': '#include "weights/store.h"\n'})
        self.expect('does not start with a room', {'src/plan/a.cpp': '#include "a.h"\n'})

    def test_commented_include_does_not_count(self):
        self.assertEqual(rooms_problems({'src/plan/a.cpp': '// #include "nn/a.h"\n'}), [])

    def test_torch_headers(self):
        self.expect('is forbidden', {'src/nn/a.cpp': '#include <torch/torch.h>\n'})
        self.expect('is forbidden', {'src/nn/a.cpp': '#include <ATen/ATen.h>\n'})
        self.expect('free of torch', {'src/plan/a.cpp': '#include <ATen/core/Tensor.h>\n'})
        self.expect('no torch', {'src/nn/a.cu': '#include <c10/cuda/CUDAStream.h>\n'})
        self.expect('src/comm/*.cpp only', {'src/comm/a.h': '#include <torch/csrc/distributed/c10d/Work.hpp>\n'})
        self.expect('src/comm/*.cpp only', {'src/nn/a.cpp': '#include <nccl.h>\n'})

    def test_words_of_parallelism_in_models(self):
        self.expect('"Ring"', {'src/models/x.cpp': '// Ring attention\n'})
        self.expect('"gather"', {'src/models/text/x.cpp': 'auto y = at::gather(x);\n'})
        self.expect('"ranks"', {'src/models/x.h': '\n\nint ranks;\n'})

    def test_model_names_outside_models(self):
        self.expect('"Flux"', {'src/plan/a.cpp': 'struct FluxPlan;\n'})
        self.expect('"flux"', {'src/plan/a.cpp': 'if (name == "flux") return;\n'})
        self.expect('"SD3"', {'src/plan/a.cpp': 'int kSD3;\n'})
        self.expect('"sdxl"', {'src/nn/a.cpp': 'int for_sdxl_only;\n'})
        self.expect('"flux"', {'src/text/a.cpp': 'int flux;\n'})
        self.expect('named after a model', {'src/nn/wan_rope.cpp': '\n'})

    def test_files_that_may_name_models_do(self):
        self.expect('names no model any more', {'src/plan/a.cpp': '', 'src/hub/hub_names.cpp': 'int swan;\n'})

    def test_a_type_name_stands_for_one_thing(self):
        self.expect('the type Slot is defined at src/nn/a.h:1 too', {
            'src/nn/a.h': 'struct Slot {};\n', 'src/plan/a.h': 'class A {\n  enum class Slot : char { kA };\n};\n',
            'src/plan/a.cpp': 'namespace {\nstruct Slot {};\n}\nvoid f() {\n  struct Slot {};\n}\nstruct A;\n'})
        self.expect('src/plan/a.cpp:1: the type Slot is defined at src/nn/a.h:1 too', {
            'src/nn/a.h': 'struct Slot {};\n', 'src/plan/a.cpp': 'struct Slot {};\n'})

    def test_models_see_only_some_headers_of_weights(self):
        cmake = CMAKE.replace('models ROOMS base nn', 'models ROOMS base nn weights')
        self.assertEqual(rooms_problems({'src/models/x.cpp': '#include "weights/names.h"\n'}, cmake), [])
        self.expect('may include only weights/names.h', {'src/models/x.cpp': '#include "weights/save.h"\n'}, cmake)

    def test_the_table_itself(self):
        self.expect('no atelier_room(extra', {'src/extra/a.h': ''})
        self.expect('models may link only base, nn and weights', {}, CMAKE.replace('models ROOMS base nn', 'models ROOMS base comm'))
        circle = rooms_problems({}, CMAKE.replace('plan ROOMS base', 'plan ROOMS weights')
                                .replace('weights ROOMS base', 'weights ROOMS plan'))
        self.assertTrue(any('in a circle' in problem for problem in circle), circle)


def lines(count, text='  f({});'):
    return '\n'.join(text.format(i) for i in range(count))


class Style(unittest.TestCase):
    def lengths(self, text):
        return {name: length for name, _, length in style.cpp_functions(text)}

    def test_functions_are_found_and_measured(self):
        text = '''
#define MACRO(x) { x
namespace a {
struct S : T<int> {
  S(int x) : a_{x}, b_(x) {
    g({1, 2});
  }
  int get() const noexcept { return a_; }
  bool operator==(const S&) const = default;
  static constexpr std::array<int, 2> k{1, 2};
  int a_ = f(1);
};
enum class E : int { kA, kB };
template <class A, class B = std::vector<int>>
auto A<B>::name(std::function<void()> f = {}) -> std::vector<int> {
  for (;;) {
    if (a) { b(); }
  }
  auto l = [&](int x) { return x; };
  return {};
}
const std::map<int, int> kTable = {
    {1, 2},
    {3, f(4)},
};
const auto lambda = [](int x) {
  return x;
};
TEST(Suite, Name) {
  const char* s = "}";
}
}  // namespace a
extern "C" int main(int argc, char** argv) try {
  return 0;
} catch (...) {
}
'''
        self.assertEqual(self.lengths(text), {'S': 3, 'get': 1, 'A<B>::name': 8, 'lambda': 3, 'Suite.Name': 3, 'main': 3})

    def test_long_function(self):
        problems = style_problems({'src/base/a.cpp': 'int f(int x) {\n' + lines(59) + '\n}\n'})
        self.assertEqual(len(problems), 1, problems)
        self.assertIn('src/base/a.cpp:1: f has 61 lines', problems[0])
        self.assertEqual(style_problems({'src/base/a.cpp': 'int f(int x) {\n' + lines(58) + '\n}\n'}), [])

    def test_long_files(self):
        self.assertIn('401 lines', style_problems({'src/base/a.cpp': lines(401, 'int a{};') + '\n'})[0])
        self.assertIn('351 lines', style_problems({'src/models/a.cpp': lines(351, 'int a{};') + '\n'})[0])
        self.assertEqual(style_problems({'src/base/a.cpp': lines(400, 'int a{};') + '\n'}), [])

    def test_exceptions_need_a_reason_and_a_use(self):
        long = {'src/base/a.cpp': lines(501, 'int a{};') + '\n'}
        listed = 'tools/style_exceptions.txt'
        self.assertEqual(style_problems({**long, listed: '# why\nsrc/base/a.cpp 510 one table\n'}), [])
        self.assertIn('more than 500', style_problems({**long, listed: 'src/base/a.cpp 500 one table\n'})[0])
        self.assertIn('REASON', style_problems({**long, listed: 'src/base/a.cpp 510\n'})[0])
        self.assertIn('remove it', style_problems({listed: 'src/base/a.h 510 was long\n'})[0])

    def test_repetition(self):
        block = lines(20, 'call_{}(x, y);')
        problems = style_problems({'src/base/a.cpp': block, 'src/base/b.cpp': '// other\n' + block})
        self.assertIn('100.0 %', problems[0])
        self.assertIn('src/base/a.cpp, src/base/b.cpp', problems[1])
        self.assertEqual(style_problems({'src/base/a.cpp': block, 'src/base/b.cpp': lines(20, 'other_{}(x);')}), [])


if __name__ == '__main__':
    unittest.main()
