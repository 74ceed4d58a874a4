// How fast a machine is, in the few numbers that `seine plan` needs: measured by `seine plan --calibrate` with the code
// that a run uses, or built in.
#pragma once

#include <string>

namespace seine {

// Seconds of something that has a fixed part and one per number of a row.
struct Line {
  double each = 0, value = 0;
  double of(double values) const { return each + value * values; }
};

// Seconds, of one thread where threads share the work. The constants that are built in are on the slow side.
struct Machine {
  std::string origin = "built in";  // where the numbers are from

  double start = 0.6;            // until the processes of a job know each other
  double stored_byte = 5e-9;     // read from storage, by one process
  double cached_byte = 4e-10;    // of embeddings in the page cache: read, checked, hashed, put into memory
  double fresh_byte = 6e-10;     // of memory that the system gives for the first time
  double fetched_byte = 2e-10;   // of embeddings that were checked before, read again in order
  double fetched_row = 2e-6;     // one row, read again alone
  double identified_row = 2e-7;  // its id: read, hashed, looked for twice
  double residual_value = 3e-9;  // of a probability: read, checked, hashed, taken for a gradient
  double bounded_value = 2e-9;   // of one whose score a bound in float32 rules out
  double scored_value = 1e-8;    // of one that is scored in float64
  Line distance{2e-9, 3e-11};    // of a row and a pick, in blocks of them
  Line screened_distance{
      2e-8, 1e-10};  // of what is left by the triangle inequality; this and the next with what is done around them
  Line product{2e-8, 5e-11};  // in float64
  Line similarity{8e-9, 2e-11};
  double moment = 5e-10;        // of a row, per entry of the triangle of D x D
  double entry = 5e-10;         // of a D x D matrix that is updated
  double raced_row = 4e-7;      // that enters a race: its clock, its norms, the first pick
  double scanned_row = 3e-9;    // whose bound a wave of a round looks at
  double sifted_row = 1e-8;     // among which the n-th best bound is looked for, by one thread
  double pick = 3e-5;           // one pick among the rows of a round, by one thread
  Line close_pick{2e-4, 5e-6};  // where each pick lowers the bounds of all of them
  double drawn_row = 4e-8;      // of a random sample, by one thread
  // Between ranks; not measured, there is but one here.
  double message = 2e-5;  // a collective call, per doubling of the ranks
  double sent_byte = 1e-9;
};

// JSON with a name for every constant. What the text does not name stays built in; error 65 where it is no such text.
std::string to_json(const Machine& machine);
Machine machine_from_json(const std::string& text, const std::string& path);

// The constants that were stored in this file; built in where there is no file, error 65 where it is another one.
Machine load_machine(const std::string& path);
void store_machine(const std::string& path, const Machine& machine);  // error 73

// $XDG_CACHE_HOME/seine/machine.json, or in ~/.cache; empty where neither is known.
std::string default_machine_path();

}  // namespace seine
