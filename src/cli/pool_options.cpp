#include "cli/pool_options.hpp"

namespace seine {

void declare_pool(Options& options, PoolRequest& pool, bool required) {
  constexpr int kMostThreads = 4096;
  if (required)
    options.required();
  else
    options.group("Rows");
  options.list("pool", "PATH...", pool.pool, "HDF5 files and globs, or one .txt list of paths");

  options.group("Rows");
  options.list("labelled", "FILE...", pool.labelled,
               "ids that are labelled: .csv, .h5, .json or a line each;\n"
               "never returned, covered");
  options.list("pending", "FILE...", pool.pending, "ids with the annotators now; never returned, covered");
  options.list("exclude", "FILE...", pool.exclude, "ids never to return; they stay part of the objective");
  options.list("candidates", "FILE...", pool.candidates, "only these ids may be returned");
  options.list("labelled-pool", "PATH...", pool.labelled_pool, "labelled rows that are not in the pool; covered");
  options.flag("strict-ids", pool.strict_ids, "ids that the pool does not have are an error");

  options.group("Datasets");
  options.text("embeddings", "NAME", pool.names.embeddings, "rows of numbers");
  options.text("probabilities", "NAME", pool.names.probabilities, "class probabilities, of one pass or several");
  options.text("logits", "NAME", pool.names.logits, "used where there are no probabilities");
  options.text("ids", "NAME", pool.names.ids, "unique whole numbers or texts");
  options.text("labels", "NAME", pool.names.labels, "a row with a label >= 0 is labelled; none: ignored");
  options.text("classes", "NAME", pool.names.classes, "reference classes, read by evaluate");
  options.text("costs", "NAME", pool.names.costs, "labelling costs");
  options.text("groups", "NAME", pool.names.groups, "strata, clients, images or annotators");

  options.group("Machine");
  options.word("device", "auto|cpu|cuda", pool.device, "auto: CUDA where it is usable", {"checked"});
  options.number("threads", "T", pool.threads, between(1, kMostThreads),
                 "per rank [the CPUs of this process / ranks on the node]");
  options.number("memory", "GIB", pool.memory_gib, above(0),
                 "per rank [the limit or what is free / ranks on the node]");
}

}  // namespace seine
