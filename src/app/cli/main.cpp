// The program: everything is in cli.cpp.
#include "app/cli/cli.h"

int main(int argc, char** argv) {
  return atelier::app::main(argc, argv);
}
