// The commands of the program. Each takes its own arguments and gives the exit code; all may throw Error.
#pragma once
#include <string>
#include <vector>

namespace atelier::app {

using Arguments = std::vector<std::string>;  // behind the command's name, in one spelling

int t2i_command(const Arguments& arguments);   // Diffgentor's flags
int run_command(const Arguments& arguments);   // xDiT's flags
int sdxl_command(const Arguments& arguments);  // flags of the SDXL scripts
int edit_command(const Arguments& arguments);  // Diffgentor's flags
int verify_command(const Arguments& arguments);
int config_command(const Arguments& arguments);
int bench_command(const Arguments& arguments);
int layouts_command(const Arguments& arguments);
int doctor_command(const Arguments& arguments);
int worker_command(const Arguments& arguments);  // started by the program itself

}  // namespace atelier::app
