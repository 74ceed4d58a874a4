#include "engines/merge.hpp"

#include <algorithm>

namespace seine {
namespace {

constexpr std::int64_t kRunRows = 64;

struct NodePick {
  std::int64_t node;
  std::int64_t row;
  double represents;
};

std::vector<NodePick> picks_of(std::int64_t node, const Picked& picked) {
  std::vector<NodePick> picks;
  for (std::size_t i = 0; i < picked.selection.rows.size(); ++i)
    picks.push_back({node, picked.selection.rows[i], picked.represents.empty() ? 1 : picked.represents[i]});
  return picks;
}

// The strategy at one place of the tree, or what an earlier run found there.
Picked pick_at(Pool& pool, const Task& task) {
  if (const Progress& before = task.before(); before.finished) return {before.selection, 0, 0, before.represents};
  Picked picked = task.entry.pick(pool, task);
  if (!task.resume) return picked;
  pool.comm().heed();  // what was cut short is no result
  task.resume->change(task.place, [&](Progress& progress) {
    progress = {picked.selection, {}, picked.represents, {}, true};
  });
  return picked;
}

// The strategy on every partition of this rank; everybody's picks.
std::vector<NodePick> run_leaves(Pool& pool, const Task& task, std::int64_t partitions) {
  std::vector<std::int32_t> part_of;
  for (const std::int64_t row : pool.columns.rows)
    part_of.push_back(static_cast<std::int32_t>(
        random_bits(task.request.seed, Purpose("partition").key, static_cast<std::uint64_t>(row / kRunRows)) %
        static_cast<std::uint64_t>(partitions)));
  const Comm self = Comm::self();
  std::vector<Pool::Part> parts = pool.regroup(part_of, self);
  std::vector<NodePick> all;
  std::size_t next = 0;
  do {  // until it is time for a checkpoint, or all are done
    const std::vector<NodePick> mine = pool.comm().agree([&] {
      std::vector<NodePick> picks;
      while (next < parts.size()) {
        Pool::Part leaf = std::move(parts[next++]);  // and its memory ends with it
        Task local = task;
        local.batch = std::min(task.batch, leaf.pool.candidates());
        local.ground = nullptr;
        local.console = nullptr;
        local.place = {0, leaf.part};
        if (local.batch == 0) continue;
        for (const NodePick& pick : picks_of(leaf.part, pick_at(leaf.pool, local))) picks.push_back(pick);
        if (task.resume && task.resume->is_time()) break;
      }
      return picks;
    });
    const std::vector<NodePick> everybodys = pool.comm().gather(std::span<const NodePick>(mine));
    all.insert(all.end(), everybodys.begin(), everybodys.end());
    if (task.resume) task.resume->save_if_due();
  } while (pool.comm().sum(std::int64_t{next < parts.size()}) > 0);
  return all;
}

// One node above the leaves: the union of its children's picks as a pool of its own.
Picked run_node(Pool& pool, const Task& task, std::span<const NodePick> picks, const Place& place) {
  std::vector<std::int64_t> rows;
  for (const NodePick& pick : picks) rows.push_back(pick.row);
  Pool node = pool.only(rows);
  if (task.entry.draws_by_distance) {
    node.columns.weight.emplace(node.columns.rows.size());
    node.for_own(rows, [&](std::int64_t own, std::size_t i) {
      (*node.columns.weight)[static_cast<std::size_t>(own)] = picks[i].represents;
    });
  }
  Task above = task;
  above.batch = std::min(task.batch, node.candidates());
  above.level = place.level;
  above.place = place;
  if (!above.ground) above.ground = &pool;
  return pick_at(node, above);
}

}  // namespace

std::int64_t partitions_of(std::int64_t rows, std::int64_t batch, std::int64_t partitions) {
  const std::int64_t most = rows / (4 * std::max<std::int64_t>(batch, 1));
  return std::clamp<std::int64_t>(partitions, 1, std::max<std::int64_t>(most, 1));
}

std::int64_t partitions_of(const Pool& pool, const Task& task) {
  return partitions_of(pool.rows(), task.batch, task.request.partitions);
}

Picked pick_merged(Pool& pool, const Task& task) {
  std::int64_t nodes = partitions_of(pool, task);
  std::vector<NodePick> picks = run_leaves(pool, task, nodes);
  const std::int64_t fan_in = task.request.fan_in;
  Picked picked;
  for (int level = 1; nodes > 1; ++level) {
    std::vector<std::vector<NodePick>> unions(static_cast<std::size_t>((nodes + fan_in - 1) / fan_in));
    for (const NodePick& pick : picks) unions[static_cast<std::size_t>(pick.node / fan_in)].push_back(pick);
    nodes = static_cast<std::int64_t>(unions.size());
    picks.clear();
    for (std::size_t node = 0; node < unions.size(); ++node) {
      if (unions[node].empty()) continue;
      picked = run_node(pool, task, unions[node], {level, static_cast<std::int64_t>(node)});
      const std::vector<NodePick> above = picks_of(static_cast<std::int64_t>(node), picked);
      picks.insert(picks.end(), above.begin(), above.end());
    }
  }
  return picked;
}

}  // namespace seine
